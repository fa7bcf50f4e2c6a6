#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# Gets kernels ready for building modules against them; all from Debian's source.
#
# usage: kernel.sh KIND	prints the kernel's folder on stdout, progress on stderr
#   source	the unpacked linux-source package
#   image	Debian's own kernel: vmlinuz, modules/, config, Module.symvers, release
#   debian	build folder (KDIR) that fits Debian's own kernel
#   amd64	the same for another flavour of Debian's kernel; "image-amd64" is that kernel
#   uml		User-mode Linux: built kernel (./linux) and build folder (KDIR)
#   demo		the same with what the demo needs and no more, in less time
#   debug	x86-64 kernel with the run-time checkers: arch/x86/boot/bzImage and KDIR
#   kcsan	the same with the data race detector in place of the others
#   arm64, arm64-16k	build folder (KDIR) that fits Debian's own kernel for arm64, with pages of
#		4 and of 16 KiB; image-arm64, image-arm64-16k: that kernel, as image

set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

scripts=$DRR_TOP/scripts
# shellcheck source=scripts/kernel-arm64.sh
. "$scripts/kernel-arm64.sh"
recipe=1	# raise it when this script prepares something differently

toolbox() {
	nice "$scripts/toolbox.sh" -- "$@"
}

# --- packages ---

# Newest release of the series that the mirror has, e.g. 7.3.4+deb13-cloud-amd64.
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
	fetch debs "$release" "$version" "linux-source-$DRR_KERNEL=$version"
}

# Another flavour of the kernel whose source is there.
download_flavour() {
	local release version
	release=$(<"$base/image/release")
	release=${release%"-$KERNEL_FLAVOUR"}-$flavour
	# the kernel says which package it is of, in the head of its image
	version=$(head -c 65536 "$base/image/vmlinuz" | tr -c '[:print:]' '\n' |
		sed -n 's/^.* Debian \([^ ]*\) (.*$/\1/p')
	toolbox apt-get update
	fetch "debs-$flavour" "$release" "$version"
}

# $1: folder, $2: release, $3: version, rest: more packages
fetch() {
	local folder=$base/$1.tmp release=$2 version=$3
	shift 3
	# shellcheck disable=SC2016 # expanded by the inner shell
	toolbox bash -euc 'cd "$1"; shift; apt-get download "$@"' - "$folder" \
		"linux-config-$DRR_KERNEL=$version" \
		"linux-headers-$release=$version" "linux-binary-$release=$version" \
		"linux-base-$release=$version" "linux-modules-$release=$version" "$@"
	echo "$release" >"$folder/release"
}

# $1: folder, $2: folder with the packages, $3: flavour
unpack_image() {
	local dir=$base/$1.tmp debs=$base/$2 release
	release=$(<"$debs/release")
	mkdir -p "$dir/root"
	for deb in "$debs"/linux-{base,binary,modules,headers,config}-*.deb; do
		toolbox dpkg-deb -x "$deb" "$dir/root"
	done
	mv "$dir/root/usr/lib/modules/$release" "$dir/modules"
	mv "$dir/modules/vmlinuz" "$dir/vmlinuz"
	mv "$dir/root/usr/src/linux-headers-$release/Module.symvers" "$dir/"
	toolbox xz -dc "$dir/root/usr/src/linux-config-$DRR_KERNEL/config.amd64_none_$3.xz" \
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
	piece image "kernel $DRR_KERNEL: unpacking Debian's kernel" unpack_image image debs "$KERNEL_FLAVOUR"
	piece source "kernel $DRR_KERNEL: unpacking the source" unpack_source
	remove_tree "$base/debs"
	keep_newest 2 "$DRR_CACHE/linux-$DRR_KERNEL-"*
}

need_flavour() {
	[[ ! -d $base/image-$flavour ]] || return 0
	lock_cache "${base##*/}-packages"
	need_space 1000 "kernel $flavour"
	piece "debs-$flavour" "kernel $DRR_KERNEL: packages of $flavour (125 MB)" download_flavour
	piece "image-$flavour" "kernel $DRR_KERNEL: unpacking Debian's kernel $flavour" \
		unpack_image "image-$flavour" "debs-$flavour" "$flavour"
	remove_tree "$base/debs-$flavour"
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

# $1: build folder, $2: folder of the kernel
prepare_debian() {
	toolbox "$scripts/prepare-kernel.sh" "$base/source" "$1" "$(<"$2/release")" "$2/config" "$2/Module.symvers"
}

# $1: build folder, rest: parts of the configuration
build_uml() {
	local dir=$1
	cat "${@:2}" >"$dir/fragment"
	kernel_make "$dir" ARCH=um KCONFIG_ALLCONFIG="$dir/fragment" allnoconfig
	need_rust "$dir"
	check_config "$dir/.config" "$dir/fragment"
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

# $1: kind, $2: progress text, $3: function that fills the folder, with its further argument, rest: key
build_folder() {
	local kind=$1 text=$2 fill dir
	read -r -a fill <<<"$3"
	shift 3
	dir=$base/$kind-$(cache_key "$recipe" "$(compilers)" "$@")
	if [[ ! -e $dir/.drr-ready ]]; then
		lock_cache "${base##*/}-$kind"
	fi
	if [[ ! -e $dir/.drr-ready ]]; then
		need_space 1500 "kernel $kind"
		remove_tree "$dir"
		mkdir -p "$dir"
		step "kernel-$kind" "$text" "${fill[0]}" "$dir" "${fill[@]:1}"
		touch "$dir/.drr-ready"
		keep_newest 2 "$base/$kind-"*
	fi
	echo "$dir"
}

# --- main ---

kind=${1:-}
case $kind in
source | image | debian | uml | demo | debug | kcsan) ;;
arm64 | arm64-16k | image-arm64 | image-arm64-16k) ;;
*)
	flavour=${kind#image-}
	need_known_kernel kernel.sh "$flavour"
	;;
esac

need_series
need_plain_paths
"$scripts/toolbox.sh" --path >/dev/null
base=$DRR_CACHE/linux-$DRR_KERNEL-$(cache_key "$recipe" "$DEBIAN_SUITE" "$KERNEL_FLAVOUR")
( need_packages )
[[ ! ${flavour:-} ]] || ( need_flavour )
case $kind in
arm64* | image-arm64*) kernel_arm64 "$kind" ;;
source | image | image-*) echo "$base/$kind" ;;
debian)
	build_folder debian "kernel $DRR_KERNEL: build folder for Debian's kernel" "prepare_debian $base/image"
	;;
uml)
	parts=("$scripts/configs/uml-demo.config" "$scripts/configs/uml.config")
	build_folder uml "kernel $DRR_KERNEL: User-mode Linux" "build_uml ${parts[*]}" "${parts[@]/#/@}"
	;;
demo)
	parts=("$scripts/configs/uml-demo.config")
	build_folder demo "kernel $DRR_KERNEL: User-mode Linux, for the demo" "build_uml ${parts[*]}" "${parts[@]/#/@}"
	;;
debug | kcsan)
	build_folder "$kind" "kernel $DRR_KERNEL: kernel with checkers ($kind, 20 min)" \
		build_checked "@$scripts/configs/x86.config" "@$scripts/configs/$kind.config"
	;;
*)
	build_folder "$kind" "kernel $DRR_KERNEL: build folder for Debian's kernel $kind" \
		"prepare_debian $base/image-$kind"
	;;
esac
