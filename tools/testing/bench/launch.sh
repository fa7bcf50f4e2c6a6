#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# The parts of the benchmark in which containers of the demo's image are launched: ten at the same moment, and
# one after the other. Sourced by bench.sh; the image's layers are archives on the disks in $DRR_DISKS.
#
# Besides snapshots, with drr and without, there is overlayfs, on a disk of the same kind. Its layers are directories
# of one ext4 (overlay) or an EROFS each (erofs). Its containers share one page cache, and it knows no blocks of
# its own.

# shellcheck source=tools/demo/image.sh
. /drr/demo/image.sh

OVERLAY_DISK=ram5
# Parts of the device `disk5`, which is on that disk: the ext4's, and then one for each EROFS; 0 for none.
LAYERS_MIB=1000 EROFS_MIB=300
# A function that launch_measured calls with WHAT and VARIANT while the containers are still mounted, if any.
AFTERWARDS=

# layers_disk PROFILE: what the device `disk5` is on from now on.
layers_disk() { table_swap disk5 "$(disk_table "$1" /dev/$OVERLAY_DISK)"; }

# overlay_set_up: the ext4 `layers`, and EROFS of the same archives.
overlay_set_up() {
	local archives at
	read -r -a archives <<<"$DRR_DISKS"
	dmsetup create disk5 --table "$(disk_table ram /dev/$OVERLAY_DISK)"
	dmsetup create layers --table "0 $((LAYERS_MIB * 2048)) linear /dev/mapper/disk5 0"
	layers_make
	((EROFS_MIB)) || return 0
	for at in "${!LAYERS[@]}"; do
		dmsetup create "erofs-${LAYERS[at]}" --table "0 $((EROFS_MIB * 2048)) linear \
/dev/mapper/disk5 $(((LAYERS_MIB + at * EROFS_MIB) * 2048))"
		mkfs.erofs --quiet --tar=f "/dev/mapper/erofs-${LAYERS[at]}" "${archives[at]}" ||
			flunk "mkfs.erofs failed for ${LAYERS[at]}"
	done
}

# launch_set_up ANSWER: what the image's service answers.
launch_set_up() {
	ANSWER=$1
	disk ram
	modprobe -q overlay || true	# built in, in some kernels
	modprobe -q erofs || true
	overlay_set_up
	note fact launched ${#LAUNCHED[@]}
}

launch_take_down() {
	local layer
	((!EROFS_MIB)) || for layer in "${LAYERS[@]}"; do
		dm_remove "erofs-$layer"
	done
	dm_remove layers
	dm_remove disk5
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
	local variant profile
	for profile in hdd ssd; do
		for variant in $(in_turn thin drr overlay erofs); do
			ATIME=noatime launch_measured launch.$profile "$variant" $profile launch_all
		done
	done
	for variant in $(in_turn thin drr overlay erofs); do
		ATIME=relatime launch_measured launch.relatime "$variant" hdd launch_all
		ATIME=relatime launch_measured launch.serial "$variant" hdd launch_each
	done
}

xfs_launches() {
	local variant
	for variant in $(in_turn thin drr); do
		ATIME=relatime launch_measured launch.xfs "$variant" hdd launch_all
		ATIME=relatime launch_measured launch.xfsserial "$variant" hdd launch_each
	done
}

# --- containers of a variant: thin, drr, overlay or erofs -----------------------------------

# disk_reads VARIANT FIELD: of the disk's statistics; reads (0), or sectors (2).
disk_reads() {
	local fields device=data
	case $1 in
	overlay | erofs) device=disk5 ;;
	esac
	read -r -a fields <"/sys/block/$(dmsetup info -c --noheadings -o blkdevname $device)/stat"
	echo "${fields[$2]}"
}

# image_up VARIANT PROFILE: what its containers are made from, with the disk of that profile. The disk is in RAM.
image_up() {
	local layer
	case $1 in
	overlay | erofs)
		layers_disk "$2"
		fs_mount ext4 layers
		;;
	*) disk "$2" ;;
	esac
	[ "$1" = erofs ] || return 0
	for layer in "${LAYERS[@]}"; do
		mkdir -p "/mnt/erofs-$layer"
		mount -t erofs "/dev/mapper/erofs-$layer" "/mnt/erofs-$layer"
	done
}

# container_new VARIANT NAME: all but its mount.
container_new() {
	case $1 in
	thin) thin_snap "$2" app ;;
	drr)
		thin_snap "$2" app
		drr_new "$2"
		;;
	esac
}

# root_mount VARIANT NAME: the container's root, on /mnt/NAME.
root_mount() {
	case $1 in
	thin) fs_mount $IMAGE_KIND "$2" "/dev/mapper/t-$2" ;;
	drr) fs_mount $IMAGE_KIND "$2" ;;
	overlay) overlay_mount "$2" /mnt/layers/ ;;
	erofs) overlay_mount "$2" /mnt/erofs- ;;
	esac
}

# image_down VARIANT NAME...: these containers, and what they were made from; the disk is in RAM again.
image_down() {
	local variant=$1 name
	shift
	case $variant in
	thin | drr)
		disk ram
		for name; do
			container_end "$name"
		done
		;;
	overlay | erofs)
		layers_disk ram
		overlay_end "$@"
		;;
	esac
	[ "$variant" = erofs ] || return 0
	for name in "${LAYERS[@]}"; do
		umount "/mnt/erofs-$name"
	done
}

# --- launches ----------------------------------------------------------------------------

# launch_measured WHAT VARIANT PROFILE COMMAND: the time until the last container has answered, from new containers on
# of which nothing is in memory.
launch_measured() {
	local what=$1 variant=$2 container reads sectors cached ticks
	disk ram
	for container in "${LAUNCHED[@]}"; do
		container_new "$variant" "$container"
	done
	image_up "$variant" "$3"
	sync
	echo 3 >/proc/sys/vm/drop_caches
	quiet
	reads=$(disk_reads "$variant" 0) sectors=$(disk_reads "$variant" 2) cached=$(cached_bytes)
	ticks=$(cpu_ticks)
	sample "$what" "$variant" "$(seconds_of "$4" "$what" "$variant")"
	sample "$what.cpu" "$variant" $(($(cpu_ticks) - ticks))
	sample "$what.reads" "$variant" $(($(disk_reads "$variant" 0) - reads))
	sample "$what.bytes" "$variant" $((($(disk_reads "$variant" 2) - sectors) * 512))
	sample "$what.cached" "$variant" $(($(cached_bytes) - cached))
	[ -z "$AFTERWARDS" ] || "$AFTERWARDS" "$what" "$variant"
	for container in "${LAUNCHED[@]}"; do
		[ "$(<"/tmp/answer-$container")" = "$ANSWER" ] ||
			flunk "$container, $variant, answered '$(<"/tmp/answer-$container")'"
	done
	image_down "$variant" "${LAUNCHED[@]}"
}

# launch_of CONTAINER VARIANT: what a container's launch comes to, from the mount to the service's answer, which it
# prints. In a subshell: it becomes the service.
launch_of() {
	root_mount "$2" "$1"
	serve "/mnt/$1"
}

# launch_all WHAT VARIANT: all at once, and waits for all answers.
launch_all() { at_once launch_of "$2"; }

# at_once COMMAND [ARG]...: runs COMMAND CONTAINER ARG..., which prints an answer, for all containers at
# the same time.
at_once() {
	local container pids=() pid
	for container in "${LAUNCHED[@]}"; do
		("$1" "$container" "${@:2}" >"/tmp/answer-$container") &
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
