#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# The demo's second part. Ten containers of an image in three layers (tools/demo/image.sh) are
# launched, one after the other, as one would by hand: mount, chroot, run the service. Without DRR,
# and then with it. Says what it does on stdout; the figures are for tools/demo/launch_report.py:
#
#   fact	NAME VALUE
#   launch	CONTAINER WITH_DRR NANOSECONDS DISK_BYTES DRR_BYTES ANSWER_OK FILES_OK
#
# and what drrctl has to show of each run is in /out: heatmap-with.svg, .png, .txt and .csv, the
# same of heatmap-without, and layers.txt.
#
# usage: launch.sh ANSWER	the three layers are archives on the disks in $DRR_DISKS

set -eEuo pipefail

DISK_MIB=640
ANSWER=$1

# shellcheck source=tools/demo/stage.sh
. /drr/demo/stage.sh
# shellcheck source=tools/demo/image.sh
. /drr/demo/image.sh

drrctl() { /drr/bin/drrctl "$@"; }

# --- the play --------------------------------------------------------------------------

# launch_measured NAME WITH_DRR: and a line for the report, in $ROWS.
launch_measured() {
	local start disk ns answer ok=1
	dmsetup message "$1" 0 reset_stats
	disk=$(disk_bytes)
	start=$(date +%s%N)
	answer=$(join_containers && launch "$1")
	ns=$(($(date +%s%N) - start))
	disk=$(($(disk_bytes) - disk))
	[ "$answer" = "$ANSWER" ] || ok=0
	printf '    %-4s %7s s %7.1f MiB from the disk\n' "$1" "$(seconds "$ns")" \
		"$(awk -v b="$disk" 'BEGIN { print b / 1048576 }')"
	ROWS+=("$1 $2 $ns $disk $(($(drr_status "$1" hit_sectors) * 512)) $ok")
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

# run WITH_DRR NAME [FEATURE...]: the containers, with drr devices that have these features.
run() {
	local with=$1 name=$2 container row
	shift 2
	ROWS=()
	for container in "${LAUNCHED[@]}"; do
		drr_new "$container" "$@"
	done
	forget_files
	for container in "${LAUNCHED[@]}"; do
		launch_measured "$container" "$with"
	done
	show "$name"
	mount -t ext4 -o ro,noload /dev/mapper/app /mnt/app
	for row in "${ROWS[@]}"; do
		# shellcheck disable=SC2086 # words of a row
		check $row
	done
	umount /mnt/app
	for container in "${LAUNCHED[@]}"; do
		umount "/mnt/$container"
		dm_remove "$container"
	done
}

main() {
	local container
	note_machine
	modprobe dm-drr
	pool_up "$DISK_MIB"
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
	echo "  ${#LAUNCHED[@]} containers, launched one after the other without DRR:"
	run 0 without no_donate no_receive
	echo "  and with:"
	run 1 with
}

main
