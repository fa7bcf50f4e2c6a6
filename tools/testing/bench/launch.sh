#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# The parts of the benchmark in which containers of the demo's image are launched: ten at the same moment, and
# one after the other. Sourced by bench.sh; the image's layers are archives on the disks in $DRR_DISKS.
#
# Beside snapshots, with drr and without, there is overlayfs: the same three layers as directories of one ext4,
# on a disk of the same kind. Its containers share one page cache, and it knows no blocks of its own.

# shellcheck source=tools/demo/image.sh
. /drr/demo/image.sh

OVERLAY_DISK=ram5

# overlay_set_up: a file system with a directory for each layer, on the device `layers`.
overlay_set_up() {
	local archives at
	read -r -a archives <<<"$DRR_DISKS"
	dmsetup create layers --table "$(disk_table ram $OVERLAY_DISK)"
	mkfs.ext4 -q -F -m 0 -E nodiscard,lazy_journal_init=1 /dev/mapper/layers
	fs_mount ext4 layers
	for at in "${!LAYERS[@]}"; do
		mkdir "/mnt/layers/${LAYERS[at]}"
		tar -x -f "${archives[at]}" -C "/mnt/layers/${LAYERS[at]}" --numeric-owner
	done
	umount /mnt/layers
}

# layers_disk PROFILE: what the device `layers` is on from now on.
layers_disk() {
	dmsetup suspend layers
	dmsetup load layers <<<"$(disk_table "$1" $OVERLAY_DISK)"
	dmsetup resume layers
}

# launch_set_up ANSWER: what the image's service answers.
launch_set_up() {
	ANSWER=$1
	disk ram
	overlay_set_up
	note fact launched ${#LAUNCHED[@]}
}

launch_take_down() {
	dm_remove layers
}

# with_image KIND COMMAND...: runs it with an image of this file system.
with_image() {
	local at
	IMAGE_KIND=$1
	disk ram
	image_of_layers 600 >/dev/null
	"${@:2}"
	for ((at = ${#LAYERS[@]} - 1; at >= 0; at--)); do
		dm_remove "${LAYERS[at]}"
		thin_delete "${LAYERS[at]}"
	done
}

part_launch() { with_image ext4 launches; }
part_launchxfs() { with_image xfs xfs_launches; }

# Ten at once; without access times, as the figures before these were, and as runtimes mount.
launches() {
	local variant
	for variant in $(in_turn thin drr overlay); do
		ATIME=noatime launch_measured launch.hdd "$variant" launch_all
	done
	for variant in $(in_turn thin drr overlay); do
		ATIME=relatime launch_measured launch.relatime "$variant" launch_all
		ATIME=relatime launch_measured launch.serial "$variant" launch_each
	done
}

xfs_launches() {
	local variant
	for variant in $(in_turn thin drr); do
		ATIME=relatime launch_measured launch.xfs "$variant" launch_all
		ATIME=relatime launch_measured launch.xfsserial "$variant" launch_each
	done
}

# device_of NAME VARIANT
device_of() {
	case $2 in
	thin) echo "/dev/mapper/t-$1" ;;
	drr) echo "/dev/mapper/$1" ;;
	esac
}

# disk_reads VARIANT FIELD: of the disk's statistics; reads (0), or sectors (2).
disk_reads() {
	local fields device=data
	[ "$1" != overlay ] || device=layers
	read -r -a fields <"/sys/block/$(dmsetup info -c --noheadings -o blkdevname $device)/stat"
	echo "${fields[$2]}"
}

# launch_measured WHAT VARIANT COMMAND: the time until the last container has answered, from new containers on
# of which nothing is in memory.
launch_measured() {
	local what=$1 variant=$2 container reads sectors
	disk ram
	if [ "$variant" = overlay ]; then
		layers_disk hdd
		fs_mount ext4 layers
	else
		for container in "${LAUNCHED[@]}"; do
			thin_snap "$container" app
			[ "$variant" = thin ] || drr_new "$container"
		done
		disk hdd
	fi
	sync
	echo 3 >/proc/sys/vm/drop_caches
	quiet
	reads=$(disk_reads "$variant" 0) sectors=$(disk_reads "$variant" 2)
	sample "$what" "$variant" "$(seconds_of "$3" "$what" "$variant")"
	sample "$what.reads" "$variant" $(($(disk_reads "$variant" 0) - reads))
	sample "$what.bytes" "$variant" $((($(disk_reads "$variant" 2) - sectors) * 512))
	disk ram
	for container in "${LAUNCHED[@]}"; do
		[ "$(<"/tmp/answer-$container")" = "$ANSWER" ] ||
			flunk "$container, $variant, answered '$(<"/tmp/answer-$container")'"
		[ "$variant" = overlay ] || container_end "$container"
	done
	if [ "$variant" = overlay ]; then
		layers_disk ram
		for container in "${LAUNCHED[@]}"; do
			umount "/mnt/$container"
		done
		rm -r /mnt/layers/containers
		umount /mnt/layers
	fi
}

# launch_of CONTAINER VARIANT: in a subshell.
launch_of() {
	if [ "$2" = overlay ]; then
		launch_overlay "$1"
	else
		launch "$1" "$(device_of "$@")"
	fi
}

# launch_overlay NAME: as `launch`.
launch_overlay() {
	local own=/mnt/layers/containers/$1 lower='' layer
	mkdir -p "$own"/{upper,work} "/mnt/$1"
	for layer in "${LAYERS[@]}"; do
		lower=/mnt/layers/$layer${lower:+:$lower}
	done
	mount -t overlay -o "lowerdir=$lower,upperdir=$own/upper,workdir=$own/work" overlay "/mnt/$1"
	serve "/mnt/$1"
}

# launch_all WHAT VARIANT: all at once, and waits for all answers.
launch_all() {
	local container pids=() pid
	for container in "${LAUNCHED[@]}"; do
		(launch_of "$container" "$2" >"/tmp/answer-$container") &
		pids+=($!)
	done
	for pid in "${pids[@]}"; do
		wait "$pid" || flunk "a container's service failed"
	done
}

# launch_each WHAT VARIANT: one after the other; also samples what the first reads, and what the others do on
# the average.
launch_each() {
	local container start first='' others=$((${#LAUNCHED[@]} - 1))
	start=$(disk_reads "$2" 0)
	for container in "${LAUNCHED[@]}"; do
		(launch_of "$container" "$2" >"/tmp/answer-$container")
		first=${first:-$(disk_reads "$2" 0)}
	done
	sample "$1.first" "$2" $((first - start)) >&2
	sample "$1.later" "$2" "$(awk -v n=$(($(disk_reads "$2" 0) - first)) -v of=$others \
		'BEGIN { printf "%.1f\n", n / of }')" >&2
}
