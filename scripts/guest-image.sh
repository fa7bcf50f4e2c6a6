#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# Makes the guest's initramfs: programs, stock modules, our modules, the tests.
#
# usage: guest-image.sh [--stock] [--programs WORDS] KIND	prints the image's path
#   KIND: debian, amd64, uml, demo, debug, kcsan, arm64 or arm64-16k; see kernel.sh
#   --stock	without our modules: the kernel as Debian ships it
#   --programs WORDS	of the programs in Rust only these: drrctl, torture, or none of them
#   PROVIDER, MUTANTS in the environment: see modules.sh
#
# The image is two archives, one after the other. The first holds what rarely changes
# and stays in the cache; the second is made anew whenever one of its inputs changes.

set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

scripts=$DRR_TOP/scripts
stock='' programs_wanted='drrctl torture'
while (($#)); do
	case $1 in
	--stock) stock=1 ;;
	--programs) programs_wanted=$2; shift ;;
	*) break ;;
	esac
	shift
done
kind=${1:-}

make_words=(LLVM=1)
! is_uml "$kind" || make_words=(ARCH=um)
modules_common=(xfs overlay dm-thin-pool dm-delay dm-flakey dm-zero null_blk brd loop)
modules_x86=("${modules_common[@]}" virtio_blk configfs erofs dm-snapshot dm-crypt dm-log-writes dm-clone dm-verity
	zram scsi_debug cts)
as_shipped=	# by Debian
case $kind in
arm64 | arm64-16k)
	image=$("$scripts/kernel.sh" "image-$kind")
	as_shipped=1
	modules=("${modules_common[@]}" ext4 btrfs virtio_blk configfs erofs dm-snapshot dm-crypt
		dm-log-writes dm-clone dm-verity zram cts)
	;;
debian)
	image=$("$scripts/kernel.sh" image)
	as_shipped=1
	modules=("${modules_x86[@]}")
	;;
uml)
	image=$("$scripts/kernel.sh" uml)
	modules=("${modules_common[@]}" btrfs f2fs erofs dm-dust)
	;;
demo)
	image=$("$scripts/kernel.sh" demo)
	modules=(overlay dm-thin-pool null_blk)
	;;
debug | kcsan)
	image=$("$scripts/kernel.sh" "$kind")
	modules=("${modules_x86[@]}" dm-dust)
	;;
*)
	need_known_kernel guest-image.sh "$kind"
	image=$("$scripts/kernel.sh" "image-$kind")
	as_shipped=1
	modules=("${modules_x86[@]}" ext4)
	;;
esac
if [[ $as_shipped ]]; then
	release=$(<"$image/release")
else
	release=$(<"$image/include/config/kernel.release")
fi

# --- what builds programs for the guest, and where these come from ---

toolbox=$("$scripts/toolbox.sh" --path)
cargo=("$scripts/cargo.sh")
cargo_target=x86_64-unknown-linux-gnu
built=$DRR_TOP/build/cargo
gcc=("$scripts/toolbox.sh" gcc)
strip=("$scripts/toolbox.sh" strip)
lib=usr/lib/x86_64-linux-gnu
programs=	# the toolbox's

# Those of arm64 are unpacked packages: nothing here can run them.
arm64_programs() {
	lock_cache arm64-programs
	[[ ! -d $programs ]] || return 0
	need_space "$SPACE_ARM64" "the programs for arm64"
	remove_tree "$programs.tmp"
	step arm64-programs "guest image: programs for arm64" "$scripts/cross.sh" \
		"$scripts/arm64-programs.sh" "$programs.tmp" "${ARM64_PROGRAMS[@]}"
	mv "$programs.tmp.programs" "$programs.programs"
	mv "$programs.tmp" "$programs"
}

if [[ $kind = arm64* ]]; then
	toolbox=$("$scripts/cross.sh" --path)
	cargo+=(--arm64)
	cargo_target=aarch64-unknown-linux-gnu
	built+=-arm64
	gcc=("$scripts/cross.sh" aarch64-linux-gnu-gcc)
	strip=("$scripts/cross.sh" aarch64-linux-gnu-strip)
	lib=usr/lib/aarch64-linux-gnu
	programs=$DRR_CACHE/arm64-programs-$(cache_key "$DEBIAN_SUITE" "${ARM64_PROGRAMS[@]}" \
		"@$scripts/arm64-programs.sh")
	[[ -d $programs ]] || ( arm64_programs )
fi

# --- first archive: the cached base ---

# A folder with lib/modules/$release, for depmod and modprobe.
modules_root() {
	local root=$1
	mkdir -p "$root/lib/modules"
	if [[ $as_shipped ]]; then
		cp -r "$image/modules" "$root/lib/modules/$release"
	else
		"$scripts/toolbox.sh" make -C "$image" "${make_words[@]}" \
			INSTALL_MOD_PATH="$root" DEPMOD=true modules_install
	fi
}

make_base() {
	local root=toolbox.sh
	[[ ! $programs ]] || root=cross.sh
	modules_root "$base.tmp/all"
	SYSROOT=$programs "$scripts/$root" "$scripts/guest-base.sh" "$base.tmp/root" "$release" \
		"$base.tmp/all" "${modules[@]}"
	pack "$base.tmp/root" "$base.tmp/root.cpio"
	mkdir "$base.tmp/modules"
	cp -r "$base.tmp/root/lib/modules/$release" "$base.tmp/modules/"
	remove_tree "$base.tmp/all"
	remove_tree "$base.tmp/root"
}

