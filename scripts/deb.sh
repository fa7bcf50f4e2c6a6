#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# Makes the Debian packages, dm-drr-dkms and drrctl, into build/deb, in a Debian root with
# debhelper that is kept in the cache.
#
# usage: deb.sh			prints the packages' paths
#        deb.sh --as VERSION	the same, as that version, in build/deb-VERSION: to upgrade from
#        deb.sh --root		prints where that root is
#
# The version is that of tools/Cargo.toml; between releases with the commit's time and name.

set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
# shellcheck source=scripts/debian-root.sh
. "$DRR_TOP/scripts/debian-root.sh"

scripts=$DRR_TOP/scripts
packaging=$DRR_TOP/packaging
out=$DRR_TOP/build/deb
tool=$DRR_TOP/build/drrctl

git_here() {
	"$scripts/toolbox.sh" -- git -c safe.directory='*' -C "$DRR_TOP" "$@"
}

# A package made of a later commit is newer, so that it can be installed over an older one.
package_version() {
	local version
	version=$(sed -n '/^\[workspace.package\]/,/^\[/s/^version = "\(.*\)"$/\1/p' \
		"$DRR_TOP/tools/Cargo.toml")
	[[ $version ]] || die "no version in tools/Cargo.toml : set it in [workspace.package]"
	if [[ -e $DRR_TOP/.git ]] && ! git_here tag --points-at HEAD | grep -qxF "v$version"; then
		version+=+git$(git_here log -1 --format=%cd.%h --date=format-local:%Y%m%d%H%M%S)
	fi
	echo "$version"
}

# Of the package's files: when the sources were last changed.
source_date() {
	if [[ -e $DRR_TOP/.git ]]; then
		git_here log -1 --format=%ct
	else
		stat -c %Y "$DRR_TOP/tools/Cargo.toml"
	fi
}

# Joins words by "$1".
join() {
	local by=$1 joined
	shift
	joined=$(printf "$by%s" "$@")
	echo "${joined:${#by}}"
}

