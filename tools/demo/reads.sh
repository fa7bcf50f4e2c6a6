#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# The demo's reads. Four containers of one image read a big file, one after the other: with
# DRR, and then without. Says what it does on stdout; the figures are for tools/demo/report.py:
#
#   fact	NAME VALUE
#   row	CONTAINER WITH_DRR NANOSECONDS DISK_BYTES DRR_BYTES DONORS CHECKSUM_OK SETUP_BYTES
#   status	CONTAINER STATUS_LINE
#
# usage: reads.sh MIB	the size of the file

set -eEuo pipefail

FILE=model.bin
FILE_BYTES=$(($1 << 20))
DISK_MIB=$((2 * $1))
CONTAINERS=(C1 C2 C3 C4)
UNCHECKED=()

NOISE=/drr/bin/noise

# shellcheck source=tools/demo/stage.sh
. /drr/demo/stage.sh

# donors_of NAME: who served it, as NAME:BYTES,...
donors_of() {
	local entry id name list=()
	for entry in $(drr_status "$1" from | tr , ' '); do
		id=${entry%%:*}
		for name in "${CONTAINERS[@]}"; do
			[ "$id" != "$(thin_id "$name")" ] || id=$name
		done
		[ "$entry" = - ] || list+=("$id:$((${entry#*:} * 512))")
	done
	(IFS=,; echo "${list[*]:--}")
}

# --- the stage -----------------------------------------------------------------------

# image_with_file: the thin device "base", with the file; its checksum is in $CHECKSUM.
image_with_file() {
	thin_new base $((DISK_MIB * 7 / 8))
	fs_make ext4 /dev/mapper/t-base
	fs_mount ext4 base /dev/mapper/t-base
	CHECKSUM=$("$NOISE" "$FILE_BYTES" | tee "/mnt/base/$FILE" | md5sum | cut -d' ' -f1)
	sync
}

# --- the play ------------------------------------------------------------------------

# stage_container NAME WITH_DRR: mounts its snapshot, with all that reading the file needs but
# the file's data: inode, extents, and what mounting makes ext4 write.
stage_container() {
	local device=/dev/mapper/$1
	[ "$2" = 1 ] || device=/dev/mapper/t-$1
	fs_mount ext4 "$1" "$device"
	xfs_io -r -c fiemap "/mnt/$1/$FILE" >/dev/null
	sync -f "/mnt/$1"
}

# container_reads NAME WITH_DRR: reads the file.
container_reads() {
	local name=$1 with_drr=$2 file=/mnt/$1/$FILE setup start ns disk drr=0 donors=-
	setup=$(disk_bytes "$DATA_DISK")
	stage_container "$name" "$with_drr"
	[ "$with_drr" = 0 ] || dmsetup message "$name" 0 reset_stats

	start=$(disk_bytes "$DATA_DISK")
	ns=$(nanoseconds_of dd if="$file" of=/dev/null bs=1M)
	disk=$(($(disk_bytes "$DATA_DISK") - start))
	if [ "$with_drr" = 1 ]; then
		drr=$(($(drr_status "$name" hit_sectors) * 512))
		donors=$(donors_of "$name")
	fi
	printf '    %s %8s s %9s MiB/s\n' "$name" "$(seconds "$ns")" "$(rate "$FILE_BYTES" "$ns")"
	UNCHECKED+=("$name $with_drr $ns $disk $drr $donors $((start - setup))")
}

# check_all: what the containers have got.
check_all() {
	local row
	for row in "${UNCHECKED[@]}"; do
		# shellcheck disable=SC2086 # words of a row
		check $row &
	done
	wait
	UNCHECKED=()
}

# check NAME WITH_DRR NANOSECONDS DISK_BYTES DRR_BYTES DONORS SETUP_BYTES: sums up what the
# container has got, and notes the row.
check() {
	local ok=1
	[ "$(md5sum "/mnt/$1/$FILE" | cut -d' ' -f1)" = "$CHECKSUM" ] || ok=0
	note row "$1" "$2" "$3" "$4" "$5" "$6" "$ok" "$7"
}

# read_ahead NAME: in sectors
read_ahead() { blockdev --getra "/dev/mapper/$1"; }

with_drr() {
	local name
	for name in "${CONTAINERS[@]}"; do
		drr_new "$name"
		[ "$(read_ahead "$name")" = "$(read_ahead "t-$name")" ] ||
			flunk "read-ahead of $name differs with DRR and without"
	done
	forget_files
	slow
	for name in "${CONTAINERS[@]}"; do
		container_reads "$name" 1
	done
	fast
	check_all
	for name in "${CONTAINERS[@]}"; do
		note status "$name" "$(dmsetup status "$name")"
	done
	for name in "${CONTAINERS[@]}"; do
		umount "/mnt/$name"
		dm_remove "$name"
	done
}

without_drr() {
	local name
	forget_files
	slow
	for name in "${CONTAINERS[@]}"; do
		container_reads "$name" 0
	done
	fast
	check_all
	for name in "${CONTAINERS[@]}"; do
		umount "/mnt/$name"
	done
}

main() {
	local name
	note fact file_bytes "$FILE_BYTES"
	stage_up "$DISK_MIB"
	echo "  writing the image: ext4 on a thin device, with a file of $((FILE_BYTES >> 20)) MiB"
	image_with_file
	measure_machine "/mnt/base/$FILE"
	umount /mnt/base
	for name in "${CONTAINERS[@]}"; do
		thin_snap "$name" base
	done
	echo "  ${#CONTAINERS[@]} snapshots of it, each read with DRR:"
	with_drr
	echo "  and without:"
	without_drr
}

main
