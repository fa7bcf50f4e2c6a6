#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# Tries another kernel series: does all of CONTRIBUTING.md's "A new kernel series" that needs no
# judgement. Prints a table of what works and what doesn't, and for what doesn't the first errors.
# Fails if something doesn't. The logs stay in build/new-series/SERIES.
#
# usage: new-series.sh SERIES	e.g. 7.4
#   KEEP=1 in the environment: keeps the kernel and what was built, and leaves the patches for the
#   series in scripts/patches/SERIES; otherwise what wasn't there before goes
#   QUICK=1: leaves out User-mode Linux, whose kernel takes 10 minutes

set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

scripts=$DRR_TOP/scripts
series=${1:-}
[[ $series =~ ^[0-9]+\.[0-9]+$ ]] || die "new-series: '$series' is no series : give one, e.g. S=7.4"
known=${KERNEL_SERIES[0]}
export DRR_KERNEL=$series DRR_TRY=$series
logs=$DRR_TOP/build/new-series/$series
work=$logs/work
patches=$scripts/patches/$series
[[ -d $patches ]] || patches=$scripts/patches/$known
failed=() worked=

need_root
rm -rf "$logs"
mkdir -p "$work"

toolbox() {
	nice "$scripts/toolbox.sh" -- "$@"
}

# --- what becomes of it all ---

# What there was before, and what goes if it is new.
ours() {
	compgen -G "$DRR_CACHE/linux-$series-*" || true
	compgen -G "$DRR_TOP/build/*-$series*" || true
}
before=$(ours)

# shellcheck disable=SC2317 # called by the trap
clean_up() {
	rm -rf "$work"
	[[ ! ${KEEP:-} ]] || return 0
	comm -13 <(sort <<<"$before") <(ours | sort) | while read -r path; do remove_tree "$path"; done
}
trap clean_up EXIT

# A row of the table. $1: what, $2: ok or FAILED, $3: more
row() {
	printf '%-32s %-6s %s\n' "$1" "$2" "${3:-}"
}

# Runs a command, adds a row, and sets worked to 1 or nothing. Not for "if" and the like: that would switch
# off set -e inside.
# $1: what, $2: name of its log, rest: the command, whose last line of output on fd 3 is shown in the row
try() {
	local what=$1 log=$logs/$2.log said rc named
	shift 2
	set +e
	( set -e; "$@" ) >"$log" 2>&1 3>"$work/said" </dev/null
	rc=$?
	set -e
	worked=
	if [[ $rc = 0 ]]; then
		said=$(tail -n 1 "$work/said")
		row "$what" ok "${said:0:40}"
		worked=1
		return
	fi
	# a script of ours has named the log of its own that tells more; the next run overwrites that
	named=$(sed -n 's/^dm-drr: .* failed : see //p' "$log" | tail -n 1)
	[[ ! -r $named ]] || cat "$named" >>"$log"
	row "$what" FAILED "${log#"$DRR_TOP/"}"
	failed+=("$what" "$log")
}