# What goes to /usr/src; the kernels that it is for are those of scripts/versions.conf.
stage_module() {
	local dir=$1
	mkdir -p "$dir"
	cp -r "$DRR_TOP"/{Kbuild,COPYING,drr,rust,thin,include} "$dir/"
	rm -f "$dir/rust/bindings_generated.rs"
	cp "$scripts"/{prepare-kernel,thin-layout}.sh "$packaging"/dkms/* "$dir/"
	cat >"$dir/supported" <<-END
	# SPDX-License-Identifier: GPL-2.0
	KERNELS='Debian kernel $(join ' or ' "${KERNEL_SERIES[@]}") ($(join ' or ' "${KERNEL_FLAVOURS[@]}"))'
	SUPPORTED='$supported'
	END
}

# Fills in what the templates leave open.
stage_debian() {
	local dir=$1 flavour headers=()
	for flavour in "${KERNEL_FLAVOURS[@]}"; do
		headers+=("linux-headers-$flavour (>= ${KERNEL_SERIES[-1]})")
	done
	cp -r "$packaging/debian" "$dir"
	sed -i -e "s/@VERSION@/$version/g" -e "s/@SERIES@/$(join ' or ' "${KERNEL_SERIES[@]}")/g" \
		-e "s/@HEADERS@/$(join ' | ' "${headers[@]}")/g" \
		-e "s/@SUPPORTED@/${supported//\\/\\\\}/g" \
		-e "s/@LINUX_SOURCE@/$(join ' | ' "${KERNEL_SERIES[@]/#/linux-source-}")/g" \
		"$dir"/{control,dm-drr-dkms.*}
	printf 'interest-noawait /usr/src/linux-source-%s.tar.xz\n' "${KERNEL_SERIES[@]}" \
		>>"$dir/dm-drr-dkms.triggers"
	cat >"$dir/changelog" <<-END
	dm-drr ($version) $DEBIAN_SUITE; urgency=medium

	  * What is new is told by the history of the project.

	 -- $(sed -n 's/^Maintainer: //p' "$dir/control")  $(date -R -u -d "@$SOURCE_DATE_EPOCH")
	END
}

# Files for the system go to the places of their kind.
# $1: the source's folder
stage_system() {
	local file dir
	for file in "$DRR_TOP"/tools/drrctl/system/*; do
		[[ -e $file ]] || continue
		case $file in
		*.rules) dir=usr/lib/udev/rules.d ;;
		*.service) dir=usr/lib/systemd/system ;;
		*.toml) dir=etc/drrctl ;;
		*) die "$file : tell stage_system in scripts/deb.sh where it goes" ;;
		esac
		install -D -m 644 -t "$1/drrctl/system" "$file"
		echo "drrctl/system/$(basename "$file") $dir/" >>"$1/debian/drrctl.install"
	done
}

# drrctl is linked with crates whose licences want their texts to come along.
stage_crates() {
	local crate version license dir text texts
	"$scripts/cargo.sh" tree --locked -p drrctl -e normal --prefix none --no-dedupe \
		--format '{p} ({l})' | sed -e '/(\//d' -e 's/ (proc-macro)//' -e 's/ v/ /' | sort -u |
		while read -r crate version license; do
			dir=$(ls -d "$DRR_CACHE/cargo/registry/src"/*/"$crate-$version")
			printf '\n==== %s %s, %s\n' "$crate" "$version" "$license"
			# of several to choose from, this one needs its text most
			texts=("$dir"/*MIT*)
			[[ -e ${texts[0]} ]] || texts=("$dir"/*{LICEN[CS]E,COPYING,NOTICE}*)
			for text in "${texts[@]}"; do
				[[ ! -f $text ]] || { echo; cat "$text"; }
			done
		done
}

make_packages() {
	local work=$out/work
	rm -rf "$out"
	mkdir -p "$work/source"
	stage_module "$work/source/module"
	cp -r "$packaging"/{install-modules,hooks} "$work/source/"
	sed -i "s/@VERSION@/$version/" "$work/source/install-modules"
	stage_debian "$work/source/debian"
	cp -r "$tool" "$work/source/drrctl"
	cp -r "$DRR_TOP/tools/drrctl/grafana" "$work/source/drrctl/"
	stage_system "$work/source"
	stage_crates >"$work/source/drrctl/crates"
	chmod -R u=rwX,go=rX "$work"
	cd "$work/source"
	# nothing is compiled: no need of build-essential
	( in_root "$root" run dpkg-buildpackage --build=binary --no-sign --no-check-builddeps )
	mv "$work"/*.{deb,changes,buildinfo} "$out/"
	rm -r "$work"
}

need_root
need_plain_paths
cached_root packaging "$SPACE_PACKAGING" "packaging" "${PACKAGING_PACKAGES[@]}"
version=''
case ${1:-} in
'') ;;
--root)
	echo "$root"
	exit
	;;
--as)
	version=${2:-}
	[[ $version =~ ^[0-9][0-9.]*$ ]] ||
		die "deb.sh: '$version' is no version : give digits and dots, e.g. --as 0.0.1"
	out+=-$version
	;;
*) die "deb.sh: unknown word '$1' : use --as, --root, or nothing" ;;
esac

lock_build deb
series=$(join '|' "${KERNEL_SERIES[@]//./\\.}")
supported="^($series)\\.[0-9.]+\\+deb[0-9]+(\\+[0-9]+)?-($(join '|' "${KERNEL_FLAVOURS[@]}"))\$"
step drrctl "drrctl" "$scripts/drrctl.sh"
key=$(cache_key "$root" "$supported" "$version" "$(tree_key "$scripts/deb.sh" "$packaging" "$tool" \
	"$DRR_TOP"/tools/drrctl/{system,grafana} \
	"$DRR_TOP"/{Kbuild,drr,rust,thin,include} "$scripts"/{prepare-kernel,thin-layout}.sh)")
if [[ $(cat "$out/key" 2>/dev/null) != "$key" ]]; then
	version=${version:-$(package_version)}
	SOURCE_DATE_EPOCH=$(source_date)
	export SOURCE_DATE_EPOCH
	step deb "packages $version" make_packages
	echo "$key" >"$out/key"
fi
echo "$out"/*.deb
