#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# Tests DRR under what uses thin pools, as Debian has it: containerd, Docker, LVM, and QEMU. Nothing
# of theirs is changed or told of DRR.
#
# usage: managers.sh [SUITE]...	containerd, docker, lvm, vms; all by default. Prints TAP; the last
#				line is "N passed, N failed"

set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
# shellcheck source=scripts/debian-root.sh
. "$DRR_TOP/scripts/debian-root.sh"
# shellcheck source=scripts/tap.sh
. "$DRR_TOP/scripts/tap.sh"

scripts=$DRR_TOP/scripts
build=$DRR_TOP/build/managers
all=(containerd docker lvm vms)
suites=("$@")
(($#)) || suites=("${all[@]}")
for suite in "${suites[@]}"; do
	[[ " ${all[*]} " = *" $suite "* ]] ||
		die "managers.sh: no suite '$suite' : use some of ${all[*]}"
done

# Archives as ctr imports them: the demo's Debian, and on top of it a file that all read.
make_image() {
	local base dir=$build/image
	base=$("$scripts/demo-image.sh")
	remove_tree "$dir"
	mkdir -p "$dir/payload/srv"
	head -c "${PAYLOAD_MIB}M" /dev/urandom >"$dir/payload/srv/payload"
	tar -c -C "$dir/payload" --numeric-owner --owner=0 --group=0 -f "$dir/payload.tar" srv
	remove_tree "$dir/payload"
	ln -s "$base/debian.tar" "$dir/debian.tar"
	sum() { sha256sum <"$dir/$1" | cut -d ' ' -f 1; }
	cat >"$dir/config.json" <<-END
	{ "architecture": "amd64", "os": "linux",
	  "config": { "Cmd": ["sha256sum", "/srv/payload"], "Env": ["PATH=/usr/bin:/bin"] },
	  "rootfs": { "type": "layers",
	    "diff_ids": ["sha256:$(sum debian.tar)", "sha256:$(sum payload.tar)"] } }
	END
	cat >"$dir/manifest.json" <<-END
	[{ "Config": "config.json", "RepoTags": ["drr.test/debian:payload"],
	   "Layers": ["debian.tar", "payload.tar"] }]
	END
	mkdir -p "$1"
	tar -c -h -C "$dir" -f "$1/image.tar" manifest.json config.json debian.tar payload.tar
	remove_tree "$dir"
}

# What the virtual machines boot: Debian's kernel, and a program or two.
make_vm() {
	local image top=$build/vm
	image=$("$scripts/kernel.sh" image)
	remove_tree "$top"
	mkdir -p "$top/bin" "$1"
	cp "$image/vmlinuz" "$1/vmlinuz"
	cp "$DRR_TOP/tools/testing/managers/vm-init" "$top/init"
	# shellcheck disable=SC2016 # expanded by the inner shell
	"$scripts/toolbox.sh" bash -euo pipefail -c '
		cp /bin/busybox "$1/bin/"
		xz -dc "$2"/modules/kernel/drivers/block/virtio_blk.ko.xz >"$1/virtio_blk.ko"
		cd "$1"
		find . | cpio --quiet -o -H newc -R 0:0 >"$3"' - "$top" "$image" "$build/vm.cpio"
	mv "$build/vm.cpio" "$1/initrd"
	remove_tree "$top"
}

make_disk() {
	local extra=$build/extra
	remove_tree "$extra"
	make_image "$extra/srv"
	make_vm "$extra/srv/vm"
	install -D -m 644 -t "$extra/usr/lib/udev/rules.d" "$DRR_TOP/tools/drrctl/system/11-dm-drr.rules"
	root_disk "$root" "$build/disk.img" 3G "$extra" usr/libexec/docker usr/share/qemu \
		usr/share/seabios
	remove_tree "$extra"
}

need_root
PAYLOAD_MIB=48	# of what ten containers, volumes or machines read
lock_build managers
mkdir -p "$build"
cached_root managers "$SPACE_MANAGERS" "managers of thin pools" "${MANAGERS_PACKAGES[@]}"
step managers-disk "a disk with these, and an image" make_disk
for suite in "${suites[@]}"; do
	rc=0 kernel=debian
	[[ $suite != vms ]] || kernel=uml
	"$scripts/vm.sh" --kernel "$kernel" --disk-file "$build/disk.img" --mem 4G --timeout 1800 \
		--name "$suite" -- "/drr/managers/$suite.sh" "$PAYLOAD_MIB" || rc=$?
	count_tap "$suite" "$rc" "$DRR_TOP/build/out/$suite/output.log"
done
rm "$build/disk.img"
sum_up
