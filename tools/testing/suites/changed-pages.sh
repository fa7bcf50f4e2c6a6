#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# SHORT: uml
#
# Ways in which a page of a file comes to differ from the block that was read into it without an
# event: no dirtying, no removal from the page cache, no read. `a` has the page, `b` is a sibling whose block
# is still the image's. Each case names the kernel's code that changes the page, in Linux 7.3. What
# is recorded doesn't matter here: b's bytes have to be those of its thin device, or of the
# reference file. b is read page by page, so that each page is served, or not, by itself; and
# without `paranoid`, which would mend a wrong hit.
#
# COLLAPSE=FILES,HOLES in the environment makes the collapse case longer: 16,128 is enough to see
# a wrong byte where it can happen, and takes six minutes under emulation.

# shellcheck source=tools/testing/lib.sh
. "${0%/*}/../lib.sh"
# shellcheck source=tools/testing/changed.sh
. "${0%/*}/../changed.sh"

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
run_case "ext4: collapse against a hole punch" collapse_against_a_hole_punch
finish
