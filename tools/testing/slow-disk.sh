#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# Disks for the benchmarks and the demo, sourced in the guest, after pool.sh: RAM disks that the module drr-disk
# makes as slow as a disk.

# disk_table PROFILE DEVICE [TIMES]: a table for the whole of that RAM disk: `ram` as fast as it is, `ssd` and `hdd`
# as fast as such a disk, or that many times as slow.
disk_table() {
	local total
	total=$(sectors "$2")
	case $1 in
	ram) echo "0 $total linear $2 0" ;;
	ssd) slow_table "$total" "$2" 840000000 80 0 "${3:-1}" ;;
	hdd) slow_table "$total" "$2" 120000000 100 8000 "${3:-1}" ;;
	esac
}

# slow_table SECTORS DEVICE BYTES_PER_SECOND LATENCY_US SEEK_US TIMES
slow_table() {
	echo "$@" | awk '{ printf "0 %d drr-disk %s %d %d %d\n", $1, $2, $3 / $6, $4 * $6, $5 * $6 }'
}
