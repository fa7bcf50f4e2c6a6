#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# Guards that the other suites' cases would pass without: each case here is about one.

# shellcheck source=tools/testing/lib.sh
. "${0%/*}/../lib.sh"

# A mounted file system changes its buffers, pages of the device's own, under its journal: without the folio
# lock, and without dirtying them yet. Whoever reads them from it gets what the disk has.
raw_reads_of_a_mounted_device() {
	local i
	container_up ext4 mounted base
	thin_snap other base
	drr_new other
	on_exit "container_down mounted; container_down other"
	dd if=/dev/mapper/t-other of="$WORK/thin" iflag=direct bs=1M count=24 status=none
	dd if=/dev/mapper/mounted of=/dev/null bs=1M count=24 status=none
	for ((i = 0; i < 40; i++)); do
		mkdir "/mnt/mounted/dir$i"
		: >"/mnt/mounted/dir$i/file"
	done
	dd if=/dev/mapper/other of="$WORK/drr" bs=1M count=24 status=none
	same "$WORK/drr" "$WORK/thin"
	expect_drr "sectors served" "$(stat_of other hit_sectors)" 1..
	expect_drr "copies that were in vain" "$(stat_of other unproven_pages)" 1..
}

# The same driver, and another file system: it reads folios under their lock like any other.
ext2_donates() {
	local name
	grep -qw ext2 /proc/filesystems || modprobe -q ext2 || skip "this kernel has no ext2"
	thin_new old 64
	mke2fs -q -F -t ext2 -b 4096 /dev/mapper/t-old
	mkdir -p /mnt/old
	mount -t ext2 /dev/mapper/t-old /mnt/old
	cp "$REF/small" /mnt/old/
	umount /mnt/old
	for name in old1 old2; do
		thin_snap $name old
		drr_new $name paranoid
		mkdir -p /mnt/$name
		mount -t ext2 -o ro /dev/mapper/$name /mnt/$name
	done
	on_exit "container_down old1; container_down old2; container_down old"
	donate old1 small
	receive old2 small 256..
}

# Nothing is known of pages that a read failed to fill.
failed_reads() {
	local before
	settle /mnt/a/small
	before=$(stat_of a recorded_sectors)
	on_exit data_healthy
	data_table "0 $(sectors "/dev/$DATA_DISK") flakey /dev/$DATA_DISK 0 0 60 1 error_reads"
	expect_fail cmp /mnt/a/small "$REF/small"
	expect_drr "sectors to donate" $(($(stat_of a recorded_sectors) - before)) 0
	data_healthy
	receive b small 0
	receive a small any
}

# A write reads the rest of its page first, and is killed meanwhile; then its buffer turns out
# to be too short. The page is changed and yet clean: the file system takes the write for
# none at all, and would do it again but for the signal.
write_cut_short() {
	local fs=$1 name=cut-$1 pid
	[ "$fs" = ext4 ] || image_new "$fs" "$name-base" 320 small
	thin_snap "$name" "$([ "$fs" = ext4 ] && echo base || echo "$name-base")"
	thin_snap "$name-2" "$name"
	drr_new "$name" no_receive	# or the other cases' donors would serve it
	drr_new "$name-2"
	fs_mount "$fs" "$name"
	fs_mount "$fs" "$name-2"
	on_exit "data_healthy; container_down $name; container_down $name-2"
	settle "/mnt/$name/small"
	data_table "0 $(sectors "/dev/$DATA_DISK") delay /dev/$DATA_DISK 0 3000"
	"$HELPER" short-write "/mnt/$name/small" 0 &
	pid=$!
	wait_for 10 grep -q '^State:.D' /proc/$pid/status
	kill -9 "$pid"
	expect_fail wait "$pid"
	data_healthy
	expect_fail cmp -n 4096 "/mnt/$name/small" "$REF/small"
	# just this page, so that it is served, or not, by itself
	dd if="/mnt/$name-2/small" of="$WORK/page" iflag=direct bs=4k count=1 status=none
	cmp -n 4096 "$WORK/page" "$REF/small"
}

