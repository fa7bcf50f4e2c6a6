#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# Makes a folder to build Rust modules in for one of Debian's own kernels. The kernel's
# headers package lacks what rustc needs to know of it; the same source, configuration and
# compilers give it again. Runs where these compilers are: in the toolbox, and on machines
# with the package dm-drr-dkms.
#
# usage: prepare-kernel.sh SOURCE BUILD RELEASE CONFIG SYMVERS [WORD]...
#   SOURCE	the kernel's unpacked source, which stays clean
#   BUILD	an empty folder, the future KDIR; it can't be moved later
#   RELEASE	what uname -r says in the kernel
#   CONFIG, SYMVERS	its configuration and its Module.symvers
#   WORD	for make, e.g. CC=gcc-14

set -euo pipefail

die() {
	echo "dm-drr: $*" >&2
	exit 1
}

(($# >= 5)) || die "prepare-kernel.sh: ${#} arguments : see the head of the script"
source=$1 build=$2 release=$3 config=$4 symvers=$5
shift 5

# Value of an option in the configuration of the kernel, and in ours.
option() {
	sed -n "s/^CONFIG_$1=//p" "$2" | tr -d '"'
}

# All that other options depend on must be there, or structures get another layout.
# Texts with the compilers' names may differ, keys are the distribution's own. The vDSO of 32-bit
# programs on arm64 takes one more compiler, and concerns nothing else.
check_config() {
	local lost differ='LOCALVERSION|SYSTEM_TRUSTED_KEYS|BUILD_SALT|(THUMB2_)?COMPAT_VDSO'
	lost=$(grep -E '^CONFIG_' "$config" |
		grep -vE "^CONFIG_($differ|[A-Z_]+_VERSION(_TEXT)?)=" |
		grep -vxFf "$build/.config" | head -n 5) || return 0
	die "kernel $release: its configuration can't be had with these compilers :" \
		"$(tr '\n' ' ' <<<"$lost")"
}

mkdir -p "$build"
cp "$config" "$build/.config"
# 7.3.4+deb13-cloud-amd64: what follows the version is Debian's
"$source/scripts/config" --file "$build/.config" \
	--set-str LOCALVERSION "+${release#*+}" --set-str SYSTEM_TRUSTED_KEYS ""
make -C "$source" O="$build" "$@" olddefconfig
for name in RUSTC_VERSION GCC_VERSION PAHOLE_VERSION; do
	[[ $(option $name "$build/.config") = "$(option $name "$config")" ]] ||
		die "kernel $release: built with $name $(option $name "$config")," \
			"here is $(option $name "$build/.config") : install that version"
done
grep -q '^CONFIG_RUST=y' "$build/.config" ||
	die "kernel $release: the configuration has lost CONFIG_RUST :" \
		"see make -C $source rustavailable"
check_config
make -C "$source" O="$build" -j"$(nproc)" "$@" modules_prepare
cp "$symvers" "$build/Module.symvers"
[[ $(<"$build/include/config/kernel.release") = "$release" ]] ||
	die "kernel $release: the source is of $(<"$build/include/config/kernel.release") :" \
		"install the linux-source package of the kernel's version"
