# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=bash disable=SC2154
# Debian's kernels for arm64, of the version that the amd64 one has. Sourced by kernel.sh, whose
# functions and $base it uses.

arm64_words=(ARCH=arm64 CROSS_COMPILE=aarch64-linux-gnu-)

cross() {
	nice "$scripts/cross.sh" -- "$@"
}

arm64_flavour() {
	case $1 in
	arm64) echo "$ARM64_FLAVOUR" ;;
	arm64-16k) echo "$ARM64_16K_FLAVOUR" ;;
	esac
}

arm64_release() {
	local release
	release=$(<"$base/image/release")
	echo "${release%-"$KERNEL_FLAVOUR"}-$(arm64_flavour "$1")"
}

# $1: kind
download_arm64() {
	local release version
	release=$(arm64_release "$1")
	cross apt-get update
	version=$(cross apt-cache show "linux-binary-$release:arm64" |
		awk '$1 == "Version:" { print $2; exit }')
	if [[ -z $version ]]; then
		echo "Unable to locate package linux-binary-$release:arm64"
		return 1
	fi
	# shellcheck disable=SC2016 # expanded by the inner shell
	cross bash -euc 'cd "$1"; shift; apt-get download "$@"' - "$base/image-$1.tmp" \
		"linux-config-$DRR_KERNEL:arm64=$version" \
		linux-{headers,binary,base,modules}-"$release:arm64=$version"
}

# The same files as those of the amd64 kernel.
# $1: kind
image_arm64() {
	local dir=$base/image-$1.tmp release deb
	release=$(arm64_release "$1")
	download_arm64 "$1"
	mkdir "$dir/root"
	for deb in "$dir"/*.deb; do
		toolbox dpkg-deb -x "$deb" "$dir/root"
	done
	mv "$dir/root/usr/lib/modules/$release" "$dir/modules"
	mv "$dir/modules/vmlinuz" "$dir/vmlinuz"
	mv "$dir/root/usr/src/linux-headers-$release/Module.symvers" "$dir/"
	toolbox xz -dc "$dir/root/usr/src/linux-config-$DRR_KERNEL/config.arm64_none_$(arm64_flavour "$1").xz" \
		>"$dir/config"
	echo "$release" >"$dir/release"
	rm -r "$dir/root" "$dir"/*.deb
}

# $1: kind
need_image_arm64() {
	[[ ! -d $base/image-$1 ]] || return 0
	"$scripts/cross.sh" --path >/dev/null
	lock_cache "${base##*/}-image-$1"
	need_space 1000 "the kernel for $1"
	piece "image-$1" "kernel $DRR_KERNEL: Debian's kernel for $1" image_arm64 "$1"
}

prepare_arm64() {
	local image=$base/image-$arm64_kind
	cross "$scripts/prepare-kernel.sh" "$base/source" "$1" "$(<"$image/release")" \
		"$image/config" "$image/Module.symvers" "${arm64_words[@]}"
}

# $1: kind, or image-kind; prints the folder
kernel_arm64() {
	local root
	arm64_kind=${1#image-}
	( need_image_arm64 "$arm64_kind" )
	if [[ $1 = image-* ]]; then
		echo "$base/image-$arm64_kind"
		return
	fi
	root=$("$scripts/cross.sh" --path)
	build_folder "$(arm64_flavour "$arm64_kind")" \
		"kernel $DRR_KERNEL: build folder for Debian's kernel for $1" prepare_arm64 "${root##*/}"
}
