#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# SHORT: uml
#
# One container misbehaves, and what others get is watched.

# shellcheck source=tools/testing/lib.sh
. "${0%/*}/../lib.sh"

# container bad has NUMBER files that share the blocks of one, and keeps one page of each block of each file in
# memory: it reads another page first, so that the record that this makes is there when the page is added to it,
# and drops that again. Then the file is read by two others.
room_for_records() {
	local number=$1 n block commands=() before
	pool_up 512
	on_exit all_down
	image_new xfs image 320 shared
	for n in bad second third; do
		container_up xfs $n image
	done
	blockdev --setra 0 /dev/mapper/bad
	for ((block = 0; block < 16; block++)); do
		commands+=(-c "pread -q $((block * 65536 + 3 * 4096)) 4096"
			-c "pread -q $((block * 65536 + 6 * 4096)) 4096"
			-c "fadvise -d $((block * 65536 + 3 * 4096)) 4096")
	done
	for ((n = 0; n < number; n++)); do
		cp --reflink=always /mnt/bad/shared "/mnt/bad/clone$n"
	done
	sync -f /mnt/bad
	for ((n = 0; n < number; n++)); do
		xfs_io -r "${commands[@]}" "/mnt/bad/clone$n"
	done
	donate second shared
	receive third shared 1900..
}

random_file shared 1M
run_case "a few files that share their blocks" room_for_records 2
run_case "hundreds of files that share their blocks" room_for_records 300
finish
