#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# Prints the header that thin/dm-thin-hooks.c includes: the fields of private structures, at the places
# where a kernel's own modules have them, and the modules' build ids. Needs pahole, readelf, objcopy and what
# unpacks the image (zstd for Debian's).
#
# usage: thin-layout.sh LAYOUT VMLINUZ MODULES EXTRACT
#   LAYOUT	thin/layout.txt
#   VMLINUZ	the kernel's image; the modules' types build upon its own
#   MODULES	its modules: /lib/modules/RELEASE
#   EXTRACT	scripts/extract-vmlinux of the kernel's source
#
#        thin-layout.sh --build-id MODULES
#		prints only the build id of their dm-thin-pool
#
# A structure becomes a union of its fields, each behind a filler. The header asserts that each field is
# where, and as long as, the module's own type information says.

set -euo pipefail

die() { echo "dm-drr: $*" >&2; exit 1; }

case $#:${1:-} in
2:--build-id) folder=$2 ;;
4:*) layout=$1 image=$2 folder=$3 extract=$4 ;;
*) die "thin-layout.sh: $# arguments : see the head of the script" ;;
esac
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
btf=$work/vmlinux.btf
declare -A modules=()

# Whether the image is a plain one for arm64, which isn't compressed, and no ELF file any more.
is_plain_arm64() {
	[[ $(tail -c +57 "$image" | head -c 4 | tr -d '\0') = ARMd ]]
}

# Prints the types of a plain image: they are where their header is (magic, version, flags, and its own
# length). Sizes and places of the two parts follow in it.
plain_types() {
	local at types_at types_len strings_at strings_len
	at=$(LC_ALL=C grep -aboP -m 1 '\x9f\xeb\x01\x00\x18\x00\x00\x00' "$image" | head -n 1 | tr -cd '0-9:')
	at=${at%%:*}
	[[ $at ]] || return 0
	read -r types_at types_len strings_at strings_len < <(
		tail -c +$((at + 9)) "$image" | head -c 16 | od -An -tu4 --endian=little)
	tail -c +$((at + 1)) "$image" | head -c $((24 + (types_at + types_len > strings_at + strings_len ?
		types_at + types_len : strings_at + strings_len))) || true
}

# The kernel's types.
types() {
	if is_plain_arm64; then
		plain_types >"$btf"
		return
	fi
	# it may say that it has failed only by its output
	"$extract" "$image" >"$work/vmlinux" || true
	[[ -s $work/vmlinux ]] ||
		die "$image can't be unpacked : install the program that its kind of compression needs (zstd, xz, lz4...)"
	objcopy -O binary --only-section=.BTF "$work/vmlinux" "$btf"
}

# unpack MODULE...
unpack() {
	local name file
	for name; do
		file=$(compgen -G "$folder/kernel/drivers/md/$name.ko*") || die "no $name.ko below $folder/kernel"
		modules[$name]=$work/$name.ko
		case $file in
		*.xz) xz -dc "$file" ;;
		*.zst) zstd -qdc "$file" ;;
		*.gz) gzip -dc "$file" ;;
		*) cat "$file" ;;
		esac >"$work/$name.ko"
	done
}

# build_id MODULE
build_id() {
	local id
	id=$(readelf -n "${modules[$1]}" 2>/dev/null | sed -n 's/^ *Build ID: //p')
	[[ $id =~ ^[0-9a-f]{40}$ ]] || die "${modules[$1]} has no build id : take the kernel's own module"
	echo "$id"
}

# type_of MODULE TYPE: as C.
type_of() {
	local text
	text=$(pahole --btf_base "$btf" -C "$2" "${modules[$1]}" 2>/dev/null) || text=
	[[ $text ]] || die "${modules[$1]} has no type $2 : it needs the types (BTF) of the kernel that it was built with"
	echo "$text"
}

# fields MODULE STRUCT: lines of NAME BYTE BIT SIZE, where BIT is - but for a bit field; and its size as "/".
fields() {
	type_of "$1" "$2" | sed -nE \
		-e 's,^\t.*[ *]([a-z_0-9]+)(\[[0-9]+\])?;[ \t]*/\* *([0-9]+) +([0-9]+) \*/$,\1 \3 - \4,p' \
		-e 's,^\t.*[ *]([a-z_0-9]+):1;[ \t]*/\* *([0-9]+): *([0-9]+) +([0-9]+) \*/$,\1 \2 \3 \4,p' \
		-e 's,^\t/\* size: ([0-9]+).*,/ 0 - \1,p'
}

# field_of STRUCT FIELD TYPE BYTE BIT SIZE: a member of the union.
field_of() {
	local pad="u8 pad_$2[$4];"
	case $3:$5 in
	opaque:-) echo "		struct { $pad u8 $2[$6]; };" ;;
	*:-) echo "		struct { $pad $3 $2; };" ;;
	*:0) echo "		struct { $pad $3 $2 : 1; };" ;;
	*) echo "		struct { $pad $3 : $5, $2 : 1; };" ;;
	esac
}

# structure MODULE STRUCT
structure() {
	local module struct field type place asserts='' name byte bit size
	local -A places=()
	while read -r name byte bit size; do
		places[$name]="$byte $bit $size"
	done < <(fields "$1" "$2")
	[[ ${places[/]:-} ]] || die "${modules[$1]} does not tell the size of struct $2"
	echo "struct $2 {"
	echo "	union {"
	echo "		u8 size_of_all[${places[/]##* }];"
	while read -r module struct field type; do
		[[ $module = "$1" && $struct = "$2" ]] || continue
		place=${places[$field]:-}
		[[ $place ]] || die "struct $2 of ${modules[$1]} has no field $field : this version of dm-thin isn't known"
		read -r byte bit size <<<"$place"
		field_of "$2" "$field" "$type" "$byte" "$bit" "$size"
		[[ $bit = - ]] || continue
		asserts+="static_assert(offsetof(struct $2, $field) == $byte);"$'\n'
		asserts+="static_assert(sizeof_field(struct $2, $field) == $size);"$'\n'
	done <"$layout"
	printf '\t};\n};\n%s\n' "$asserts"
}

if [[ $1 = --build-id ]]; then
	unpack dm-thin-pool
	build_id dm-thin-pool
	exit
fi
types
[[ -s $btf ]] || die "$image has no types (BTF) : CONFIG_DEBUG_INFO_BTF is needed"
unpack dm-thin-pool dm-mod
echo "/* SPDX-License-Identifier: GPL-2.0 */"
echo "/* Made by thin-layout.sh from ${modules[dm-thin-pool]##*/} and ${modules[dm-mod]##*/}. */"
echo
for module in dm-thin-pool dm-mod; do
	name=${module//-/_}
	echo "#define ${name^^}_BUILD_ID \"$(build_id $module)\""
done
echo
type_of dm-thin-pool pool_mode
echo
while read -r module struct; do
	structure "$module" "$struct"
done < <(awk '!/^#/ && NF && !seen[$1 " " $2]++ { print $1, $2 }' "$layout")
