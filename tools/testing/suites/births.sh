#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# SHORT: uml
# BUILD: mutants
#
# What a record is made of: the digest that it is born with is proven right for ever, so it has to be that of
# the block. Each case would have another one taken.

# shellcheck source=tools/testing/lib.sh
. "${0%/*}/../lib.sh"

MIB=8

# siblings: two raw devices of random data.
siblings() {
	local name
	pool_up 64
	on_exit 'exec 7<&- 8<&-; all_down'
	thin_new base $MIB
	dd if=/dev/urandom of=/dev/mapper/t-base bs=1M count=$MIB oflag=direct iflag=fullblock status=none
	for name in one two; do
		thin_snap $name base
		drr_new $name
	done
}

# gets_the_blocks: the second sibling reads all of its device, served or not.
gets_the_blocks() {
	dd if=/dev/mapper/two of="$WORK/drr" bs=64k iflag=direct status=none
	dd if=/dev/mapper/t-base of="$WORK/thin" bs=64k iflag=direct status=none
	same "$WORK/drr" "$WORK/thin"
}

# A direct read goes to mapped pages of a file, which another thread overwrites meanwhile. The file system is
# one that reads folios: only what the pages are used for tells that they are no record's.
memory_that_others_write_to() {
	siblings
	mkdir -p /mnt/ram
	mount -t ramfs ramfs /mnt/ram
	on_exit "umount /mnt/ram"
	truncate -s ${MIB}M /mnt/ram/file
	"${HELPER%/*}/drr-scribble" /dev/mapper/one /mnt/ram/file $((MIB * 16)) >"$WORK/scribble" &
	on_exit "kill $!; wait $! 2>/dev/null"
	wait_for 30 grep -q scribbled "$WORK/scribble"
	expect "sectors on record" "$(stat_of one recorded_sectors)" 0
	gets_the_blocks
}

# A target above begins in the middle of a page: each page of its page cache has parts of two pages of a block.
starts_in_the_middle_of_a_page() {
	siblings
	dmsetup create above --table "0 $((MIB * 2048 - 8)) linear /dev/mapper/one 1"
	on_exit "exec 7<&-; dm_remove above"
	exec 7</dev/mapper/above
	dd if=/dev/mapper/above of=/dev/null bs=64k status=none
	expect "sectors on record" "$(stat_of one recorded_sectors)" 0
	gets_the_blocks
	# pieces of pages are served all the same, of a sibling's that are on record
	exec 8</dev/mapper/two
	dd if=/dev/mapper/two of=/dev/null bs=64k status=none
	dd if=/dev/mapper/above of="$WORK/drr" bs=64k iflag=direct count=64 status=none
	dd if=/dev/mapper/t-base of="$WORK/thin" bs=64k iflag=direct,skip_bytes,count_bytes skip=512 \
		count=$((64 * 65536)) status=none
	same "$WORK/drr" "$WORK/thin"
	expect "sectors served" "$(stat_of one hit_sectors)" 4096..
}

run_case "memory that others write to" memory_that_others_write_to
run_case "a target that starts in the middle of a page" starts_in_the_middle_of_a_page
finish