# raw_siblings: two snapshots as raw devices, the first of which keeps what it reads.
raw_siblings() {
	local name
	for name in zeroed other; do
		thin_snap $name base
		drr_new $name
	done
	on_exit "exec 7<&-; data_healthy; container_down zeroed; container_down other"
	exec 7</dev/mapper/zeroed
}

# raw_served_right: the sibling gets what its thin device has.
raw_served_right() {
	dd if=/dev/mapper/other of="$WORK/drr" iflag=direct bs=64k count=1 status=none
	dd if=/dev/mapper/t-other of="$WORK/thin" iflag=direct bs=64k count=1 status=none
	same "$WORK/drr" "$WORK/thin"
}

# Zeroing a range of a raw device zeroes parts of cached pages, too, without an event: also if
# dm-thin refuses the request, as it does a hole.
parts_of_raw_pages() {
	raw_siblings
	dd if=/dev/mapper/zeroed of=/dev/null bs=64k count=4 status=none
	expect_drr "sectors to donate" "$(stat_of zeroed recorded_sectors)" 8..
	"$@" /dev/mapper/zeroed
	raw_served_right
}

# The same while the pages are being read: they are zeroed only when they have been. Nobody waits
# for them, as a reader would keep the range from being zeroed.
parts_of_raw_pages_being_read() {
	raw_siblings
	data_table "0 $(sectors "/dev/$DATA_DISK") delay /dev/$DATA_DISK 0 3000"
	xfs_io -r -c "fadvise -w 0 65536" /dev/mapper/zeroed
	refused_hole /dev/mapper/zeroed
	data_healthy
	expect_drr "sectors on record for a moment" "$(stat_of zeroed recorded_sectors)" 128..
	raw_served_right
}

# changed_after_a_read BLOCK COMMAND...: a block is served, changed by the command, and read again.
changed_after_a_read() {
	local skip=$1 before
	shift
	before=$(stat_of other hit_sectors)
	dd if=/dev/mapper/other of=/dev/null iflag=direct bs=64k count=1 skip="$skip" status=none
	expect_drr "sectors served" $(($(stat_of other hit_sectors) - before)) 128
	"$@"
	dd if=/dev/mapper/other of="$WORK/drr" iflag=direct bs=64k count=1 skip="$skip" status=none
	dd if=/dev/mapper/t-other of="$WORK/thin" iflag=direct bs=64k count=1 skip="$skip" status=none
	same "$WORK/drr" "$WORK/thin"
}

# Where a block was mapped is remembered from one read to the next, and changes in between: through
# drr and below it.
kept_lookups() {
	raw_siblings
	dd if=/dev/mapper/zeroed of=/dev/null bs=64k count=4 status=none
	head -c 64k /dev/urandom >"$WORK/new"
	changed_after_a_read 0 \
		dd if="$WORK/new" of=/dev/mapper/other oflag=direct bs=64k status=none
	changed_after_a_read 1 \
		dd if="$WORK/new" of=/dev/mapper/t-other oflag=direct bs=64k seek=1 status=none
	changed_after_a_read 2 blkdiscard -f -o 131072 -l 65536 /dev/mapper/other
	changed_after_a_read 3 \
		dd if="$WORK/new" of=/dev/mapper/other oflag=direct bs=4k count=1 seek=48 status=none
}

# The same with no target of the pool left in between: what counts the changes begins anew with the next.
kept_lookups_of_an_earlier_target() {
	local name
	pool_up 16
	on_exit "exec 7<&-; all_down"
	thin_new base 1
	xfs_io -d -c "pwrite -q -S 0xa1 0 1m" -c fsync /dev/mapper/t-base
	for name in one two; do
		thin_snap $name base
	done
	drr_new one
	dd if=/dev/mapper/one of=/dev/null bs=64k count=1 iflag=direct status=none
	xfs_io -d -c "pwrite -q -b 64k -S 0xb2 0 64k" -c fsync /dev/mapper/one
	dm_remove one
	for name in one two; do
		drr_new $name
	done
	exec 7</dev/mapper/two
	dd if=/dev/mapper/two of=/dev/null bs=64k count=1 status=none
	dd if=/dev/mapper/one of="$WORK/drr" bs=64k count=1 iflag=direct status=none
	dd if=/dev/mapper/t-one of="$WORK/thin" bs=64k count=1 iflag=direct status=none
	same "$WORK/drr" "$WORK/thin"
}

