#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# An image of three layers, each a snapshot of the one before: Debian, Python, a service with its
# model; and how a container of it is launched. Sourced in the guest by the demo and the benchmark,
# which have pool.sh and a pool.

LAYERS=(debian python app)
# unused in one of the two
# shellcheck disable=SC2034
LAUNCHED=(C1 C2 C3 C4 C5 C6 C7 C8 C9 C10)
MODEL=/srv/app/model.npy

# The image's file system.
IMAGE_KIND=ext4

# unpack LAYER ARCHIVE: adds a layer to the image, in the device of that name.
unpack() {
	fs_mount $IMAGE_KIND "$1" "/dev/mapper/$1"
	tar -x -f "$2" -C "/mnt/$1" --numeric-owner
	umount "/mnt/$1"
}

# image_make DEVICE
image_make() {
	case $IMAGE_KIND in
	ext4) mkfs.ext4 -q -F -m 0 -E nodiscard,lazy_journal_init=1 -J size=8 "$1" ;;
	xfs) mkfs.xfs -q -f -K "$1" ;;
	esac
}

# image_of_layers MIB: the thin devices, from the first layer to the last. The layers are archives on
# the disks in $DRR_DISKS.
image_of_layers() {
	local archives layer before='' at=0
	read -r -a archives <<<"$DRR_DISKS"
	for layer in "${LAYERS[@]}"; do
		if [ -z "$before" ]; then
			thin_new "$layer" "$1"
		else
			thin_snap "$layer" "$before"
		fi
		# for the heatmap's labels
		dmsetup rename "t-$layer" "$layer"
		[ -n "$before" ] || image_make "/dev/mapper/$layer"
		unpack "$layer" "${archives[at]}"
		echo "    $layer, $(($(sectors "${archives[at]}") / 2048)) MiB"
		before=$layer
		((++at))
	done
}

# launch NAME [DEVICE]: what a container's launch comes to, from the mount to the service's answer,
# which it prints. In a subshell: it becomes the service.
launch() {
	fs_mount $IMAGE_KIND "$@"
	serve "/mnt/$1"
}

# serve ROOT: becomes the service of a container whose file system is there.
serve() { exec chroot "$1" /usr/bin/python3 -B /srv/app/app.py "$MODEL"; }
