#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# SHORT: uml
#
# File systems that DRR knows nothing of: the structural rule decides which of their pages donate, and their metadata
# is kept where they mark it.

# shellcheck source=tools/testing/lib.sh
. "${0%/*}/../lib.sh"

# has KIND: or the case is left out.
has() {
	grep -qw "$1" /proc/filesystems || modprobe -q "$1" || skip "no $1 in this kernel"
}

# siblings KIND: a and b on the image of the pool, whose metadata the first has read.
siblings() {
	container_up "$1" a base paranoid
	container_up "$1" b base paranoid
	diff -r "/mnt/a/tree" "$REF/tree"
}

# same_files: b's are the reference's.
same_files() {
	diff -r /mnt/b/tree "$REF/tree"
	same /mnt/b/file "$REF/file"
	same /mnt/b/text "$REF/text"
}

# written_and_read KIND: files donate; what one writes is its own.
written_and_read() {
	has "$1"
	pool_up 512
	on_exit all_down
	image_new "$1" base 300
	siblings "$1"
	same /mnt/a/file "$REF/file"
	receive b file 1024..
	same_files
	expect_drr "sectors served" "$(stat_of b hit_sectors)" 2048..
	xfs_io -c "pwrite -q -S 0x42 0 64k" -c fsync /mnt/a/file
	truncate -s 70001 /mnt/a/text
	rm -r /mnt/a/tree/3
	sync -f /mnt/a
	echo 3 >/proc/sys/vm/drop_caches
	expect_fail cmp -s /mnt/a/file "$REF/file"
	same_files
}

# btrfs takes a second device with the same file system for the first one's other path, unless it is mounted by
# itself; and it compresses where it is told to. Compressed data is read into memory that is no file's.
compressed() {
	has btrfs
	pool_up 512
	on_exit all_down
	thin_new base 300
	fs_make btrfs /dev/mapper/t-base
	fs_mount btrfs base /dev/mapper/t-base
	mount -o remount,compress-force=zlib /mnt/base
	(cd "$REF" && cp -a . /mnt/base/)
	umount /mnt/base
	siblings btrfs
	same /mnt/a/text "$REF/text"
	receive b text 0
	same_files
}

# Never written; with compression it is a case of the suite filesystems.
erofs() {
	has erofs
	pool_up 128
	on_exit all_down
	thin_new base 64
	mkfs.erofs --quiet /dev/mapper/t-base "$REF" >/dev/null
	siblings erofs
	same /mnt/a/file "$REF/file"
	receive b file 1024..
	same_files
}

random_file file 1M
seq 1 150000 >"$REF/text"
for ((i = 0; i < 60; i++)); do
	random_file tree/$((i % 7))/$i $((i * i * 23))
done

run_case "btrfs" written_and_read btrfs
run_case "btrfs: compressed" compressed
run_case "f2fs" written_and_read f2fs
run_case "erofs" erofs
finish
