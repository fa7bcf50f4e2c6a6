#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# What ends a record from the page side: a donor reads a file, something happens to its
# pages, and a sibling, whose file is still the base image's, must read the base image's
# data. Each case has a file of its own. `a` is the donor, `b` the receiver, both paranoid.
# Where every page changed, not one sector may be served.

# shellcheck source=tools/testing/lib.sh
. "${0%/*}/../lib.sh"

# xio FILE COMMAND...: xfs_io commands on a's file.
xio() {
	local file=/mnt/a/$1 args=() command
	shift
	for command; do
		args+=(-c "$command")
	done
	xfs_io "${args[@]}" "$file" >/dev/null
}

# own FILE: a must see its own changes, made likewise to a plain copy, from memory and
# from its disk.
own() {
	same "/mnt/a/$1" "$WORK/copy"
	sync -f "/mnt/a/$1"
	evict "/mnt/a/$1"
	same "/mnt/a/$1" "$WORK/copy"
}

# edit FILE COMMAND...: the same commands on a's file and on the plain copy.
edit() {
	local file=$1
	cp "$REF/$file" "$WORK/copy"
	xio "$@"
	shift
	local args=() command
	for command; do
		args+=(-c "$command")
	done
	xfs_io "${args[@]}" "$WORK/copy" >/dev/null
}

write_dirty() {
	donate a "$1"
	edit "$1" "pwrite -S 0xa1 0 1m"
	receive b "$1" 0
	own "$1"
}

# After writeback the page is clean again, and holds new data.
write_writeback() {
	donate a "$1"
	edit "$1" "pwrite -S 0xa2 0 1m" "fsync"
	receive b "$1" 0
	own "$1"
}

# A few bytes in each page.
write_scattered() {
	local offset commands=()
	for ((offset = 100; offset < 1048576; offset += 65536)); do
		commands+=("pwrite -S 0xa3 $offset 10")
	done
	donate a "$1"
	edit "$1" "${commands[@]}" "fsync"
	receive b "$1" 0..1920
	own "$1"
}

mmap_store() {
	donate a "$1"
	edit "$1" "mmap -rw 0 1m" "mread -r 0 1m" "mwrite -S 0xb1 0 1m" "msync -s"
	receive b "$1" 0
	own "$1"
}

# Written, cleaned, and stored to again through the mapping that is still there.
mmap_store_after_writeback() {
	donate a "$1"
	edit "$1" "mmap -rw 0 1m" "mwrite -S 0xb2 0 512k" "msync -s" "mwrite -S 0xb3 0 1m" "fsync"
	receive b "$1" 0
	own "$1"
}

truncate_rewrite() {
	donate a "$1"
	edit "$1" "truncate 0" "pwrite -S 0xc1 0 1m" "fsync"
	receive b "$1" 0
	own "$1"
}

# Bytes 0..524388 stay; the page at 524288 is zeroed in part.
truncate_unaligned() {
	donate a "$1"
	edit "$1" "truncate 524388"
	receive b "$1" 0..1024
	own "$1"
}

truncate_down_up() {
	donate a "$1"
	edit "$1" "truncate 524388" "truncate 1m"
	same "/mnt/a/$1" "$WORK/copy"
	receive b "$1" 0..1024
	own "$1"
}

# The same with writeback and a read of the hole in between.
truncate_down_sync_up() {
	donate a "$1"
	edit "$1" "truncate 524388" "fsync" "truncate 1m" "fsync" "pread -q 0 1m"
	receive b "$1" 0..1024
	own "$1"
}

punch_within_page() {
	donate a "$1"
	edit "$1" "fpunch 5000 100" "fpunch 300000 100"
	receive b "$1" 0..2032
	own "$1"
}

# Starts and ends within pages, and within folios where these are large.
punch_across_pages() {
	donate a "$1"
	edit "$1" "fpunch 70001 200003"
	receive b "$1" 0..1664
	own "$1"
}