refused_hole() {
	expect_fail fallocate -p -o 1024 -l 2048 "$1"
	# zeroed all the same, in this device's page cache
	expect_fail cmp -n 4096 "$1" /dev/mapper/t-zeroed
}

# The receiver writes what it reads: the same bytes, so that only the blocks behind them
# change, from shared ones that have donors to its own, in the middle of reads.
receiver_writes_meanwhile() {
	local name
	for name in donor receiver; do
		thin_snap $name base
		drr_new $name paranoid
	done
	on_exit "exec 7<&-; container_down donor; container_down receiver"
	dd if=/dev/mapper/t-donor of="$WORK/thin" iflag=direct bs=1M count=24 status=none
	exec 7</dev/mapper/donor
	dd if=/dev/mapper/donor of=/dev/null bs=1M count=24 status=none
	"$HELPER" rawrace /dev/mapper/receiver "$WORK/thin" 6
	expect_drr "sectors served meanwhile" "$(stat_of receiver hit_sectors)" 64..
	dd if=/dev/mapper/receiver of="$WORK/drr" iflag=direct bs=1M count=24 status=none
	same "$WORK/drr" "$WORK/thin"
}

# The net: what a block holds changes below the pool, where nobody may write. That is seen when the block is
# read again, by a device that isn't served.
disk_that_changes() {
	local at
	thin_new net 1
	yes 'NET MARK' | head -c 64k >"$WORK/net" || true
	dd if="$WORK/net" of=/dev/mapper/t-net bs=64k oflag=direct status=none
	thin_snap net1 net
	thin_snap net2 net
	drr_new net1
	drr_new net2 no_receive
	on_exit "exec 7<&- 8<&-; container_down net2; container_down net1; container_down net"
	exec 7</dev/mapper/net1 8</dev/mapper/net2
	dd if=/dev/mapper/net1 of=/dev/null bs=64k count=1 status=none
	expect "sectors on record" "$(stat_of net1 recorded_sectors)" 128
	at=$(grep -aob -m 1 'NET MARK' "/dev/$DATA_DISK" | head -n 1 | cut -d: -f1)
	printf x | dd of="/dev/$DATA_DISK" bs=1 seek=$((at + 4100)) conv=notrunc,fsync status=none
	dd if=/dev/mapper/net2 of=/dev/null bs=64k count=1 status=none
	expect "pages compared" "$(stat_of net2 compared_pages)" 16
	expect "pages that differed" "$(stat_of net2 differed_pages)" 1
	expect "pages no longer on record" "$(stat_of net1 ended_differed)" 1
	dmesg | grep -q "differ from what was read from the same block before" || flunk "the log says nothing"
}

random_file small 256K
random_file big 16M
pool_up 512
image_new ext4 base 320
container_up ext4 a base paranoid
container_up ext4 b base paranoid
run_case "raw reads of a mounted device" raw_reads_of_a_mounted_device
run_case "ext2 donates" ext2_donates
run_case "failed reads aren't recorded" failed_reads
run_case "ext4: write cut short" write_cut_short ext4
run_case "xfs: write cut short" write_cut_short xfs
run_case "parts of raw pages zeroed" parts_of_raw_pages blkdiscard -f -z -o 1024 -l 2048
run_case "parts of raw pages zeroed by a refused hole" parts_of_raw_pages refused_hole
run_case "parts of raw pages zeroed while they are read" parts_of_raw_pages_being_read
run_case "receiver writes what it reads" receiver_writes_meanwhile
run_case "kept lookups" kept_lookups
run_case "disk that changes below the pool" disk_that_changes
run_case "nothing is remembered after unmount" all_down
run_case "lookups kept by an earlier target" kept_lookups_of_an_earlier_target
finish
