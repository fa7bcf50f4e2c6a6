#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# What file systems do to the pages that they read: whoever is served gets what is on the disk.

# shellcheck source=tools/testing/lib.sh
. "${0%/*}/../lib.sh"

# Blocks smaller than a page: a page donates if one request reads it as a whole, and from a whole page of the
# data block; ext4 places files at any of its own blocks.
one_kib_blocks() {
	pool_up 256
	on_exit all_down
	image_new ext4-1k base 64
	container_up ext4-1k a base paranoid
	container_up ext4-1k b base paranoid
	same /mnt/a/file "$REF/file"
	receive b file "$1"
	truncate -s 500100 /mnt/a/file
	evict /mnt/b/file
	receive b file any
	same /mnt/b/file "$REF/file"
}

# The same for xfs.
one_kib_blocks_xfs() {
	pool_up 512
	on_exit all_down
	image_new xfs-1k base 320
	container_up xfs-1k a base paranoid
	container_up xfs-1k b base paranoid
	same /mnt/a/file "$REF/file"
	receive b file "$1"
}

# A file's page holds plain text, its block holds cipher text.
fscrypt_file() {
	local key id before
	key=$(printf '\\x%02x' {1..64})
	pool_up 256
	on_exit all_down
	thin_new base 64
	fs_make ext4-crypt /dev/mapper/t-base
	fs_mount ext4-crypt base /dev/mapper/t-base
	id=$(fs_key base "$key")
	mkdir /mnt/base/secret
	xfs_io -c "set_encpolicy -v 2 $id" /mnt/base/secret || skip "no fscrypt here"
	cp "$REF/file" /mnt/base/secret/file || skip "no cipher for fscrypt here"
	cp "$REF/file" /mnt/base/public
	umount /mnt/base
	for name in a b; do
		container_up ext4-crypt $name base paranoid
		fs_key $name "$key" >/dev/null
	done
	same /mnt/a/secret/file "$REF/file"
	receive b secret/file 0
	# The unencrypted neighbour donates as usual, also to a reader without the key.
	donate a public 256
	receive b public 2048
	# A raw reader of the same blocks gets cipher text.
	container_down b
	drr_new2 b
	before=$(stat_of b hit_sectors)
	dd if=/dev/mapper/b of="$WORK/raw" bs=1M iflag=direct status=none
	dd if=/dev/mapper/t-b of="$WORK/thin" bs=1M iflag=direct status=none
	same "$WORK/raw" "$WORK/thin"
	expect_drr "sectors served raw" $(($(stat_of b hit_sectors) - before)) any
}

# drr_new2 NAME: thin and drr device of a container that was taken down.
drr_new2() {
	thin_open "$1"
	drr_new "$1" paranoid
}

# fs_key NAME KEY: gives a mounted file system the key; prints the key's id.
fs_key() {
	printf '%b' "$2" | xfs_io -c add_enckey "/mnt/$1" | sed -n 's/.*identifier \([0-9a-f]*\).*/\1/p'
}

# A file's page holds plain text; its blocks hold less, which is read into memory that is no file's, or decompressed
# in the page.
erofs_compressed() {
	modprobe -q erofs || true	# built in, in some kernels
	grep -qw erofs /proc/filesystems || skip "no erofs in this kernel"
	pool_up 128
	on_exit all_down
	thin_new base 64
	mkfs.erofs --quiet -zlz4 /dev/mapper/t-base "$REF" >/dev/null
	for name in a b; do
		container_up erofs $name base paranoid
	done
	same /mnt/a/text "$REF/text"
	receive b text 0
	diff -r --no-dereference "/mnt/b/tree" "$REF/tree"
}

# Overlayfs, as container engines mount it: the pages are the lower file system's.
overlay_above() {
	pool_up 256
	on_exit "umount /mnt/over-a /mnt/over-b; all_down"
	image_new ext4 base 64
	for name in a b; do
		container_up ext4 $name base paranoid
		mkdir -p /mnt/over-$name /mnt/$name/upper /mnt/$name/work /mnt/$name/lower
		mv /mnt/$name/file /mnt/$name/lower/
		sync -f /mnt/$name
		mount -t overlay -o \
			lowerdir=/mnt/$name/lower,upperdir=/mnt/$name/upper,workdir=/mnt/$name/work \
			overlay /mnt/over-$name
	done
	same /mnt/over-a/file "$REF/file"
	expect_drr "pages to donate below overlayfs" "$(tracked)" 256..
	same /mnt/over-b/file "$REF/file"
	expect_drr "sectors served below overlayfs" "$(stat_of b hit_sectors)" 2048..
	# A copy-up in one is its own.
	xfs_io -c "pwrite -q -S 0x42 0 64k" -c fsync /mnt/over-a/file
	evict /mnt/b/lower/file
	same /mnt/over-b/file "$REF/file"
}

# A loop device on a file in the container: its pages are the container's file's.
loop_above() {
	local fs=$1 loop
	pool_up 512
	on_exit all_down
	image_new "$fs" base 320
	container_up "$fs" a base paranoid
	container_up "$fs" b base paranoid
	modprobe loop
	loop=$(losetup -f --show -r /mnt/a/file)
	on_exit "losetup -d $loop; wait_for 5 loop_free $loop"
	same "$loop" "$REF/file"
	receive b file 0..2048
	losetup -d "$loop"
}

loop_free() { ! losetup "$1" >/dev/null 2>&1; }

# Small inodes with data inside, tails, a directory tree: everything a system image has.
tree() {
	local fs=$1 name
	pool_up 512
	on_exit all_down
	image_new "$fs" base 320
	for name in a b c; do
		container_up "$fs" $name base paranoid
	done
	for name in a b c; do
		diff -r --no-dereference "/mnt/$name/tree" "$REF/tree"
	done
	expect_drr "sectors served" "$(stat_of c hit_sectors)" 1..
}

random_file file 1M
seq 1 150000 >"$REF/text"
mkdir -p "$REF/secret"
cp "$REF/file" "$REF/secret/file"
cp "$REF/file" "$REF/public"
for ((i = 0; i < 60; i++)); do
	random_file tree/$((i % 7))/$i $((i * i * 23))
done
ln -s 7/nowhere "$REF/tree/link"

run_case "ext4: 1 KiB blocks" one_kib_blocks any
run_case "xfs: 1 KiB blocks" one_kib_blocks_xfs 1024..
run_case "ext4: fscrypt files never match" fscrypt_file
run_case "erofs: compressed files never match" erofs_compressed
run_case "ext4: overlayfs above" overlay_above
for fs in ext4 xfs; do
	run_case "$fs: loop device on a container's file" loop_above $fs
	run_case "$fs: a tree of files of all sizes" tree $fs
done
finish
