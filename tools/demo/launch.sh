#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# The demo's launches. Ten containers of an image in three layers (tools/demo/image.sh) are launched, one after
# the other, as one would by hand: mount, chroot, run the service. On dm-thin alone, on dm-thin with DRR, and on
# overlayfs, which has the layers as directories. Says what it does on stdout; the figures are for
# tools/demo/launch_report.py:
#
#   fact	NAME VALUE
#   launch	CONTAINER VARIANT NANOSECONDS DISK_BYTES DRR_BYTES ANSWER_OK FILES_OK
#   cached	VARIANT BYTES		that all ten have in page caches
#
# and what drrctl has to show of each run is in /out: heatmap-with.svg, .png, .txt and .csv, the
# same of heatmap-without, and layers.txt.
#
# usage: launch.sh ANSWER	the three layers are archives on the disks in $DRR_DISKS

set -eEuo pipefail

DISK_MIB=640
LAYERS_DISK=nullb2
ANSWER=$1

# shellcheck source=tools/demo/stage.sh
. /drr/demo/stage.sh
# shellcheck source=tools/demo/image.sh
. /drr/demo/image.sh

drrctl() { /drr/bin/drrctl "$@"; }

# --- the play --------------------------------------------------------------------------

# launch_measured VARIANT DISK NAME: and a line for the report, in $ROWS.
launch_measured() {
	local variant=$1 disk=$2 name=$3 start bytes served=0 ns answer ok=1
	bytes=$(disk_bytes "$disk")
	start=$(date +%s%N)
	answer=$(launch "$variant" "$name")
	ns=$(($(date +%s%N) - start))
	bytes=$(($(disk_bytes "$disk") - bytes))
	[ "$variant" != drr ] || served=$(($(drr_status "$name" hit_sectors) * 512))
	[ "$answer" = "$ANSWER" ] || ok=0
	printf '    %-4s %7s s %7.1f MiB from the disk\n' "$name" "$(seconds "$ns")" \
		"$(awk -v b="$bytes" 'BEGIN { print b / 1048576 }')"
	ROWS+=("$name $variant $ns $bytes $served $ok")
}

# launch VARIANT NAME: what a container's launch comes to, from the mount to the service's answer, which it prints. In
# a subshell: it becomes the service.
launch() {
	if [ "$1" = overlay ]; then
		overlay_mount "$2" /mnt/layers/
	else
		fs_mount ext4 "$2"
	fi
	serve "/mnt/$2"
}

# launch_each VARIANT DISK: all of them.
launch_each() {
	local container cached
	ROWS=()
	forget_files
	cached=$(cached_bytes)
	for container in "${LAUNCHED[@]}"; do
		launch_measured "$1" "$2" "$container"
	done
	note cached "$1" $(($(cached_bytes) - cached))
}

# show NAME: drrctl's pictures and tables of the run.
show() {
	local kind
	for kind in svg png csv; do
		drrctl heatmap pool -o "/out/heatmap-$1.$kind"
	done
	drrctl heatmap pool >"/out/heatmap-$1.txt"
	drrctl layers pool >/out/layers.txt
	drrctl status >"/out/status-$1.txt"
}

# check_all: what the containers of $ROWS have read.
check_all() {
	local row
	mount -t ext4 -o ro,noload /dev/mapper/app /mnt/app
	for row in "${ROWS[@]}"; do
		# shellcheck disable=SC2086 # words of a row
		check $row
	done
	umount /mnt/app
}

# check ROW: whether what a launch reads of the Python layer, and the model, are the image's, in
# the container's page cache or when it reads them now; notes the row.
check() {
	local ok=1 path
	cd /mnt/app
	for path in usr/bin/python3.* usr/lib/python3 usr/lib/python3.* "${MODEL#/}"; do
		diff -rq --no-dereference "/mnt/app/$path" "/mnt/$1/$path" >&2 || ok=0
	done
	cd /
	note launch "$@" "$ok"
}

# on_thin VARIANT NAME [FEATURE...]: with drr devices that have these features; pictures of this NAME.
on_thin() {
	local variant=$1 name=$2 container
	shift 2
	for container in "${LAUNCHED[@]}"; do
		drr_new "$container" "$@"
	done
	slow
	launch_each "$variant" "$DATA_DISK"
	fast
	show "$name"
	check_all
	for container in "${LAUNCHED[@]}"; do
		umount "/mnt/$container"
		dm_remove "$container"
	done
}

on_overlayfs() {
	ram_disk $LAYERS_DISK "$DISK_MIB"
	dmsetup create layers --table "$(disk_table ram /dev/$LAYERS_DISK)"
	layers_make
	fs_mount ext4 layers
	table_swap layers "$(disk_table hdd /dev/$LAYERS_DISK "$TIMES")"
	launch_each overlay $LAYERS_DISK
	table_swap layers "$(disk_table ram /dev/$LAYERS_DISK)"
	check_all
	overlay_end "${LAUNCHED[@]}"
	dm_remove layers
}

main() {
	local container
	stage_up "$DISK_MIB"
	modprobe overlay
	echo "  writing the image: ext4, in three layers"
	image_of_layers $((DISK_MIB - 40))
	fs_mount ext4 app /dev/mapper/app
	measure_machine "/mnt/app$MODEL"
	note fact model_bytes "$(stat -c %s "/mnt/app$MODEL")"
	umount /mnt/app
	for container in "${LAUNCHED[@]}"; do
		thin_snap "$container" app
	done
	# There, the drr devices only count.
	echo "  ${#LAUNCHED[@]} containers, launched one after the other, on dm-thin alone:"
	on_thin thin without no_donate no_receive
	echo "  on dm-thin with DRR:"
	on_thin drr with
	echo "  and on overlayfs, with the layers as directories:"
	on_overlayfs
}

main
