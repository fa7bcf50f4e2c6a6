#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# Builds the modules for one kernel, in the toolbox.
#
# usage: modules.sh KIND [MODULE]...	prints the folder with the modules: build/KIND
#   KIND: debian, amd64, uml, demo, debug, kcsan, arm64 or arm64-16k; see kernel.sh
#   MODULE	builds only this one, e.g. dm-drr.ko
#   MUTANTS=1 in the environment: a test build whose guards can be switched off,
#   in build/KIND-mutants
#   DRR_KERNEL=7.2: for another series than the first of versions.conf, in build/KIND-7.2
#   PROVIDER=patched: Debian's kernels get a patched dm-thin-pool.ko, too, in build/KIND-patched
#
# dm-thin-hooks.ko adds to Debian's own dm-thin-pool.ko what DRR needs of it. The other kernels have no
# function tracer: theirs is the kernel's dm-thin with scripts/patches applied, built as an external
# module, with MUTANTS=1 those of the folder mutants as well. dm-drr.ko is this project's, and
# dm-passthrough.ko its sample; drr-disk.ko is the slow disk of the benchmarks.

set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

scripts=$DRR_TOP/scripts
kind=${1:-} wanted=${*:2}
toolbox=toolbox.sh

# The kernel doesn't instrument Rust for KCSAN. The compiler can: these are the options of
# scripts/Makefile.kcsan for C, with the pass and the attribute that asks for it by name.
kcsan_rustflags() {
	printf -- '-Cllvm-args=-%s ' force-attribute=sanitize_thread tsan-distinguish-volatile=1 \
		tsan-compound-read-before-write=1 tsan-instrument-func-entry-exit=0
	echo -Cpasses=tsan
}

image=image
case $kind in
debian) words=(ARCH=x86_64) ;;
arm64 | arm64-16k)
	words=(ARCH=arm64 CROSS_COMPILE=aarch64-linux-gnu-)
	toolbox=cross.sh
	image+=-$kind
	;;
uml | demo) words=(ARCH=um) ;;
debug) words=(ARCH=x86_64 LLVM=1) ;;	# what its kernel is built with
kcsan) words=(ARCH=x86_64 LLVM=1 KRUSTFLAGS="$(kcsan_rustflags)") ;;
*)
	need_known_kernel modules.sh "$kind"
	words=(ARCH=x86_64)
	image+=-$kind
	;;
esac
# A name that another series lacks can be no more than a warning: as a pattern it is a variable there.
[[ ! ${DRR_TRY:-} ]] || words+=(ANY_SERIES=1 KCFLAGS=-Werror KRUSTFLAGS=-Dwarnings)
mutants=${MUTANTS:-}
[[ $mutants = 1 ]] || mutants=
variant=$kind$DRR_SUFFIX${mutants:+-mutants}
provider=${PROVIDER:-stock}
case $provider:$kind in
stock:uml | stock:demo | stock:debug | stock:kcsan) provider=patched ;;
stock:* | patched:uml | patched:demo | patched:debug | patched:kcsan) ;;
patched:*) variant+=-patched ;;
*) die "modules.sh: unknown PROVIDER '$provider' : use stock or patched" ;;
esac

source=$("$scripts/kernel.sh" source)
kdir=$("$scripts/kernel.sh" "$kind")
image=$("$scripts/kernel.sh" "$image")
build=$DRR_TOP/build/$variant
# of one series, a link to those of another if they are the same
patches=$(realpath "${DRR_PATCHES:-$scripts/patches/$DRR_KERNEL}")

kmake() {
	nice "$scripts/$toolbox" make -C "$kdir" "${words[@]}" -j"$(nproc)" "$@"
}

build_thin() {
	"$scripts/toolbox.sh" "$scripts/copy-thin.sh" "$source" "$patches" "$build/dm-thin" \
		${mutants:+"$patches/mutants"}
	kmake M="$build/dm-thin/drivers/md" modules
	cp "$build/dm-thin/drivers/md/dm-thin-pool.ko" "$build/"
}

# The kernel's own modules, unpacked, and its types.
build_hooks() {
	rm -rf "$build/hooks"
	mkdir -p "$build/hooks"
	cp -r "$DRR_TOP/thin" "$DRR_TOP/include" "$build/hooks/"
	"$scripts/toolbox.sh" "$scripts/thin-layout.sh" "$build/hooks/thin/layout.txt" "$image/vmlinuz" "$image/modules" \
		"$source/scripts/extract-vmlinux" >"$build/hooks/thin/layout_generated.h"
	kmake M="$build/hooks/thin" ${mutants:+MUTANTS=1} modules
	cp "$build/hooks/thin/dm-thin-hooks.ko" "$build/"
}

build_drr() {
	[[ -e $DRR_TOP/Kbuild ]] || { echo "no Kbuild"; return 1; }
	mkdir -p "$build/drr"
	kmake M="$DRR_TOP" MO="$build/drr" ${mutants:+MUTANTS=1} SAMPLES=1 modules
	cp "$build/drr/"dm-{drr,passthrough}.ko "$build/"
}

build_disk() {
	mkdir -p "$build/disk"
	kmake M="$DRR_TOP/tools/testing/disk" MO="$build/disk" modules
	cp "$build/disk/drr-disk.ko" "$build/"
}

# Builds a module unless its inputs are those of the last time.
# $1: module, $2: progress text, $3: function, rest: inputs
build_module() {
	local name=$1 text=$2 build_it=$3 key
	shift 3
	[[ ! $wanted || " $wanted " = *" $name "* ]] || return 0
	key=$(cache_key "$kdir" "${words[*]}" "$(tree_key "$scripts/modules.sh" "$@")")
	[[ ! -e $build/$name || $(cat "$build/$name.key" 2>/dev/null) != "$key" ]] || return 0
	rm -f "$build/$name" "$build/$name.key"
	step "module-$variant-$name" "$text" "$build_it"
	echo "$key" >"$build/$name.key"
}

mkdir -p "$build"
lock_build "$variant"
if [[ $provider = stock ]]; then
	build_module dm-thin-hooks.ko "dm-thin-hooks.ko for $variant" build_hooks "$DRR_TOP/thin" \
		"$DRR_TOP/include" "$scripts/thin-layout.sh"
else
	build_module dm-thin-pool.ko "dm-thin-pool.ko for $variant" build_thin "$patches" \
		"$scripts/copy-thin.sh"
fi
build_module dm-drr.ko "dm-drr.ko for $variant" build_drr \
	"$DRR_TOP/Kbuild" "$DRR_TOP"/{rust,drr,samples,include}
build_module drr-disk.ko "drr-disk.ko for $variant" build_disk "$DRR_TOP/tools/testing/disk"
echo "$build"
