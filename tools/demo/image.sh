#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# An image of three layers, each a snapshot of the one before: Debian, Python, a service with its
# model; and how a container of it is launched. The same layers as directories, for overlayfs. Sourced in the
# guest by the demo and the benchmark, which have pool.sh and a pool.

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

# How a container is entered: what its root and the service are the arguments of.
ENTER=(exec chroot)

# serve ROOT: becomes the service of a container whose file system is there.
serve() { "${ENTER[@]}" "$1" /usr/bin/python3 -B /srv/app/app.py "$MODEL"; }

# layers_make: an ext4 with a directory for each layer, on the device `layers`. Leaves it unmounted.
layers_make() {
	local archives at
	read -r -a archives <<<"$DRR_DISKS"
	image_make /dev/mapper/layers
	fs_mount ext4 layers
	for at in "${!LAYERS[@]}"; do
		mkdir "/mnt/layers/${LAYERS[at]}"
		tar -x -f "${archives[at]}" -C "/mnt/layers/${LAYERS[at]}" --numeric-owner
	done
	umount /mnt/layers
}

# overlay_mount NAME BEFORE: a container's root on overlayfs, at /mnt/NAME. Its lower directories are BEFORE, each
# followed by a layer's name; the file system at /mnt/layers takes what it writes.
overlay_mount() {
	local own=/mnt/layers/containers/$1 lower='' layer
	mkdir -p "$own"/{upper,work} "/mnt/$1"
	for layer in "${LAYERS[@]}"; do
		lower=$2$layer${lower:+:$lower}
	done
	mount -t overlay -o "lowerdir=$lower,upperdir=$own/upper,workdir=$own/work" overlay "/mnt/$1"
}

# overlay_end NAME...: unmounts these containers, removes what they wrote, and unmounts the layers.
overlay_end() {
	local container
	for container; do
		umount "/mnt/$container"
	done
	rm -r /mnt/layers/containers
	umount /mnt/layers
}