# Packs a folder; equal content gives an equal archive.
pack() {
	# shellcheck disable=SC2016 # expanded by the inner shell
	"$scripts/toolbox.sh" bash -euo pipefail -c 'cd "$1"; find . -print0 | sort -z |
		cpio --null --quiet -o -H newc -R 0:0 --reproducible >"$2"' - "$1" "$2"
}

base=$DRR_CACHE/guest-$kind-$(cache_key "${toolbox##*/}" "$image" "${modules[@]}" "${programs##*/}" \
	"@$scripts/guest-base.sh")
if [[ ! -d $base ]]; then
	(
		lock_cache "guest-$kind"
		[[ ! -d $base ]] || exit 0
		need_space 500 "the guest image"
		remove_tree "$base.tmp"
		mkdir -p "$base.tmp"
		step "guest-$kind" "guest image: programs and modules for $kind" make_base
		mv "$base.tmp" "$base"
		keep_newest $((1 + 2 * ${#KERNEL_SERIES[@]})) "$DRR_CACHE/guest-$kind-"????????????
	)
fi

# --- second archive: what is worked on ---

variant=$kind$DRR_SUFFIX
ours=()
if [[ -z $stock ]]; then
	kos=$("$scripts/modules.sh" "$kind")
	variant=${kos##*/}
	ours=("$kos"/{dm-drr,dm-passthrough,drr-disk}.ko "$kos"/dm-thin-*.ko)
fi
build=$DRR_TOP/build/guest-$variant${stock:+-stock}
lock_build "guest-$variant"
documents=("$DRR_TOP"/{README.md,CONTRIBUTING.md,Documentation})
key=$(cache_key "$base" "$programs_wanted" "$(tree_key "$scripts/guest-image.sh" "$DRR_TOP/tools" "${documents[@]}" \
	"${ours[@]}")")
initrd=$build/initrd-$key

# Small C programs of the tests, the benchmark and the demo are linked statically, one a file.
build_helpers() {
	local source
	for source in "$DRR_TOP"/tools/{testing/{helper,faults,bench},demo}/*.c; do
		[[ -e $source ]] || continue
		mkdir -p "$1"
		"${gcc[@]}" -O2 -Wall -Wextra -Werror -static -pthread -o \
			"$1/$(basename "$source" .c)" "$source"
	done
}

# Programs in Rust, as crates of tools/Cargo.toml, linked statically too.
# $1: crate, $2: folder
build_rust() {
	RUSTFLAGS='-C target-feature=+crt-static' "${cargo[@]}" build --release --locked \
		--target "$cargo_target" -p "$1"
	mkdir -p "$2"
	"${strip[@]}" -o "$2/$1" "$built/$cargo_target/release/$1"
}

# drrctl and its shared libraries: one of these is there to be linked to only dynamically.
# $1: the archive's root
build_drrctl() {
	local library lib=$1/$lib
	mkdir -p "$1/drr/bin" "$lib"
	if [[ $programs ]]; then
		# What it is linked to is there for dmsetup, too.
		"${cargo[@]}" build --release --locked --target "$cargo_target" -p drrctl
		"${strip[@]}" -o "$1/drr/bin/drrctl" "$built/$cargo_target/release/drrctl"
		return
	fi
	"$scripts/cargo.sh" build --release --locked -p drrctl
	"$scripts/toolbox.sh" strip -o "$1/drr/bin/drrctl" "$DRR_TOP/build/cargo/release/drrctl"
	"$scripts/toolbox.sh" ldd "$1/drr/bin/drrctl" | sed -n 's/.* => \(.*\) (.*/\1/p' |
		while read -r library; do
			cp -L "$toolbox/$library" "$lib/"
		done
}

make_top() {
	local top=$build/top dest
	dest=$top/lib/modules/$release
	remove_tree "$top"
	mkdir -p "$top/usr/lib/modules" "$top/drr"
	ln -s usr/lib "$top/lib"
	cp -r "$base/modules/$release" "$dest"
	if [[ -z $stock ]]; then
		mkdir "$dest/updates"
		cp "${ours[@]}" "$dest/updates/"
	fi
	"$scripts/toolbox.sh" depmod -b "$top" "$release"
	rm -r "$dest/kernel"
	cp -r "$DRR_TOP"/tools/testing/. "$top/drr/"
	[[ ! -d $DRR_TOP/tools/demo ]] || cp -r "$DRR_TOP/tools/demo" "$top/drr/"
	mkdir "$top/drr/documents"
	cp -r "${documents[@]}" "$top/drr/documents/"
	build_helpers "$top/drr/bin"
	[[ " $programs_wanted " != *" torture "* ]] || build_rust drr-torture "$top/drr/bin"
	[[ " $programs_wanted " != *" drrctl "* ]] || build_drrctl "$top"
	cp "$DRR_TOP/tools/testing/guest/init" "$top/init"
	chmod +x "$top/init"
	pack "$top" "$build/top.cpio"
	cat "$base/root.cpio" "$build/top.cpio" >"$initrd.tmp"
	mv "$initrd.tmp" "$initrd"
	remove_tree "$top"
	rm "$build/top.cpio"
}

if [[ ! -e $initrd ]]; then
	mkdir -p "$build"
	step "guest-top-$variant" "guest image: our modules and tests ($variant)" make_top
fi
touch "$initrd"
keep_newest 3 "$build"/initrd-*
echo "$initrd"
