#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# SHORT: uml
#
# As changed-pages, for pages of block devices: those that a file system keeps its metadata in, as
# buffers, and those of devices that are read and written raw.

# shellcheck source=tools/testing/lib.sh
. "${0%/*}/../lib.sh"
# shellcheck source=tools/testing/changed.sh
. "${0%/*}/../changed.sh"

# of the first group of blocks, which has the bitmaps of all (flex_bg)
GROUP=8388608
# on a slow kernel all takes longer, but requests time out after half a minute
LATER=$((${DRR_SLOW:-1} > 1 ? 2 : 1))

# block/bdev.c: set_blocksize() for BLKBSZSET makes a raw device's pages consist of buffers of
# 1 KiB, which fs/buffer.c: block_read_full_folio() reads one by one. As part_of_a_page_fails(),
# with the pages of the device itself: kill_bdev() takes those with the old buffers away first.
buffers_of_a_raw_page_fail() {
	local place
	raw_siblings
	place=$(($(debugfs -R "bmap /numbered 5" /dev/mapper/t-b 2>/dev/null) * 4096))
	read_all a
	agrees b "$place" 4096
	blockdev --setbsz 1024 /dev/mapper/a
	on_exit data_healthy
	part_fails "$(on_data numbered 5 2)" 1024
	expect_fail dd if=/dev/mapper/a of=/dev/null bs=4k count=1 skip=$((place / 4096)) status=none
	xfs_io -c "pwrite -q -S 0x66 $((place + 10)) 50" -c fsync /dev/mapper/a || true
	data_healthy
	agrees b
	read_all a
	agrees b
}

