#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# Gets kernels ready for building modules against them; all from Debian's source.
#
# usage: kernel.sh KIND	prints the kernel's folder on stdout, progress on stderr
#   source	the unpacked linux-source package
#   image	Debian's own kernel: vmlinuz, modules/, config, Module.symvers, release
#   debian	build folder (KDIR) that fits Debian's own kernel
#   uml		User-mode Linux: built kernel (./linux) and build folder (KDIR)
#   debug	x86-64 kernel with the run-time checkers: arch/x86/boot/bzImage and KDIR
#   kcsan	the same with the data race detector in place of the others

set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

scripts=$DRR_TOP/scripts
recipe=1	# raise it when this script prepares something differently

toolbox() {
	nice "$scripts/toolbox.sh" -- "$@"
}

# --- packages ---

# Newest release of the series that the mirror has, e.g. 7.3.4+deb13-cloud-amd64
newest_release() {
	toolbox apt-cache search --names-only \
		"^linux-image-${DRR_KERNEL//./\\.}[0-9.]*\\+.*-$KERNEL_FLAVOUR\$" |
		awk '{ sub(/^linux-image-/, "", $1); print $1 }' |
		grep -v unsigned | sort -V | tail -n 1
}

# All packages of one version, or the module and the kernel won't fit together.
download() {
	local release version
	toolbox apt-get update
	release=$(newest_release)
	if [[ -z $release ]]; then
		echo "Unable to locate package linux-image-$DRR_KERNEL*-$KERNEL_FLAVOUR"
		return 1
	fi
	version=$(toolbox apt-cache show "linux-binary-$release" |
		awk '$1 == "Version:" { print $2; exit }')
	# shellcheck disable=SC2016 # expanded by the inner shell
	toolbox bash -euc 'cd "$1"; shift; apt-get download "$@"' - "$base/debs.tmp" \
		"linux-source-$DRR_KERNEL=$version" "linux-config-$DRR_KERNEL=$version" \
		"linux-headers-$release=$version" "linux-binary-$release=$version" \
		"linux-base-$release=$version" "linux-modules-$release=$version"
	echo "$release" >"$base/debs.tmp/release"
}

unpack_image() {
	local dir=$base/image.tmp release debs=$base/debs
	release=$(<"$debs/release")
	mkdir -p "$dir/root"
	for deb in "$debs"/linux-{base,binary,modules,headers,config}-*.deb; do
		toolbox dpkg-deb -x "$deb" "$dir/root"
	done
	mv "$dir/root/usr/lib/modules/$release" "$dir/modules"
	mv "$dir/modules/vmlinuz" "$dir/vmlinuz"
	mv "$dir/root/usr/src/linux-headers-$release/Module.symvers" "$dir/"
	toolbox xz -dc "$dir/root/usr/src/linux-config-$DRR_KERNEL/config.amd64_none_$KERNEL_FLAVOUR.xz" \
		>"$dir/config"
	echo "$release" >"$dir/release"
	rm -r "$dir/root"
}

unpack_source() {
	# shellcheck disable=SC2016 # expanded by the inner shell
	toolbox bash -euo pipefail -c '
		dpkg-deb --fsys-tarfile "$1" | tar -xO "./usr/src/$2" |
			tar -xJ -C "$3" --strip-components=1
	' - "$base"/debs/linux-source-*.deb "linux-source-$DRR_KERNEL.tar.xz" "$base/source.tmp"
}

# Runs "$3..." that fills $base/$1.tmp, unless $base/$1 is there; $2: progress text.
piece() {
	local name=$1 text=$2
	shift 2
	[[ ! -d $base/$name ]] || return 0
	remove_tree "$base/$name.tmp"
	mkdir -p "$base/$name.tmp"
	step "kernel-$name" "$text" "$@"
	mv "$base/$name.tmp" "$base/$name"
}

