#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# A data block that has a record is freed while the donor's page stays in memory: the
# donor's mapping went elsewhere by another path than its page cache, and everyone else
# is gone. The block then gets a stranger's data, is shared again, and may not be served
# with the old page. Small pools, so that the stranger gets every free block.

# shellcheck source=tools/testing/lib.sh
. "${0%/*}/../lib.sh"

MIB=48

# free_mib: whole MiB that the pool has left.
free_mib() {
	local fields
	read -r -a fields < <(dmsetup status pool)
	echo $(((${fields[5]#*/} - ${fields[5]%/*}) / (2048 / BLOCK_SECTORS)))
}

# place_of FILE: byte address on its device of a file that is in one piece.
place_of() {
	xfs_io -r -c "fiemap" "$1" | awk '$1 == "0:" { split($3, at, /\.\./); print at[1] * 512; exit }'
}

# block_reuse HOW
block_reuse() {
	local at before
	pool_up $MIB
	on_exit all_down
	image_new ext4 base 32
	container_up ext4 don base paranoid
	donate don file
	sync -f /mnt/don
	at=$(place_of /mnt/don/file)
	((at > 0)) || flunk "no place of the donor's file: $at"
	case $1 in
	write) xfs_io -d -c "pwrite -q -b 1m -S 0x99 $at 4m" /dev/mapper/don ;;
	discard) blkdiscard -f -o "$at" -l 4M /dev/mapper/don ;;
	zeroout) blkdiscard -f -z -o "$at" -l 4M /dev/mapper/don ;;
	below) xfs_io -d -c "pwrite -q -b 1m -S 0x99 $at 4m" /dev/mapper/t-don ;;
	metadata-cold)
		# The lookup of what is written to has to come from the metadata disk.
		dmsetup message pool 0 "reserve_metadata_snap"
		echo 3 >/proc/sys/vm/drop_caches
		cat /mnt/don/file >/dev/null
		xfs_io -d -c "pwrite -q -b 1m -S 0x99 $at 4m" /dev/mapper/don
		dmsetup message pool 0 "release_metadata_snap"
		;;
	esac
	# The page of the donor is as it was: the page cache was gone round.
	same /mnt/don/file "$REF/file"
	thin_delete base
	thin_new stranger 64
	dd if=/dev/zero of=/dev/mapper/t-stranger bs=1M oflag=direct status=none \
		count=$(($(free_mib) - 1))
	thin_snap copy stranger
	drr_new copy paranoid
	before=$(stat_of copy hit_sectors)
	dd if=/dev/mapper/copy of=/dev/null bs=1M iflag=direct status=none
	after_case
	expect_drr "sectors served to the stranger" $(($(stat_of copy hit_sectors) - before)) 0
}

# The donor's own thin device is deleted under a donor that is gone: as above, in order.
thin_deleted() {
	pool_up $MIB
	on_exit all_down
	image_new ext4 base 32
	container_up ext4 don base paranoid
	donate don file
	container_down don
	dmsetup message pool 0 "delete $(thin_id don)"
	thin_delete base
	thin_new stranger 64
	dd if=/dev/zero of=/dev/mapper/t-stranger bs=1M oflag=direct status=none \
		count=$(($(free_mib) - 1))
	thin_snap copy stranger
	drr_new copy paranoid
	dd if=/dev/mapper/copy of=/dev/null bs=1M iflag=direct status=none
	expect_drr "sectors served to the stranger" "$(stat_of copy hit_sectors)" 0
}

random_file file 4M
run_case "raw write to the donor's device" block_reuse write
run_case "discard of the donor's device" block_reuse discard
run_case "write zeroes to the donor's device" block_reuse zeroout
run_case "write to the thin device below the donor" block_reuse below
run_case "raw write with cold metadata" block_reuse metadata-cold
run_case "thin device of the donor deleted" thin_deleted
finish
