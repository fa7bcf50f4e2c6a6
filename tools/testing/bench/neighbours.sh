#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# Parts of the benchmark that are about others: what a container gets while one on another pool is throttled, and
# what things cost where there are many devices. Sourced by bench.sh.

CTL=/drr/bin/drrctl

# shellcheck source=tools/testing/pool2.sh
. /drr/pool2.sh

# target VARIANT: what $DRR is for that.
target() { if [ "$1" = drr ]; then echo drr; else echo none; fi; }

# A sibling on a pool may write 256 KiB/s to its disk, and 64 writes of its are under way all the time. The other's
# device is on another pool, through drr or dm-linear as the sibling's is.
part_neighbours() {
	local variant number
	disk ram
	number=$(<"/sys/block/$DATA_DISK/dev")
	mountpoint -q "$GROUPS_DIR" || mount -t cgroup2 cgroup2 "$GROUPS_DIR"
	echo "+io" >"$GROUPS_DIR/cgroup.subtree_control"
	mkdir -p "$GROUPS_DIR/throttled"
	thin_new raw 32
	head -c 32M /dev/urandom >/dev/mapper/t-raw
	sync
	modprobe -q null_blk nr_devices=0 || true
	pool2_up 600
	pool2_new 1
	for variant in $(in_turn drr linear); do
		beside_throttled "$variant" "$number"
	done
	pool2_down
	thin_delete raw
	rmdir "$GROUPS_DIR/throttled"
}

# beside_throttled VARIANT DISK
beside_throttled() {
	local name writers
	for name in donor throttled; do
		thin_snap $name raw
		DRR=$(target "$1") drr_new $name
	done
	DRR=$(target "$1") pool2_top other 1 512
	exec {HELD}</dev/mapper/donor
	cat <&$HELD >/dev/null
	echo "$2 wbps=262144" >"$GROUPS_DIR/throttled/io.max"
	(exec {HELD}<&-
		in_group throttled exec fio --name=w --filename=/dev/mapper/throttled --rw=randwrite --bs=4k --direct=1 \
			--ioengine=io_uring --iodepth=64 --time_based --runtime=60 --thread --randseed="$ROUND" \
			>/dev/null 2>&1) &
	writers=$!
	sleep 1
	fio --output-format=json --name=o --filename=/dev/mapper/other --rw=write --bs=64k --direct=1 \
		--time_based --runtime=5 --thread >/tmp/fio.json
	sample neighbours.write "$1" "$(jq -r '.jobs[0].write.bw_bytes / 1048576' /tmp/fio.json)"
	sample neighbours.p999 "$1" \
		"$(jq -r '.jobs[0].write.clat_ns.percentile["99.900000"] / 1000' /tmp/fio.json)"
	echo "$2 wbps=max" >"$GROUPS_DIR/throttled/io.max"
	kill $writers
	wait $writers 2>/dev/null || true
	exec {HELD}<&-
	dm_remove other
	dm_remove p2-other
	for name in donor throttled; do
		dm_remove $name
		thin_delete $name
	done
}

IDS=2000
GROWN=(1 10 100 300)

# Where there are that many active devices, and 2,000 thin ids, of one image.
part_growth() {
	local id count turn opened=0
	disk ram
	modprobe -q null_blk nr_devices=0 || true
	pool2_up 128
	pool2_new 0
	pool2_thin image 0 32
	head -c 32M /dev/urandom >/dev/mapper/p2-image
	dm_remove p2-image
	for ((id = 1; id <= IDS; id++)); do
		pool2_snap $id 0
	done
	pool2_top reader $IDS 32
	for count in "${GROWN[@]}"; do
		for ((; opened < count; opened++)); do
			pool2_top "grown$opened" $((opened + 1)) 32
		done
		exec {HELD}</dev/mapper/grown0
		cat <&$HELD >/dev/null
		for turn in 1 2 3 4 5; do
			TURN=$ROUND.$turn growth "$count" $((IDS - turn))
		done
		exec {HELD}<&-
	done
	pool2_down
}

# growth COUNT ID: an ID that no device of drr's has.
growth() {
	local id=$2 reader
	pool2_thin more "$id" 32
	sample growth.attach "$1" "$(seconds_of "$CTL" attach p2-more)"
	sample growth.remove "$1" "$(seconds_of dmsetup remove p2-more)"
	sample growth.delete "$1" "$(seconds_of dmsetup message pool2 0 "delete $id")"
	pool2_snap "$id" 0
	sample growth.hit "$1" "$(seconds_of dd if=/dev/mapper/reader bs=1M iflag=direct status=none)"
	exec {reader}</dev/mapper/reader
	cat <&"$reader" >/dev/null
	sample growth.evict "$1" "$(seconds_of evict /dev/mapper/reader)"
	exec {reader}<&-
	sample growth.list "$1" "$(seconds_of "$CTL" list)"
	sample growth.layers "$1" "$(seconds_of "$CTL" layers pool2)"
	sample growth.export "$1" "$(seconds_of "$CTL" export --textfile /tmp/growth.prom)"
}