punch_reread() {
	donate a "$1"
	edit "$1" "fpunch 256k 512k"
	same "/mnt/a/$1" "$WORK/copy"
	receive b "$1" 0..1024
	own "$1"
}

zero_range() {
	donate a "$1"
	edit_by_hand "$1" "fzero -k 100 1000000"
	receive b "$1" 0..256
	own "$1"
}

collapse_range() {
	donate a "$1"
	edit_by_hand "$1" "fcollapse 64k 128k"
	receive b "$1" 0..128
	own "$1"
	# What a has read anew serves from its new place in the file.
	evict "/mnt/b/$1"
	receive b "$1" 0..2048
}

insert_range() {
	donate a "$1"
	edit_by_hand "$1" "finsert 64k 128k"
	receive b "$1" 0..128
	own "$1"
	# What a has read anew serves from its new place in the file.
	evict "/mnt/b/$1"
	receive b "$1" 0..2048
}

# What tmpfs can't do is done to the plain copy by hand.
edit_by_hand() {
	cp "$REF/$1" "$WORK/copy"
	case $2 in
	fcollapse*)
		dd if="$REF/$1" of="$WORK/copy" bs=64k skip=3 seek=1 status=none
		truncate -s 896K "$WORK/copy"
		;;
	fzero*) xfs_io -c "pwrite -q -S 0 100 1000000" "$WORK/copy" ;;
	finsert*)
		truncate -s 64K "$WORK/copy"
		dd if="$REF/$1" of="$WORK/copy" bs=64k skip=1 seek=3 status=none
		;;
	esac
	xio "$@"
}

# The old file is gone, and so are its pages.
rename_over() {
	donate a "$1"
	head -c 1M /dev/zero >"/mnt/a/$1.new"
	mv "/mnt/a/$1.new" "/mnt/a/$1"
	sync -f /mnt/a
	receive b "$1" 0
	cmp -n 1048576 "/mnt/a/$1" /dev/zero
}

# The same while the old file is still open: its pages are still the base's.
rename_over_open() {
	donate a "$1"
	exec 7<"/mnt/a/$1"
	head -c 1M /dev/zero >"/mnt/a/$1.new"
	mv "/mnt/a/$1.new" "/mnt/a/$1"
	receive b "$1" 0..2048
	exec 7<&-
}

unlinked() {
	donate a "$1"
	rm "/mnt/a/$1"
	receive b "$1" 0
}

# The freed pages are taken by another file: the records must not follow them.
page_reuse() {
	donate a "$1"
	echo 3 >/proc/sys/vm/drop_caches
	same "/mnt/a/$2" "$REF/$2"
	head -c 16M /dev/zero >"$WORK/filler"
	rm "$WORK/filler"
	receive b "$1" 0
}

# A folio that is dirty already raises no second event. The helper makes a large folio that
# is dirty and read in part only, reads the rest from disk into it, overwrites that, and
# writes all of it back: clean again, with new data, and no event since the read.
read_into_dirty_folio() {
	settle "/mnt/a/$1"
	"$HELPER" dirty-folio "/mnt/a/$1" || skip "no large folio to be had"
	receive b "$1" 0
}

# ready_to_punch FILE KIND: each page of a's FILE can donate, and to punch a hole into it the
# file system has to read where its blocks are.
ready_to_punch() {
	local file=$1 leaf before
	[ "$2" = ext4 ] || skip "xfs marks pages dirty under the folio lock"
	leaf=$(debugfs -R "ex /$file" /dev/mapper/b 2>/dev/null |
		awk '$1 == "0/" { print $8; exit }')
	[ -n "$leaf" ] || skip "the extents of $file are all in its inode"
	# Page by page: what is in many pieces isn't read by readahead into larger folios.
	before=$(stat_of a recorded_sectors)
	xfs_io -r -c "fadvise -r" -c "pread -q -b 4k 0 1m" "/mnt/a/$file"
	expect_drr "sectors to donate" $(($(stat_of a recorded_sectors) - before)) 1024..
	# Have the inode in the journal already, so that no more than the extents is missing.
	touch "/mnt/a/$file"
	"$HELPER" forget-extents "/mnt/a/$file"
	xfs_io -r -c "fadvise -d $((leaf * 4096)) 4096" /dev/mapper/a
}

