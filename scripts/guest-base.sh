#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# Fills a folder with the part of the guest image that rarely changes: programs of
# the toolbox and modules of the stock kernel. Runs in the toolbox, for guest-image.sh.
#
# usage: guest-base.sh FOLDER RELEASE MODULES_ROOT MODULE...
#   MODULES_ROOT has lib/modules/RELEASE; the named modules and what they need are taken
#   SYSROOT in the environment: the programs are those of this folder, for arm64, which the file
#   SYSROOT.programs lists; see arm64-programs.sh

set -euo pipefail

dest=$1 release=$2 modules_root=$3
shift 3

packages=(bash dash coreutils util-linux mount findutils diffutils grep sed gawk jq tar
	procps kmod dmsetup e2fsprogs xfsprogs btrfs-progs f2fs-tools erofs-utils thin-provisioning-tools
	busybox-static)
sysroot=${SYSROOT:-}
objcopy=${sysroot:+aarch64-linux-gnu-}objcopy
# pull in large libraries and nothing here uses them
unwanted='/(xfs_scrub|xfs_scrub_all|xfs_healer.*|busctl)$'

# Prints the shared libraries that programs need, and those that these need. Scripts and static
# programs need none.
libraries() {
	if [[ $sysroot ]]; then
		foreign_libraries "$@"
	else
		ldd "$@" 2>/dev/null | grep -o '/[^ ):]*' || true
	fi
}

# The same for programs that ldd can't run.
foreign_libraries() {
	local -A seen=()
	local files=("${@/#/$sysroot}") names name path
	while ((${#files[@]})); do
		mapfile -t names < <(readelf -d -l "${files[@]}" 2>/dev/null | sed -nE \
			-e 's/.*\(NEEDED\).*\[(.*)\]/\1/p' -e 's,.*interpreter: .*/(.*)\],\1,p' | sort -u)
		files=()
		for name in "${names[@]}"; do
			[[ ! ${seen[$name]:-} ]] || continue
			seen[$name]=1
			for path in /usr/lib{,/aarch64-linux-gnu}/"$name"; do
				[[ -e $sysroot$path ]] || continue
				echo "$path"
				files+=("$sysroot$path")
			done
		done
	done
}

# Copies files with the shared libraries they need and what symlinks point to.
copy_programs() {
	{
		printf '%s\n' "$@"
		libraries "$@"
	} | sort -u | while read -r path; do
		echo "$path"
		path=$(readlink -f "$sysroot$path")
		echo "${path#"$sysroot"}"
	done | sort -u | sed 's,^/,,' |
		tar -c -C "$sysroot/" --hard-dereference --no-recursion -T - |
		tar -x -C "$dest" --keep-directory-symlink
}

mkdir -p "$dest"/{proc,sys,dev,tmp,run,out,mnt,etc,root,drr}
mkdir -p "$dest"/usr/{bin,sbin,lib,lib64}
for dir in bin sbin lib lib64; do
	ln -s "usr/$dir" "$dest/$dir"
done
ln -s /proc/mounts "$dest/etc/mtab"
echo 'root:x:0:0:root:/root:/bin/bash' >"$dest/etc/passwd"
echo 'root:x:0:' >"$dest/etc/group"
[[ ! -e /etc/mke2fs.conf ]] || cp /etc/mke2fs.conf "$dest/etc/"

mapfile -t programs < <(if [[ $sysroot ]]; then cat "$sysroot.programs"; else dpkg -L "${packages[@]}"; fi |
	grep -E '^(/usr)?/s?bin/.' | grep -vE "$unwanted" | sort -u)
copy_programs "${programs[@]}"
ln -sf gawk "$dest/usr/bin/awk"

# depmod and modprobe work on a copy: the packaged folder stays as it is
modules=$dest/lib/modules/$release
mkdir -p "$modules"
depmod -b "$modules_root" "$release"
for name; do
	modprobe -S "$release" -d "$modules_root" --show-depends "$name" || {
		echo "no module $name" >&2
		exit 1
	}
done | awk '$1 == "insmod" { print $2 }' | sort -u | while read -r path; do
	path=${path#"$modules_root/lib/modules/$release/"}
	mkdir -p "$modules/$(dirname "$path")"
	case $path in
	*.xz) xz -dc "$modules_root/lib/modules/$release/$path" >"$modules/${path%.xz}" ;;
	*) cp "$modules_root/lib/modules/$release/$path" "$modules/$path" ;;
	esac
	# Without the list of its ftrace points, which only dm-thin-hooks.ko needs, for dm-thin-pool,
	# xfs loads in 1 s instead of 8 s under emulation: ftrace looks up each of them. The disk's driver and
	# configfs stay as they are signed, for guests with Secure Boot, which take the rest from their disk.
	[[ $path = */@(dm-thin-pool|virtio_blk|configfs).ko* ]] ||
		"$objcopy" -R __mcount_loc -R .rela__mcount_loc -R __patchable_function_entries \
			-R .rela__patchable_function_entries "$modules/${path%.xz}"
done
for list in modules.builtin modules.builtin.modinfo modules.order; do
	[[ ! -e $modules_root/lib/modules/$release/$list ]] ||
		cp "$modules_root/lib/modules/$release/$list" "$modules/"
done

# The unpatched dm-thin stays reachable, by path.
mkdir -p "$dest/lib/modules/stock"
stock=$(cd "$modules" && find . -name dm-thin-pool.ko)
ln -s "../$release/$stock" "$dest/lib/modules/stock/dm-thin-pool.ko"
