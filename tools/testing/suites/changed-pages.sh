#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# SHORT: uml
#
# Ways in which a page comes to differ from the block that was read into it without an event: no
# dirtying, no removal from the page cache, no read. `a` has the page, `b` is a sibling whose block
# is still the image's. Each case names the kernel's code that changes the page, in Linux 7.3. What
# is recorded doesn't matter here: b's bytes have to be those of its thin device, or of the
# reference file. b is read page by page, so that each page is served, or not, by itself; and
# without `paranoid`, which would mend a wrong hit.
#
# COLLAPSE=FILES,HOLES in the environment makes the collapse case longer: 16,128 is enough to see
# a wrong byte where it can happen, and takes six minutes under emulation.

# shellcheck source=tools/testing/lib.sh
. "${0%/*}/../lib.sh"

PAGES=${0%/*}/../bin/drr-pages
late_disk_gone() {
	[ -d /sys/kernel/config/nullb/nullb2 ] || return 0
	echo 0 >/sys/kernel/config/nullb/nullb2/power
	rmdir /sys/kernel/config/nullb/nullb2
}

# completions_late MS: from now on the pool's data are those of a copy of its disk that is MS
# milliseconds late to say that they are there. data_healthy() ends it, and what was written
# meanwhile is lost then.
completions_late() {
	local mib=$(($(sectors "/dev/$DATA_DISK") / 2048))
	ram_disk nullb2 $mib "$1"
	dd if="/dev/$DATA_DISK" of=/dev/nullb2 bs=${mib}M iflag=fullblock oflag=direct status=none
	data_table "0 $((mib * 2048)) linear /dev/nullb2 0"
}

# up MIB: a pool that goes when the case ends.
up() {
	on_exit late_disk_gone
	on_exit all_down
	pool_up "$1"
}

# siblings FS [FEATURE...]: a and b on the image of the running pool, mounted.
siblings() {
	local kind=$1
	shift
	on_exit "gone a b"
	container_up "$kind" a base "$@"
	container_up "$kind" b base "$@"
}

# raw_siblings: the same, not mounted; a's page cache is kept.
raw_siblings() {
	on_exit "gone a b"
	raw a
	raw b
	keep_open
}

# gone NAME...: devices that are deleted, too.
gone() {
	local name
	for name; do
		container_down "$name"
		dmsetup message pool 0 "delete $(thin_id "$name")"
	done
}

# raw NAME [ORIGIN]: drr on a snapshot, not mounted.
raw() {
	thin_snap "$1" "${2:-base}"
	drr_new "$1"
}

# keep_open: a's page cache stays when nobody else has the device open.
keep_open() {
	on_exit "exec 7<&-"
	exec 7</dev/mapper/a
}

# keep WORD COMMAND...: starts a command that prints WORD and ends with the case.
keep() {
	local word=$1
	shift
	"$@" >"$WORK/kept" &
	KEPT=$!
	on_exit "kill $KEPT; wait $KEPT"
	wait_for 20 grep -q "$word" "$WORK/kept"
}

# read_all DEVICE: into its page cache.
read_all() {
	dd if="/dev/mapper/$1" of=/dev/null bs=1M status=none
}

# agrees NAME [OFFSET LENGTH]: drr gives of NAME what its thin device has.
agrees() {
	local part=(skip="${2:-0}")
	[ $# -lt 3 ] || part+=(count="$3")
	dd if="/dev/mapper/t-$1" of="$WORK/thin" iflag=direct,skip_bytes,count_bytes bs=64k \
		"${part[@]}" status=none
	dd if="/dev/mapper/$1" of="$WORK/drr" iflag=direct,skip_bytes,count_bytes bs=4k \
		"${part[@]}" status=none
	same "$WORK/drr" "$WORK/thin"
}

# right NAME FILE: a mounted file is the reference.
right() {
	dd if="/mnt/$1/$2" of="$WORK/file" iflag=direct bs=4k status=none
	same "$WORK/file" "$REF/$2"
}

# place_of FILE: byte address on its device of the file's first extent.
place_of() {
	xfs_io -r -c "fiemap" "$1" |
		awk '$1 == "0:" { split($3, at, /\.\./); print at[1] * 512; exit }'
}

# numbered_file NAME PAGES: a reference file in which each KiB begins with its place in the file.
numbered_file() {
	awk -v name="${1:0:1}" -v pages="$2" 'BEGIN {
		for (i = 0; i < pages * 4; i++)
			printf "%s-PAGE-%06d.%d-%1008s", name, int(i / 4), i % 4, ""
	}' >"$REF/$1"
}

# on_data NAME PAGE [KIB]: byte address on the pool's data device of a page of a numbered file, or of a
# KiB of it. Its blocks are still the image's alone.
on_data() {
	LC_ALL=C grep -abo -m 1 "$(printf '%s-PAGE-%06d\.%d-' "${1:0:1}" "$2" "${3:-0}")" \
		/dev/mapper/data | head -n 1 | cut -d: -f1
}

# part_fails OFFSET LENGTH: reads and writes of that part of the data device, in bytes.
part_fails() {
	local at=$(($1 / 512)) count=$(($2 / 512)) total
	total=$(sectors "/dev/$DATA_DISK")
	data_table "0 $at linear /dev/$DATA_DISK 0
$at $count error
$((at + count)) $((total - at - count)) linear /dev/$DATA_DISK $((at + count))"
}

data_slow() { data_table "0 $(sectors "/dev/$DATA_DISK") delay /dev/$DATA_DISK 0 $1"; }

data_fails() { data_table "0 $(sectors "/dev/$DATA_DISK") flakey /dev/$DATA_DISK 0 0 60 1 $1"; }

# half_read FILE: a reads 128 KiB of a numbered file in one bio, which is split at a data block.
# The first part comes from the disk and the second fails, so the file system fails all of the
# folios: they stay cached and not up to date. FIRST is the number of the first page.
half_read() {
	local place bad
	place=$(place_of "/mnt/a/$1")
	FIRST=$((16 + (16 - place / 4096 % 16) % 16))
	bad=$(on_data "$1" $((FIRST + 16)))
	settle "/mnt/a/$1"
	evict "/mnt/a/$1"
	on_exit data_healthy
	part_fails "$bad" 65536
	xfs_io -r -c "fadvise -w $((FIRST * 4096)) 131072" "/mnt/a/$1"
	sleep 0.5
	echo "tracked after the failed read: $(tracked)"
	data_healthy
}

# --- pages that were read in part ----------------------------------------------------

# fs/ext4/readpage.c: ext4_mpage_readpages() zeroes a folio without a read where the file has an
# unwritten extent. a's read fails in part; EXT4_IOC_MOVE_EXT (fs/ext4/move_extent.c:
# mext_move_extent()) leaves an unwritten extent in place of the range; a reads it, and gets zeroes
# in the folio that had the block's data.
unwritten_after_a_failed_read() {
	siblings ext4
	half_read numbered
	head -c 64K /dev/zero >/mnt/a/other
	sync -f /mnt/a/other
	"$PAGES" move-extents /mnt/a/other /mnt/a/numbered 0 $FIRST 16
	dd if=/mnt/a/numbered of=/dev/null bs=4k skip=$FIRST count=16 status=none
	right b numbered
}

# fs/ext4/readpage.c: set_error_page in ext4_mpage_readpages() zeroes a folio whose place can't be
# looked up. a's read fails in part; then nothing can be read, and the leaf with the file's extents
# is in no cache; a reads again, and the folio is zeroed. It never becomes up to date.
lookup_fails_after_a_failed_read() {
	local leaf
	siblings ext4 no_meta_cache	# the extents are read from the disk again
	half_read leafy
	leaf=$(debugfs -R "ex /leafy" /dev/mapper/t-b 2>/dev/null |
		awk '$1 == "0/" { print $8; exit }')
	[ -n "$leaf" ] || flunk "the extents of leafy are all in its inode"
	"$HELPER" forget-extents /mnt/a/leafy
	xfs_io -r -c "fadvise -d $((leaf * 4096)) 4096" /dev/mapper/a
	data_fails error_reads
	expect_fail dd if=/mnt/a/leafy of=/dev/null bs=4k skip=$FIRST count=1
	data_healthy
	right b leafy
}

# fs/buffer.c: block_write_end() takes a write that was cut short for none at all if the folio isn't up
# to date, though bytes have been copied. (So does fs/iomap/buffered-io.c: __iomap_write_end(), but xfs
# has nothing to wait for between two extents.) Every other page of a's file is a hole, so each page of
# a large folio is read by a bio of its own; one of them fails. A write begins in a page that was read
# and ends in the one that wasn't, which it reads first, slowly; it is killed meanwhile, and its buffer
# ends before it has left the first page. That page is changed, and clean.
cut_write_across_a_folio() {
	local pid
	siblings ext4
	settle /mnt/a/sparse
	on_exit data_healthy
	part_fails "$(on_data sparse 131)" 4096
	expect_fail cat /mnt/a/sparse >/dev/null
	[ "$("$HELPER" large-folios /mnt/a/sparse)" -gt 0 ] || skip "no large folios here"
	data_slow 3000
	"$PAGES" cut-write /mnt/a/sparse $((129 * 4096 + 4000)) 4292 90 &
	pid=$!
	wait_for 10 grep -q '^State:.D' /proc/$pid/status
	kill -9 "$pid"
	expect_fail wait "$pid"
	data_healthy
	right b sparse
	# a reads the rest of the folio, and all of it becomes up to date
	expect_fail cmp /mnt/a/sparse "$REF/sparse"
	right b sparse
}

# fs/buffer.c: block_read_full_folio() reads each block of a page by itself where the page has a
# hole, or where a block of it is known already. The blocks have 1 KiB; one of a page can't be read.
# a writes a few bytes to another block of the page, which can't be written back, since the copy of
# its data block fails likewise: the page is clean. Then the rest of the page is read.
part_of_a_page_fails() {
	local fs=$1 page=5 mib=16
	[[ $fs != xfs* ]] || mib=320
	up $((mib + 128))
	image_new "$fs" base $mib pieces
	fs_mount "$fs" base /dev/mapper/t-base
	punched /mnt/base/pieces 1 4 1
	umount /mnt/base
	siblings "$fs"
	settle /mnt/a/pieces
	on_exit data_healthy
	part_fails "$(on_data pieces $page 3)" 1024
	expect_fail cat /mnt/a/pieces >/dev/null
	right_but_for_errors b pieces
	xfs_io -c "pwrite -q -S 0x66 $((page * 4096 + 10)) 50" \
		-c "sync_range -w 0 64k" -c "sync_range -a 0 64k" /mnt/a/pieces || true
	data_healthy
	right b pieces
	cat /mnt/a/pieces >/dev/null
	right b pieces
}

# right_but_for_errors NAME FILE: what can be read of it is right.
right_but_for_errors() {
	dd if="/mnt/$1/$2" of="$WORK/file" iflag=direct bs=4k count=5 status=none
	cmp -n 20480 "$WORK/file" "$REF/$2" || flunk "$1 has wrong bytes"
}

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

# --- writes that leave a page clean --------------------------------------------------

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

# mm/page-writeback.c: folio_clear_dirty_for_io() cleans a page before it is written, and it stays
# so if the write fails (mapping_set_error()). a has read its file, changes it, and the disk refuses
# the data: a's pages are up to date and clean, have what no disk has, and a still maps the old
# blocks.
writeback_fails() {
	siblings "$1"
	same /mnt/a/file "$REF/file"
	xfs_io -c "pwrite -q -S 0x66 0 128k" /mnt/a/file
	on_exit data_healthy
	data_fails error_writes
	expect_fail xfs_io -c "sync_range -w 0 128k" -c "sync_range -a 0 128k" /mnt/a/file
	data_healthy
	expect_fail cmp -n 131072 /mnt/a/file "$REF/file"
	right b file
	evict /mnt/b/file
	same /mnt/b/file "$REF/file"
}

# few_bytes FILE: in every fourth page.
few_bytes() {
	local at args=()
	for ((at = 100; at < 262144; at += 16384)); do
		args+=(-c "pwrite -q -S 0x66 $at 10")
	done
	xfs_io "${args[@]}" "$1"
}

# fs/ext4/inode.c: ext4_journalled_write_end() changes pages that are written back by jbd2, as
# buffers of the journal, and at checkpoints. a has read a file and writes to it: b is looked at when
# the transaction is running, when it has been committed, and when all is in its place. HOW is
# `mount`, data=journal for all files, or `file`, EXT4_JOURNAL_DATA_FL by FS_IOC_SETFLAGS
# (ext4_change_inode_journal_flag() takes the page cache away first).
data_in_the_journal() {
	siblings ext4
	if [ "$1" = mount ]; then
		umount /mnt/a
		mount -t ext4 -o noatime,commit=600,data=journal /dev/mapper/a /mnt/a
	fi
	same /mnt/a/file "$REF/file"
	if [ "$1" = file ]; then
		chattr +j /mnt/a/file
		same /mnt/a/file "$REF/file"
	fi
	few_bytes /mnt/a/file
	right b file
	sync -f /mnt/a/file
	right b file
	few_bytes /mnt/a/file
	umount /mnt/a
	right b file
	fs_mount ext4 a
	expect_fail cmp /mnt/a/file "$REF/file"
	right b file
}

# --- buffers of file systems ---------------------------------------------------------

# of the first group of blocks, which has the bitmaps of all (flex_bg)
GROUP=8388608

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

# --- file operations -----------------------------------------------------------------

# mm/truncate.c: truncate_inode_partial_folio() zeroes a part of a large folio, and where the folio
# can't be split its pages stay, clean and zeroed. a removes the middle of its file by
# MADV_REMOVE while a pipe has a page of the same folio.
part_of_a_held_folio_removed() {
	siblings "$1"
	same /mnt/a/file "$REF/file"
	keep removed "$PAGES" remove-held /mnt/a/file $((133 * 4096)) $((40 * 4096))
	cmp -i $((133 * 4096)):0 -n $((40 * 4096)) /mnt/a/file /dev/zero || flunk "nothing was removed"
	right b file
	same /mnt/b/file "$REF/file"
}

# fs/ext4/inode.c: ext4_block_truncate_page() and fs/xfs/xfs_iops.c: xfs_truncate_page() zero the rest
# of the last page when the file grows or shrinks. The disk has other bytes behind the file's end. a
# has read the page and makes the file longer; b's device is read raw.
tail_of_the_last_page() {
	local place last size
	size=$(stat -c %s "$REF/tail")
	on_exit "gone a b longer"
	thin_snap longer base
	fs_mount "$1" longer /dev/mapper/t-longer
	place=$(place_of /mnt/longer/tail)
	umount /mnt/longer
	last=$((place + size / 4096 * 4096))
	xfs_io -d -c "pwrite -q -S 0x33 $((last + 1024)) 3072" /dev/mapper/t-longer
	container_up "$1" a longer
	raw b longer
	same /mnt/a/tail "$REF/tail"
	agrees b "$last" 4096
	xfs_io -c "mmap -r 0 1m" -c "mread 0 4k" -c "truncate 1m" /mnt/a/tail >/dev/null
	agrees b "$last" 4096
	sync -f /mnt/a
	agrees b "$last" 4096
	same <(head -c "$size" /mnt/a/tail) "$REF/tail"
	cmp -i "$size":0 -n 1000 /mnt/a/tail /dev/zero ||
		flunk "a's file has bytes behind its old end"
}

# fs/ext4/ioctl.c: swap_inode_boot_loader() exchanges the blocks of two files, and takes the pages of
# both from the page cache first (truncate_inode_pages()). a has read the file and does so twice.
swapped_with_the_boot_loader() {
	siblings ext4
	same /mnt/a/file "$REF/file"
	"$PAGES" swap-boot /mnt/a/file
	cat /mnt/a/file >/dev/null
	same /mnt/a/numbered "$REF/numbered"
	right b file
	"$PAGES" swap-boot /mnt/a/numbered
	# numbered has the blocks of file now
	same /mnt/a/numbered "$REF/file"
	right b file
	right b numbered
}

# fs/xfs/xfs_reflink.c and xfs_exchrange.c give a file other blocks, and take its pages from the page
# cache (xfs_flush_unmap_range(), xfs_reflink_remap_prep()). a has read both files and clones,
# exchanges and deduplicates ranges, reads them again, and b is looked at each time.
xfs_shares_blocks() {
	local command
	siblings xfs
	for name in file numbered; do
		same /mnt/a/$name "$REF/$name"
	done
	for command in "reflink /mnt/a/numbered 0 64k 64k" "dedupe /mnt/a/numbered 0 64k 64k" \
		"exchangerange /mnt/a/numbered" "fzero 4k 100k" "funshare 0 256k"; do
		xfs_io -c "$command" /mnt/a/file || echo "not supported: $command"
		cat /mnt/a/file /mnt/a/numbered >/dev/null
		right b file
		right b numbered
	done
}

# fs/ext4/super.c: with -o dax, a file's pages are the device's own memory, which anybody who maps
# them writes without an event. dm-thin has no such memory, so that the mount is refused, or is one
# without DAX.
dax_is_refused() {
	siblings "$1"
	umount /mnt/a
	if mount -t "$1" -o noatime,dax=always /dev/mapper/a /mnt/a; then
		[ "$1" != ext4 ] || flunk "ext4 was mounted with DAX"
		same /mnt/a/file "$REF/file"
		few_bytes /mnt/a/file
	fi
	right b file
}

# --- raw devices ---------------------------------------------------------------------

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

# drivers/md/dm-crypt.c: kcryptd_crypt_read_convert() decrypts the pages of the one who reads, in
# place, when the bio below has ended. They are pages of dm-crypt's own device here, locked and not up
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

# mm/memory-failure.c: me_pagecache_clean() takes a page away that the machine can't read, or, where
# the folio is held, leaves it marked. a has read the file; one of its pages fails, and b reads.
memory_fails() {
	local rc=0
	siblings "$1"
	same /mnt/a/file "$REF/file"
	"$PAGES" poison /mnt/a/file $((10 * 4096)) || rc=$?
	[ $rc != 77 ] || skip "this kernel injects no memory failures"
	expect "result of the injection" $rc 0
	right b file
	same /mnt/b/file "$REF/file"
	right a file
}

# --- memory that is changed while it is being read ------------------------------------

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
	completions_late 1500
	stat /mnt/a/tree/none &
	sleep 0.5
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
	completions_late 1500
	"$PAGES" scribble /dev/mapper/a $((80 * 65536)) 65536 700 &
	pid=$!
	sleep 0.3
	dd if=/dev/mapper/b of="$WORK/got" iflag=direct bs=64k skip=80 count=1 status=none
	wait $pid || flunk "the buffer has the disk's data"
	data_healthy
	same "$WORK/got" "$WORK/wanted"
	agrees b
}

# mm/khugepaged.c: collapse_file() puts a huge folio into the place of small ones. A reader that has
# found a small one may look at memory that a hole punch (mm/truncate.c) has zeroed in the huge one. For each of some holes, a's file is collapsed while the hole is punched and b is read; b's page
# cache may not keep, nor c be given, anything else.
collapse_against_a_hole_punch() {
	local files=1 holes=16 i at
	[ -e /sys/kernel/mm/transparent_hugepage/enabled ] || skip "no huge pages in this kernel"
	[ -z "${COLLAPSE:-}" ] || IFS=, read -r files holes <<<"$COLLAPSE"
	on_exit "rm $REF/huge*"
	for ((i = 0; i < files; i++)); do
		random_file "huge$i" 2M
	done
	up 256
	# shellcheck disable=SC2046 # names of ours
	image_new ext4 base 96 $(cd "$REF" && echo huge*)
	container_up ext4 a base
	raw b
	raw c
	for ((i = 0; i < files; i++)); do
		at=$(place_of "/mnt/a/huge$i")
		"$PAGES" collapse "/mnt/a/huge$i" /dev/mapper/b "$at" "$REF/huge$i" "$holes" "$i" \
			/dev/mapper/c || flunk "b or c had wrong bytes of huge$i"
	done
}

# punched FILE PIECE STEP [FIRST]: holes of PIECE KiB, one in each STEP KiB, in a numbered file.
punched() {
	local at args=()
	for ((at = ${4:-0}; at < 1024; at += $3)); do
		args+=(-c "fpunch ${at}k ${2}k")
	done
	xfs_io "${args[@]}" "$1"
}

random_file file 1M
random_file tail 70001
numbered_file numbered 256
for ((i = 0; i < 40; i++)); do
	random_file tree/$i $((i * 300))
done
# Holes in all even pages; in every other page of the second half. cp -a keeps them. Those of 1 KiB have
# to be made in the image once more.
numbered_file sparse 256
punched "$REF/sparse" 4 8
numbered_file leafy 256
punched "$REF/leafy" 4 8 512
numbered_file pieces 256
punched "$REF/pieces" 1 4 1

for fs in ext4 xfs; do
	if [ $fs = ext4 ]; then
		pool_up 256
		image_new $fs base 16
		run_case "ext4: unwritten extent after a failed read" unwritten_after_a_failed_read
		run_case "ext4: lookup fails after a failed read" lookup_fails_after_a_failed_read
		run_case "ext4: write across a folio cut short" cut_write_across_a_folio
		run_case "ext4: data=journal" data_in_the_journal mount
		run_case "ext4: journalled file" data_in_the_journal file
		run_case "ext4: swapped with the boot loader" swapped_with_the_boot_loader
		run_case "buffers of a raw page fail" buffers_of_a_raw_page_fail
		run_case "raw write cut short" raw_write_cut_short
		run_case "mapped raw pages zeroed" mapped_raw_pages_zeroed
		run_case "dm-crypt decrypts in place" decrypted_in_place
	else
		pool_up 512
		image_new $fs base 320
		run_case "xfs: blocks shared and exchanged" xfs_shares_blocks
	fi
	run_case "$fs: writeback fails" writeback_fails $fs
	run_case "$fs: part of a held folio removed" part_of_a_held_folio_removed $fs
	run_case "$fs: tail of the last page" tail_of_the_last_page $fs
	run_case "$fs: DAX is refused" dax_is_refused $fs
	run_case "$fs: memory fails" memory_fails $fs
	run_case "$fs: nothing is remembered after unmount" all_down
	run_case "$fs: part of a page of 1 KiB blocks fails" part_of_a_page_fails $fs-1k
done
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
run_case "ext4: collapse against a hole punch" collapse_against_a_hole_punch
finish