# claim_up [COMMAND]: a raw device of 4 KiB sectors, all of whose pages are cached and mapped. Its block size
# is that of the file system already, so mounting doesn't take the pages away (block/bdev.c:
# set_blocksize() returns early). The file system has groups without initialized bitmaps.
# COMMAND is one of debugfs, for the image.
claim_up() {
	RAM_DISK_SECTOR_SIZE=4096
	up 128
	thin_new base 64
	mkfs.ext4 -q -F -b 4096 -g 2048 -N 1024 -J size=4 -E lazy_itable_init=1,nodiscard \
		/dev/mapper/t-base
	[ $# = 0 ] || debugfs -w -R "$*" /dev/mapper/t-base 2>/dev/null
	raw a
	raw b
	keep_open
	read_all a
	keep mapped "$PAGES" map /dev/mapper/a
	mkdir -p /mnt/a
}

# fs/ext4/balloc.c: ext4_init_block_bitmap(), and fs/ext4/ialloc.c: ext4_read_inode_bitmap(), write a
# bitmap into a buffer that wasn't read. a is mounted read-only, without a bio for what is cached,
# and is asked for its free blocks.
bitmaps_made_in_buffers() {
	local args=()
	[ "${1:-}" != rw ] || args=(-o rw)
	claim_up
	mount -t ext4 "${args[@]:--oro,noload}" /dev/mapper/a /mnt/a
	cat /proc/fs/ext4/*/mb_groups >/dev/null
	agrees b 0 $GROUP
	umount /mnt/a
	agrees b 0 $GROUP
}

# fs/ext4/super.c: ext4_percpu_param_init() puts the counts of free blocks and inodes into the
# superblock's buffer, and doesn't mark it dirty. On the disk they are out of date. a is mounted
# read-only.
counts_of_the_superblock() {
	claim_up set_super_value free_blocks_count 7
	mount -t ext4 -o ro,noload /dev/mapper/a /mnt/a
	agrees b 0 4096
	umount /mnt/a
	agrees b 0 $GROUP
}

# fs/jbd2/recovery.c: jbd2_do_replay() copies blocks from the journal into buffers, whether or not
# these had been read. The image was snapshotted while it was mounted, with a transaction in the
# journal only. All of a's pages are cached when a is mounted.
journal_is_replayed() {
	RAM_DISK_SECTOR_SIZE=4096
	up 128
	image_new ext4 base 16 numbered
	fs_mount ext4 base /dev/mapper/t-base
	mkdir /mnt/base/dir{0..30}
	sync -f /mnt/base
	thin_remember crashed "$(thin_sectors base)"
	dmsetup message pool 0 "create_snap $(thin_id crashed) $(thin_id base)"
	umount /mnt/base
	for name in a b; do
		raw $name crashed
	done
	dumpe2fs -h /dev/mapper/t-b 2>/dev/null | grep -q needs_recovery ||
		flunk "the journal needs no recovery"
	keep_open
	read_all a
	keep mapped "$PAGES" map /dev/mapper/a
	fs_mount ext4 a
	[ -d /mnt/a/dir30 ] || flunk "the journal wasn't replayed"
	agrees b
	sync -f /mnt/a
	agrees b
	umount /mnt/a
	agrees b
}

# fs/ext4/resize.c: update_backups() and bclean() write whole buffers without having read them. a,
# whose pages are all cached, is mounted and grown.
file_system_grows() {
	RAM_DISK_SECTOR_SIZE=4096
	up 128
	thin_new base 40
	mkfs.ext4 -q -F -b 4096 -g 2048 -N 1024 -J size=4 -O ^resize_inode,meta_bg \
		-E lazy_itable_init=0,nodiscard /dev/mapper/t-base 16M
	# what was there before: else all that is cleaned is holes
	fs_mount ext4 base /dev/mapper/t-base
	head -c 2M /dev/urandom >/mnt/base/file
	umount /mnt/base
	xfs_io -d -c "pwrite -q -b 1m -S 0x33 16m 24m" /dev/mapper/t-base
	raw a
	raw b
	keep_open
	read_all a
	keep mapped "$PAGES" map /dev/mapper/a
	fs_mount ext4 a
	"$PAGES" grow /mnt/a $((40 * 256))
	agrees b
	sync -f /mnt/a
	agrees b
	umount /mnt/a
	agrees b
}

# fs/ext4/inode.c: ext4_getblk() zeroes the buffers of new directory blocks, and
# __ext4_get_inode_loc() those of inodes of which none is in use, instead of reading them. Reads of
# a's raw pages have failed in part, so pages are cached, not up to date, that have what the disk
# has; then a is mounted, and directories are made.
buffers_zeroed_after_a_failed_read() {
	local total args=() at i
	RAM_DISK_SECTOR_SIZE=4096
	up 128
	image_new ext4 base 16 numbered
	raw a
	raw b
	keep_open
	total=$(($(sectors "/dev/$DATA_DISK") / 256))
	on_exit data_healthy
	data_table "$(awk -v n="$total" -v disk="/dev/$DATA_DISK" 'BEGIN {
		for (i = 0; i < n; i++) {
			print i * 256, 128, "linear", disk, i * 256
			print i * 256 + 128, 128, "error"
		}
	}')"
	for ((at = 0; at < 16384; at += 128)); do
		args+=(-c "fadvise -w ${at}k 128k")
	done
	xfs_io -r "${args[@]}" /dev/mapper/a
	sleep 0.5
	echo "tracked after the failed reads: $(tracked)"
	data_healthy
	fs_mount ext4 a
	for ((i = 0; i < 60; i++)); do
		mkdir "/mnt/a/dir$i"
		: >"/mnt/a/dir$i/file"
	done
	agrees b
	sync -f /mnt/a
	agrees b
	umount /mnt/a
	agrees b
}

# fs/jbd2/transaction.c: jbd2_journal_dirty_metadata() leaves a buffer clean that a transaction has
# changed: inodes, bitmaps, directories, the superblock. a is mounted and busy; b, raw, and c,
# mounted, are looked at when the transaction is running, when it has been committed, and when all
# is in its place.
metadata_in_the_journal() {
	local i
	up 128
	image_new ext4 base 16 numbered tree
	fs_mount ext4 base /dev/mapper/t-base
	(cd /mnt/base && find . -exec stat -c '%n %i %s %Y' {} + | sort) >"$WORK/listing"
	umount /mnt/base
	raw b
	for name in a c; do
		container_up ext4 $name base
	done
	# a has read all of it: its inodes, its directories and, raw, the device
	find /mnt/a -type f -exec cat {} + >/dev/null
	read_all a
	for ((i = 0; i < 40; i++)); do
		mkdir "/mnt/a/dir$i"
		: >"/mnt/a/dir$i/file"
		touch "/mnt/a/tree/$i"
		rm "/mnt/a/tree/$i"
	done
	metadata_is_the_images
	sync -f /mnt/a
	metadata_is_the_images
	umount /mnt/a
	metadata_is_the_images
	umount /mnt/c
	fs_mount ext4 c
	metadata_is_the_images
}

metadata_is_the_images() {
	agrees b
	(cd /mnt/c && find . -exec stat -c '%n %i %s %Y' {} + | sort) >"$WORK/listing-c"
	same "$WORK/listing-c" "$WORK/listing"
	right c numbered
	echo 2 >/proc/sys/vm/drop_caches
	evict /dev/mapper/c
}

# fs/ext4/super.c registers ext2, too: the same buffers without a journal, which are marked dirty
# when they have been changed, and blocks that are mapped through indirect ones
# (fs/ext4/indirect.c: ext4_alloc_branch() zeroes buffers). a changes files and metadata; b and c are
# looked at in between.
ext2() {
	local i
	grep -qw ext2 /proc/filesystems || modprobe -q ext2 || skip "this kernel has no ext2"
	up 128
	thin_new base 32
	mke2fs -q -F -t ext2 -b 4096 /dev/mapper/t-base
	mkdir -p /mnt/{base,a,c}
	mount -t ext2 /dev/mapper/t-base /mnt/base
	cp "$REF/file" "$REF/numbered" /mnt/base
	umount /mnt/base
	for name in a b c; do
		raw $name
	done
	mount -t ext2 -o noatime /dev/mapper/a /mnt/a
	mount -t ext2 -o noatime /dev/mapper/c /mnt/c
	same /mnt/a/file "$REF/file"
	same /mnt/a/numbered "$REF/numbered"
	read_all a
	few_bytes /mnt/a/file
	truncate -s 300000 /mnt/a/numbered
	for ((i = 0; i < 40; i++)); do
		mkdir "/mnt/a/dir$i"
	done
	for i in 1 2; do
		agrees b
		right c file
		right c numbered
		sync -f /mnt/a
	done
	umount /mnt/a
	agrees b
	right c file
}

# mm/truncate.c: truncate_inode_partial_folio(), for block/bdev.c: truncate_bdev_range(), zeroes parts
# of the pages of a raw device, which others have mapped. BLKZEROOUT, fallocate() and BLKDISCARD;
# what begins or ends within a page zeroes a part of it.
mapped_raw_pages_zeroed() {
	raw_siblings
	read_all a
	keep mapped "$PAGES" map /dev/mapper/a
	blkdiscard -f -z -o $((1048576 + 512)) -l 1536 /dev/mapper/a
	agrees b 1048576 65536
	fallocate -z -o $((2097152 + 1024)) -l 71680 /dev/mapper/a
	agrees b 2097152 131072
	blkdiscard -f -o 3145728 -l 65536 /dev/mapper/a
	agrees b 3145728 65536
	xfs_io -c "fpunch 4195328 2048" /dev/mapper/a || true
	agrees b
	# and a has on its disk what it has in memory
	sync /dev/mapper/a
	dd if=/dev/mapper/a of="$WORK/cached" bs=1M status=none
	dd if=/dev/mapper/t-a of="$WORK/thin" bs=1M iflag=direct status=none
	cmp -n 4194304 "$WORK/cached" "$WORK/thin"
}

# fs/iomap/buffered-io.c: iomap_write_end() with IOMAP_F_BUFFER_HEAD (block/fops.c: blkdev_iomap_ops)
# calls fs/buffer.c: block_write_end() as above. A write to a raw device reads the rest of its page,
# slowly, is killed, and its buffer turns out to be too short. The page has the bytes that were
# copied; its buffer is up to date from the read, so the next read of the page asks no disk.
raw_write_cut_short() {
	local at=$((100 * 4096)) pid
	raw_siblings
	on_exit data_healthy
	data_slow 3000
	"$PAGES" cut-write /dev/mapper/a $((at + 100)) 200 100 &
	pid=$!
	wait_for 10 grep -q '^State:.D' /proc/$pid/status
	kill -9 "$pid"
	expect_fail wait "$pid"
	data_healthy
	agrees b $at 4096
	dd if=/dev/mapper/a of="$WORK/page" bs=4k skip=100 count=1 status=none
	agrees b $at 4096
	dd if=/dev/mapper/t-a of="$WORK/thin" bs=4k skip=100 count=1 iflag=direct status=none
	expect_fail cmp "$WORK/page" "$WORK/thin"
	read_all a
	agrees b
}

# drivers/md/dm-crypt.c: kcryptd_crypt_read_convert() decrypts the pages of the reader in place, when
# the bio below has ended. They are pages of dm-crypt's own device here, locked and not up
# to date when the disk's data are in them. b, raw, has to get cipher text.
decrypted_in_place() {
	local key=00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff
	modprobe -q dm-crypt || skip "no dm-crypt"
	raw_siblings
	dmsetup create plain --table \
		"0 $(thin_sectors a) crypt aes-xts-plain64 $key 0 /dev/mapper/a 0"
	on_exit "exec 8<&-; dmsetup remove --retry plain"
	exec 8</dev/mapper/plain
	read_all plain
	agrees b
}

# mm/page_io.c: swap_read_folio() reads into a page of the swap cache, which then is its process's to
# change. a is a swap device with pages of a process, and b is a snapshot of it; the process has them
# swapped in, and changes them.
swap_device() {
	[ -e /proc/swaps ] || skip "no swap in this kernel"
	up 128
	thin_new base 32
	mkswap -q /dev/mapper/t-base || mkswap /dev/mapper/t-base >/dev/null
	raw a
	swapon /dev/mapper/a
	on_exit "swapoff /dev/mapper/a"
	mkfifo "$WORK/swap"
	on_exit "exec 8>&-; rm $WORK/swap"
	exec 8<>"$WORK/swap"
	keep out "$PAGES" page-out 8 <"$WORK/swap"
	grep -q "mapper/a\|dm-" /proc/swaps
	thin_remember b "$(thin_sectors a)"
	dmsetup suspend --nolockfs a
	dmsetup message pool 0 "create_snap $(thin_id b) $(thin_id a)"
	dmsetup resume a
	thin_open b
	drr_new b
	agrees b
	echo >&8
	wait_for 20 grep -q "in\|wrong" "$WORK/kept"
	! grep wrong "$WORK/kept" || flunk "the process got wrong bytes"
	agrees b
}

# fs/buffer.c: bh_read() and ext4_read_bh() read a block under the buffer's lock alone, and
# block_write_begin() neither waits for that nor reads if a write covers the buffer. a is mounted and
# looks a name up in a directory; the disk has put the block into the page, and not said so; a writer
# of the raw device changes the page. The read ends with a page that has never been the block.
raw_write_while_a_buffer_is_read() {
	local block
	up 48
	image_new ext4 base 16 tree
	block=$(debugfs -R "blocks /tree" /dev/mapper/t-base 2>/dev/null | awk '{ print $1 }')
	container_up ext4 a base
	raw b
	stat /mnt/a/tree >/dev/null
	on_exit data_healthy
	completions_late $((1500 * LATER))
	stat /mnt/a/tree/none &
	sleep "$((500 * LATER))e-3"
	xfs_io -c "pwrite -q -S 0x66 $((block * 4096)) 4096" /dev/mapper/a ||
		skip "this kernel lets nobody write to a mounted device"
	wait || true
	data_healthy
	dd if=/dev/mapper/a of="$WORK/page" bs=4k skip="$block" count=1 status=none
	cmp "$WORK/page" <(head -c 4096 /dev/zero | tr '\0' f) || flunk "the page has the disk's data"
	agrees b $((block * 4096)) 4096
	agrees b
}

# block/fops.c: __blkdev_direct_IO() reads into memory that its process may write to meanwhile. The disk
# has put the block into a's buffer, and not said so; the process overwrites the buffer, while b waits
# for the same block.
buffer_changed_while_it_is_read() {
	local pid
	up 48
	image_new ext4 base 16 numbered
	raw a
	raw b
	dd if=/dev/mapper/t-b of="$WORK/wanted" iflag=direct bs=64k skip=80 count=1 status=none
	on_exit data_healthy
	completions_late $((1500 * LATER))
	"$PAGES" scribble /dev/mapper/a $((80 * 65536)) 65536 $((700 * LATER)) &
	pid=$!
	sleep "$((300 * LATER))e-3"
	dd if=/dev/mapper/b of="$WORK/got" iflag=direct bs=64k skip=80 count=1 status=none
	wait $pid || flunk "the buffer has the disk's data"
	data_healthy
	same "$WORK/got" "$WORK/wanted"
	agrees b
}

random_file file 1M
random_file tail 70001
numbered_file numbered 256
for ((i = 0; i < 40; i++)); do
	random_file tree/$i $((i * 300))
done

pool_up 256
image_new ext4 base 16
run_case "buffers of a raw page fail" buffers_of_a_raw_page_fail
run_case "raw write cut short" raw_write_cut_short
run_case "mapped raw pages zeroed" mapped_raw_pages_zeroed
run_case "dm-crypt decrypts in place" decrypted_in_place
run_case "nothing is remembered after unmount" all_down
run_case "ext4: bitmaps made in buffers" bitmaps_made_in_buffers
run_case "ext4: bitmaps made in buffers, writable" bitmaps_made_in_buffers rw
run_case "ext4: counts of the superblock" counts_of_the_superblock
run_case "ext4: journal is replayed" journal_is_replayed
run_case "ext4: file system grows" file_system_grows
run_case "ext4: buffers zeroed after a failed read" buffers_zeroed_after_a_failed_read
run_case "ext4: metadata in the journal" metadata_in_the_journal
run_case "ext2" ext2
run_case "swap device" swap_device
run_case "raw write while a buffer is read" raw_write_while_a_buffer_is_read
run_case "buffer changed while it is read" buffer_changed_while_it_is_read
finish
