#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# SHORT: uml
#
# Metadata of file systems: what one container has read of it is kept for the next, since the file system changes
# its own copy, or has it in memory that is no page cache.

# shellcheck source=tools/testing/lib.sh
. "${0%/*}/../lib.sh"

# up KIND: a pool with an image that has some directories.
up() {
	local i
	local mib=64
	[ "$1" != xfs ] || mib=320
	pool_up $((mib * 3 / 2))
	on_exit all_down
	thin_new base $mib
	fs_make "$1" /dev/mapper/t-base
	fs_mount "$1" base /dev/mapper/t-base
	for ((i = 0; i < 200; i++)); do
		mkdir "/mnt/base/dir$i"
		echo "$i" >"/mnt/base/dir$i/file"
	done
	umount /mnt/base
}

# container KIND NAME [FEATURE...]: mounted as runtimes do, with access times.
container() {
	ATIME=relatime container_up "$1" "$2" base "${@:3}"
	(cd "/mnt/$2" && find . -type f -print0 | sort -z | xargs -0 tail -n +1) >"$WORK/$2"
}

# sectors_of COMMAND...: read from the pool's data disk meanwhile.
sectors_of() {
	local before
	before=$(disk_sectors_read)
	"$@"
	SECTORS=$(($(disk_sectors_read) - before))
}

# The second container's inode blocks are the image's, though the first has changed each of its own.
served_when_modified() {
	up "$1"
	sectors_of container "$1" one
	local first=$SECTORS
	sectors_of container "$1" two
	echo "the first read $first sectors, the second $SECTORS"
	same "$WORK/one" "$WORK/two"
	# xfs looks for the end of its log, which isn't shared, when it is mounted
	expect_drr "sectors that the second read from the disk" "$SECTORS" "..$((first / $2))"
	expect_drr "pages that are kept" "$(stat_of two meta_cache_pages)" 10..
	expect_drr "sectors of metadata served" "$(stat_of two meta_hit_sectors)" "80.."
	expect_drr "sectors of metadata read" "$(stat_of two meta_read_sectors)" \
		"$(stat_of two meta_hit_sectors).."
	# superblocks are parts of pages
	expect_drr "sectors by donor" "$(stat_of two from | tr ',' '\n' | awk -F : '{ sum += $2 } END { print sum }')" \
		"$(stat_of two hit_sectors)"
}

# It outlives the container that has read it, and what it was read with.
served_when_the_reader_is_gone() {
	up ext4
	container_up ext4 other base
	umount /mnt/other
	container ext4 one
	container_down one
	dmsetup message pool 0 "delete $(thin_id one)"
	echo "kept: $(stat_of other meta_cache_pages) pages"
	container ext4 two
	same "$WORK/one" "$WORK/two"
	expect_drr "sectors of metadata served" "$(stat_of two meta_hit_sectors)" 80..
	expect_drr "sectors of metadata from the disk" \
		$(($(stat_of two meta_read_sectors) - $(stat_of two meta_hit_sectors))) ..160
}

switched_off() {
	up ext4
	container ext4 one no_meta_cache
	expect_drr "pages that are kept" "$(stat_of one meta_cache_pages)" 0
	container ext4 two no_donate
	expect_drr "pages that are kept" "$(stat_of two meta_cache_pages)" 0
	same "$WORK/one" "$WORK/two"
}

dropped_with_other_caches() {
	up ext4
	container ext4 one
	expect_drr "pages that are kept" "$(stat_of one meta_cache_pages)" 10..
	umount /mnt/one
	echo 1 >/proc/sys/vm/drop_caches
	expect_drr "pages that are kept" "$(stat_of one meta_cache_pages)" 0
	expect_drr "pages on record" "$(tracked)" 0
}

# A reader that is served nothing reads all of it from the disk again, which must not push out what is kept.
kept_once() {
	local before
	up ext4
	container ext4 one
	container ext4 two
	before=$(stat_of one meta_cache_pages)
	container ext4 three no_receive
	expect_drr "sectors served to the third" "$(stat_of three hit_sectors)" 0
	expect_drr "pages that are kept" "$(stat_of one meta_cache_pages)" "$before..$((before + before / 10))"
	same "$WORK/one" "$WORK/three"
}

# Inodes of twice as many blocks as may be kept.
limited() {
	local limit files
	limit=$(awk '/^MemTotal:/ { print int($2 / 4 / 1024) }' /proc/meminfo)
	files=$((limit * 2 * 16))
	pool_up 256
	on_exit all_down
	thin_new base 192
	mkfs.ext4 -q -F -b 4096 -N $((files + 1024)) -J size=4 -E lazy_itable_init=0,nodiscard /dev/mapper/t-base
	fs_mount ext4 base /dev/mapper/t-base
	(mkdir /mnt/base/many && cd /mnt/base/many && seq $files | xargs touch)
	umount /mnt/base
	container_up ext4 one base
	find /mnt/one -type f -newer /mnt/one >/dev/null
	expect_drr "sectors read" "$(stat_of one read_sectors)" $((limit * 8))..
	expect_drr "pages that are kept" "$(stat_of one meta_cache_pages)" "$((limit / 2))..$((limit + 64))"
}

run_case "ext4: modified by its reader" served_when_modified ext4 8
run_case "xfs: no page cache" served_when_modified xfs 3
run_case "the reader is gone" served_when_the_reader_is_gone
run_case "switched off" switched_off
run_case "kept once" kept_once
run_case "dropped with other caches" dropped_with_other_caches
run_case "no more than their share of memory" limited
finish