# Punching a hole zeroes both of its edge pages, leaves them clean, and marks them dirty
# one after the other. Here it is stopped in between, by a lookup of an extent that has to
# come from a suspended disk. The record of the last page ended before it was zeroed.
punch_stopped_midway() {
	local file=$1 pid
	ready_to_punch "$1" "$2"
	on_exit "dmsetup resume a"
	dmsetup suspend --nolockfs a
	xio "$file" "fpunch 12388 524288" &
	pid=$!
	sleep 0.5
	[ -d /proc/$pid ] || flunk "the punch was not stopped"
	receive b "$file" any
	dmsetup resume a
	wait $pid
	sync -f "/mnt/a/$file"
}

# The same, and the read fails, and the punch with it: the pages that the hole begins and ends in
# stay as they are then, zeroed in part and clean.
punch_failed_midway() {
	local file=$1
	ready_to_punch "$1" "$2"
	on_exit data_healthy
	data_table "0 $(sectors "/dev/$DATA_DISK") flakey /dev/$DATA_DISK 0 0 60 1 error_reads"
	expect_fail xio "$file" "fpunch 12388 524288"
	data_healthy
	expect_fail cmp -n 16384 "/mnt/a/$file" "$REF/$file"
	receive b "$file" any
}

for name in write wb scattered mmap mmap2 rewrite unaligned downup downsyncup page across \
	reread zero collapse insert rename renameopen unlinked reuse other dirty midway failed; do
	random_file $name 1M
done

# Every extent of this file is one page long.
fragmented_file() {
	local offset commands=()
	for ((offset = 0; offset < 1024; offset += 8)); do
		commands+=(-c "fpunch ${offset}k 4k")
	done
	xfs_io "${commands[@]}" "/mnt/$1/$2"
	cp "/mnt/$1/$2" "$REF/$2"
}

for fs in ext4 xfs; do
	pool_up 512
	image_new $fs base 320
	fs_mount $fs base /dev/mapper/t-base
	fragmented_file base midway
	fragmented_file base failed
	umount /mnt/base
	container_up $fs a base paranoid
	container_up $fs b base paranoid

	run_case "$fs: write, still dirty" write_dirty write
	run_case "$fs: write, written back" write_writeback wb
	run_case "$fs: a few bytes in some pages" write_scattered scattered
	run_case "$fs: mmap store" mmap_store mmap
	run_case "$fs: mmap store after writeback" mmap_store_after_writeback mmap2
	run_case "$fs: truncate and rewrite" truncate_rewrite rewrite
	run_case "$fs: unaligned truncate" truncate_unaligned unaligned
	run_case "$fs: truncate down, then up" truncate_down_up downup
	run_case "$fs: truncate down, writeback, then up" truncate_down_sync_up downsyncup
	run_case "$fs: hole punch within a page" punch_within_page page
	run_case "$fs: hole punch across pages" punch_across_pages across
	run_case "$fs: hole punch, then read again" punch_reread reread
	run_case "$fs: zero range" zero_range zero
	run_case "$fs: collapse range" collapse_range collapse
	run_case "$fs: insert range" insert_range insert
	run_case "$fs: rename over" rename_over rename
	run_case "$fs: rename over a file held open" rename_over_open renameopen
	run_case "$fs: unlink" unlinked unlinked
	run_case "$fs: drop_caches, pages reused by another file" page_reuse reuse other
	run_case "$fs: page read into a dirty folio" read_into_dirty_folio dirty
	run_case "$fs: hole punch stopped midway" punch_stopped_midway midway $fs
	run_case "$fs: hole punch that fails midway" punch_failed_midway failed $fs
	run_case "$fs: nothing is remembered after unmount" all_down
done
finish