# The first errors of all that failed.
tell_failures() {
	local i errors
	for ((i = 0; i < ${#failed[@]}; i += 2)); do
		errors=$(grep -m 8 -aE '(^|[: ])error(\[E[0-9]+\])?:|^E: |^dm-drr: |\*\*\* |not there' "${failed[i + 1]}") ||
			errors=$(tail -n 5 "${failed[i + 1]}")
		printf '\n%s:\n' "${failed[i]}"
		cut -c1-110 <<<"$errors" | sed 's/^/  | /'
	done
}

# --- the kernel's packages ---

# Prints the series that the mirror has.
served() {
	toolbox apt-cache search --names-only '^linux-source-[0-9]+\.[0-9]+$' |
		sed -n 's/^linux-source-\([0-9.]*\) .*/\1/p' | sort -V
}

find_packages() {
	local flavours
	flavours=$(toolbox apt-cache search --names-only "^linux-image-${series//./\\.}[0-9.]*\\+[^ ]*\$" |
		sed -nE 's/^linux-image-([0-9.]+)\+deb[0-9]+(\+[0-9]+)?-([a-z0-9-]+) .*/\1 \3/p' |
		grep -vE 'unsigned|dbg' | sort -V)
	[[ $flavours ]] || { echo "error: no linux-image package of $series"; return 1; }
	flavours=$(awk -v newest="$(tail -n 1 <<<"$flavours" | cut -d ' ' -f 1)" \
		'$1 == newest { text = text " " $2 } END { print newest ":" text }' <<<"$flavours")
	echo "$flavours" | tee /dev/fd/3
	[[ " $flavours " = *" $KERNEL_FLAVOUR "* ]] || { echo "error: no flavour $KERNEL_FLAVOUR"; return 1; }
}

get_packages() {
	source=$("$scripts/kernel.sh" source)
	image=$("$scripts/kernel.sh" image)
	printf '%s\n' "$source" "$image" >"$work/folders"
	cat "$image/release" >&3
}

# The toolbox's compilers, as a kernel's configuration has their versions: NAME NUMBER.
versions() {
	# shellcheck disable=SC2016 # expanded by the inner shell
	toolbox bash -c '
		echo "GCC_VERSION $(gcc -dumpfullversion) 10000 100"
		echo "RUSTC_VERSION $(rustc --version | cut -d " " -f 2) 100000 100"
		echo "PAHOLE_VERSION $(pahole --version | tr -d v).0 100 1"
	' | awk '{ split($2, part, "."); print $1, part[1] * $3 + part[2] * $4 + part[3] }'
}

# The kernel's configuration names the compilers that it was built by.
check_compilers() {
	local name here there bad=0
	while read -r name here; do
		there=$(sed -n "s/^CONFIG_$name=//p" "$image/config")
		echo "$name: $there there, $here here"
		[[ $here = "$there" ]] || { echo "error: $name differs"; bad=1; }
	done < <(versions)
	echo "those that built the kernel" >&3
	return $bad
}

# What Debian's configuration must have, or must not.
check_options() {
	local option bad=0
	for option in RUST=y DM_THIN_PROVISIONING=m DEBUG_INFO_BTF=y DEBUG_INFO_BTF_MODULES=y \
		FUNCTION_TRACER=y DYNAMIC_FTRACE_WITH_ARGS=y HAVE_STATIC_CALL=y KPROBES_ON_FTRACE=y EXT4_FS=[ym]; do
		grep -qx "CONFIG_$option" "$image/config" || { echo "error: no CONFIG_$option"; bad=1; }
	done
	# symbols then have checksums, and Module.symvers of the headers has no types of Rust's
	! grep -x CONFIG_MODVERSIONS=y "$image/config" || { echo "error: CONFIG_MODVERSIONS"; bad=1; }
	return $bad
}

# --- dm-thin ---

# Applies both series as mails, in a repository of the files that they touch; prints none or the
# option with which git took them. Makes them anew, if it did so only with less context.
apply_patches() {
	local file less
	for less in '' -C1; do
		rm -rf "$work/repo"
		mkdir -p "$work/repo"
		sed -n 's,^--- a/,,p' "$patches"/*.patch "$patches"/mutants/*.patch | sort -u | while read -r file; do
			[[ ! -e $source/$file ]] || install -D -m 644 "$source/$file" "$work/repo/$file"
		done
		# shellcheck disable=SC2016 # expanded by the inner shell
		toolbox bash -euc '
			export GIT_{AUTHOR,COMMITTER}_{NAME,EMAIL}=series GIT_CONFIG_GLOBAL=/dev/null
			cd "$1"
			git init -q .
			git add .
			git commit -qm source
			git tag source
			git am -q $3 "$2"/*.patch
			git tag series
			git am -q $3 "$2"/mutants/*.patch
			[[ ! $3 ]] || git format-patch -q -N -o ../patches source..series
			[[ ! $3 ]] || git format-patch -q -N -o ../patches/mutants series
		' - "$work/repo" "$patches" "$less" || { echo "error: the patches don't apply ${less:-as they are}"; continue; }
		if [[ $less ]]; then
			echo "made anew, with less context: compare them" >&3
		else
			echo "apply as they are" >&3
		fi
		return 0
	done
	return 1
}

# Section .BTF of the kernel's image and of its dm-thin-pool, into a folder.
# $1: folder, $2: image, $3: source
types() {
	mkdir -p "$1"
	# shellcheck disable=SC2016 # expanded by the inner shell
	toolbox bash -euo pipefail -c 'cd "$1"
		"$3/scripts/extract-vmlinux" "$2/vmlinuz" >vmlinux
		xz -dc "$2/modules/kernel/drivers/md/dm-thin-pool.ko.xz" >module
		for file in vmlinux module; do
			objcopy --dump-section .BTF="$file.btf" "$file" /dev/null
		done' - "$1" "$2" "$3"
}

# $1: folder of types()
prototypes() {
	local functions
	mapfile -t functions < <(sed -nE 's/^\tHOOK\(([a-z_]+)\),$/\1/p' "$DRR_TOP/thin/dm-thin-hooks.c")
	((${#functions[@]})) || { echo "error: no hooks found in thin/dm-thin-hooks.c" >&2; return 1; }
	toolbox python3 -B "$scripts/btf-prototypes.py" "$1/vmlinux.btf" "$1/module.btf" "${functions[@]}"
}

# Each hooked function is there, with the prototype that it has in the series that is known to work.
check_hooks() {
	local count
	types "$work/new" "$image" "$source"
	types "$work/known" "$(DRR_KERNEL=$known "$scripts/kernel.sh" image)" \
		"$(DRR_KERNEL=$known "$scripts/kernel.sh" source)"
	prototypes "$work/new" >"$work/new/functions"
	prototypes "$work/known" >"$work/known/functions"
	cat "$work/new/functions"
	if grep 'not there' "$work/known/functions"; then
		echo "error: $known itself lacks a function"
		return 1
	fi
	diff -U0 --label "$known" --label "$series" "$work/known/functions" "$work/new/functions" || {
		echo "error: hooked functions differ"
		return 1
	}
	count=$(wc -l <"$work/new/functions")
	echo "$count functions, as in $known" >&3
}

# --- what has to be read ---

# The kernel's functions that comments and documents name: DRR's argument rests on what they do.
relied_upon() {
	{
		cat "$DRR_TOP"/Documentation/{design,dm-thin-interface}.rst
		grep -rhE '^[[:space:]]*(//|/?\*)' "$DRR_TOP"/{rust,drr,thin}
	} |
		grep -oE '\b_*[a-z0-9]+_[a-z0-9_]+\(\)' | tr -d '()' | grep -v '^dm_rust_' | sort -u
}

# Prints how another series has changed these functions.
compare_functions() {
	local known_source
	known_source=$(DRR_KERNEL=$known "$scripts/kernel.sh" source)
	relied_upon >"$work/names"
	toolbox python3 -B "$scripts/changed-functions.py" "$known_source" "$source" <"$work/names" | tee "$work/changed"
	tail -n 1 "$work/changed" >&3
}

# --- the modules ---

# $1: kind, $2: provider, $3: 1 for the test build, rest: modules
try_modules() {
	local kind=$1 provider=$2 mutants=$3 module
	shift 3
	for module; do
		PROVIDER=$provider MUTANTS=$mutants try "$kind: $module${mutants:+ (tests)}" \
			"$kind-${mutants:+mutants-}$module" "$scripts/modules.sh" "$kind" "$module"
	done
}

echo "Series $series, on the way to the table: logs in ${logs#"$DRR_TOP/"}" >&2
"$scripts/toolbox.sh" --path >/dev/null
toolbox apt-get update >"$logs/lists.log" 2>&1 || explain_failure "the mirror's lists" "$logs/lists.log"
list=$(served)
if ! grep -qxF "$series" <<<"$list"; then
	rm -rf "$logs"
	die "new-series: the mirror has no linux-source-$series : give S= one that it has: ${list//$'\n'/, }"
fi

row WHAT RESULT DETAILS
try "packages" packages find_packages
try "source and kernel" kernel get_packages
if [[ ! $worked ]]; then
	tell_failures
	exit 1
fi
{ read -r source; read -r image; } <"$work/folders"
try "compilers" compilers check_compilers
try "configuration" options check_options
try "patches of dm-thin" patches apply_patches
applied=$worked
[[ ! $applied || ! -d $work/patches ]] || patches=$work/patches
export DRR_PATCHES=$patches
try "hooked functions" hooks check_hooks
try "functions to be read" functions compare_functions
try "build folder" build-folder "$scripts/kernel.sh" debian
if [[ $worked ]]; then
	for mutants in '' 1; do
		try_modules debian patched "$mutants" dm-thin-pool.ko dm-drr.ko
		try_modules debian stock "$mutants" dm-thin-hooks.ko
	done
	try_modules debian patched '' drr-disk.ko
fi
worked=
[[ ${QUICK:-} ]] || try "User-mode Linux" uml "$scripts/kernel.sh" uml
if [[ $worked ]]; then
	try_modules uml patched '' dm-thin-pool.ko dm-drr.ko drr-disk.ko
	try_modules uml patched 1 dm-thin-pool.ko dm-drr.ko
fi

if [[ ${KEEP:-} && $applied && ! -e $scripts/patches/$series ]]; then
	if [[ $patches = "$work/patches" ]]; then
		cp -r "$patches" "$scripts/patches/$series"
	else
		ln -s "$known" "$scripts/patches/$series"
	fi
	echo "The patches are in scripts/patches/$series."
fi
tell_failures
((!${#failed[@]}))
