#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# A second pool, on disks of its own, for suites that source lib.sh:
#
#   /dev/mapper/NAME     drr (dm-linear when DRR=none)
#   /dev/mapper/p2-NAME  thin
#   /dev/mapper/pool2    thin-pool
#   /dev/mapper/data2    dm-linear on the disk nullb2; the metadata is on nullb3

# pool2_up MIB [DATA_DEVICE]: on a RAM disk of that size, or on that device.
pool2_up() {
	local data=${2:-/dev/nullb2}
	[ $# -gt 1 ] || ram_disk nullb2 "$1"
	ram_disk nullb3 16
	dmsetup create data2 --table "0 $(sectors "$data") linear $data 0"
	dmsetup create pool2 --table "0 $(sectors "$data") thin-pool \
/dev/nullb3 /dev/mapper/data2 $BLOCK_SECTORS 0 1 skip_block_zeroing"
}

# pool2_new ID: a new thin device; pool2_snap ID ORIGIN: a snapshot of one that isn't active.
pool2_new() { dmsetup message pool2 0 "create_thin $1"; }
pool2_snap() { dmsetup message pool2 0 "create_snap $1 $2"; }

# pool2_thin NAME ID MIB, and with drr on it: pool2_top NAME ID MIB
pool2_thin() {
	dmsetup create "p2-$1" --table "0 $(($3 * 2048)) thin /dev/mapper/pool2 $2"
}
pool2_top() {
	pool2_thin "$@"
	if [ "$DRR" = none ]; then
		dmsetup create "$1" --table "0 $(($3 * 2048)) linear /dev/mapper/p2-$1 0"
	else
		dmsetup create "$1" --table "0 $(($3 * 2048)) drr /dev/mapper/p2-$1"
	fi
}

# pool2_down: whatever there is of it.
pool2_down() {
	local name
	while read -r name; do
		[ ! -e "/dev/mapper/${name#p2-}" ] || dm_remove "${name#p2-}"
		dm_remove "$name"
	done < <(dmsetup ls | cut -f1 | grep '^p2-' || true)
	[ ! -e /dev/mapper/pool2 ] || dm_remove pool2
	[ ! -e /dev/mapper/data2 ] || dm_remove data2
	for name in nullb2 nullb3; do
		if [ -d "/sys/kernel/config/nullb/$name" ]; then
			echo 0 >"/sys/kernel/config/nullb/$name/power"
			rmdir "/sys/kernel/config/nullb/$name"
		fi
	done
}