need_packages() {
	[[ ! -d $base/source || ! -d $base/image ]] || return 0
	lock_cache "${base##*/}-packages"
	need_space "$SPACE_KERNEL" "the kernel source"
	piece debs "kernel $DRR_KERNEL: source and packages (200 MB)" download
	piece image "kernel $DRR_KERNEL: unpacking Debian's kernel" unpack_image
	piece source "kernel $DRR_KERNEL: unpacking the source" unpack_source
	remove_tree "$base/debs"
	keep_newest 2 "$DRR_CACHE/linux-$DRR_KERNEL-"*
}

# --- build folders ---
# Made with O= so that all kernels share one clean source tree. They hold
# absolute paths, so each is built in place and marked as ready at the end.

kernel_make() {
	local dir=$1
	shift
	toolbox make -C "$base/source" O="$dir" -j"$(nproc)" "$@"
}

need_rust() {
	! grep -q '^CONFIG_RUST=y' "$1/.config" || return 0
	echo "the configuration has lost CONFIG_RUST"
	return 1
}

prepare_debian() {
	toolbox "$scripts/prepare-kernel.sh" "$base/source" "$1" "$(<"$base/image/release")" \
		"$base/image/config" "$base/image/Module.symvers"
}

build_uml() {
	local dir=$1
	kernel_make "$dir" ARCH=um KCONFIG_ALLCONFIG="$scripts/configs/uml.config" allnoconfig
	need_rust "$dir"
	check_config "$dir/.config" "$scripts/configs/uml.config"
	kernel_make "$dir" ARCH=um
}

# KASAN with Rust needs clang, so everything is built with it; also the modules.
build_checked() {
	local dir=$1
	cat "$scripts/configs/x86.config" "$scripts/configs/$kind.config" >"$dir/fragment"
	kernel_make "$dir" LLVM=1 KCONFIG_ALLCONFIG="$dir/fragment" allnoconfig
	need_rust "$dir"
	check_config "$dir/.config" "$dir/fragment"
	kernel_make "$dir" LLVM=1
}

# Every option of the fragment must have made it into the configuration.
check_config() {
	local lost
	lost=$(grep '^CONFIG_' "$2" | grep -vxFf "$1") || return 0
	echo "options with missing dependencies: $lost"
	return 1
}

# What a change of makes the build folders stale.
compilers() {
	toolbox dpkg-query -W 'gcc-[0-9]*' 'clang-[0-9]*' rustc bindgen pahole | awk 'NF == 2'
}

# $1: kind, $2: progress text, $3: function that fills the folder, rest: key
build_folder() {
	local kind=$1 text=$2 fill=$3 dir
	shift 3
	dir=$base/$kind-$(cache_key "$recipe" "$(compilers)" "$@")
	if [[ ! -e $dir/.drr-ready ]]; then
		lock_cache "${base##*/}-$kind"
	fi
	if [[ ! -e $dir/.drr-ready ]]; then
		need_space 1500 "kernel $kind"
		remove_tree "$dir"
		mkdir -p "$dir"
		step "kernel-$kind" "$text" "$fill" "$dir"
		touch "$dir/.drr-ready"
		keep_newest 2 "$base/$kind-"*
	fi
	echo "$dir"
}

# --- main ---

kind=${1:-}
case $kind in
source | image | debian | uml | debug | kcsan) ;;
*) die "kernel.sh: unknown kernel '$kind' : use source, image, debian, uml, debug or kcsan" ;;
esac

need_series
need_plain_paths
"$scripts/toolbox.sh" --path >/dev/null
base=$DRR_CACHE/linux-$DRR_KERNEL-$(cache_key "$recipe" "$DEBIAN_SUITE" "$KERNEL_FLAVOUR")
( need_packages )
case $kind in
source | image) echo "$base/$kind" ;;
debian)
	build_folder debian "kernel $DRR_KERNEL: build folder for Debian's kernel" prepare_debian
	;;
uml)
	build_folder uml "kernel $DRR_KERNEL: User-mode Linux" build_uml \
		"@$scripts/configs/uml.config"
	;;
debug | kcsan)
	build_folder "$kind" "kernel $DRR_KERNEL: kernel with checkers ($kind, 20 min)" \
		build_checked "@$scripts/configs/x86.config" "@$scripts/configs/$kind.config"
	;;
esac
