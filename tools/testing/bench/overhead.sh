#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# Parts of the benchmark that are about a few per cent: what DRR costs where it can't help. Sourced by
# bench.sh.
#
# A thin device, its file, and so the blocks on the disk are the same for all variants: it is mounted
# directly, through drr, and through dm-linear and samples/passthrough.rs, which do nothing, in turn,
# and back in the other order; TURNS times in a round. Each turn makes a ratio, and the key is the median of them all.

TURNS=2
VARIANTS=(thin drr linear passthrough)

# in_turns FUNCTION [ARG]...: FUNCTION VARIANT ARG..., TURNS times for each of the variants.
in_turns() {
	local turn variant
	for ((turn = 1; turn <= TURNS; turn++)); do
		for variant in $(in_order $((ROUND + turn)) "${VARIANTS[@]}"); do
			TURN=$ROUND.$turn "$1" "$variant" "${@:2}"
		done
	done
}

# Nobody has the file in memory.
part_miss() {
	local profile
	all_cold
	thin_snap m base
	for profile in ram ssd hdd; do
		disk $profile
		in_turns miss $profile
	done
	disk ram
	thin_delete m
}

# miss VARIANT PROFILE
miss() {
	local file=/mnt/m/big loops=4 mib=24
	if [ "$2" = hdd ]; then
		loops=1 mib=1
	fi
	container_mount m "$1"
	quiet
	# every loop opens the file anew, and so begins cold
	sample "miss.$2.seq" "$1" "$(throughput --rw=read --bs=1M --loops=$loops --name=job \
		--filename=$file)"
	evict $file
	quiet
	sample "miss.$2.random" "$1" "$(random_reads $mib buffered $file)"
	container_unmount m
}

# There is nothing to share: a file that the container has written itself.
part_unshared() {
	disk ram
	thin_snap u base
	container_mount u thin
	head -c 64M /dev/urandom >/mnt/u/own
	container_unmount u
	in_turns unshared
	thin_delete u
}

# unshared VARIANT
unshared() {
	container_mount u "$1" own
	own_file "$1" read 1M 64M --loops=8
	own_file "$1" randread 4k 48M --direct=1
	own_file "$1" write 1M 512M --direct=1
	own_file "$1" randwrite 4k 48M --direct=1
	container_unmount u
}

# own_file VARIANT READ_OR_WRITE BLOCK_SIZE AMOUNT [OPTION]...: the throughput with that.
own_file() {
	quiet
	sample "unshared.$2" "$1" "$(throughput --rw="$2" --bs="$3" --size=64M --io_size="$4" \
		--randseed="$ROUND" "${@:5}" --name=job --filename=/mnt/u/own)"
}

# A file system that has nothing to do with it: pages added, dirtied and removed, with the module
# loaded and without.
part_bystander() {
	local turn variant
	for ((turn = 1; turn <= TURNS; turn++)); do
		for variant in $(in_order $((ROUND + turn)) without with); do
			if [ "$variant" = with ]; then
				modprobe dm-drr
			else
				modprobe -r dm-drr
			fi
			quiet
			TURN=$ROUND.$turn sample bystander "$variant" "$(seconds_of churn)"
		done
	done
}

churn() {
	for _ in 1 2 3; do
		evict /mnt/plain/big
		cat /mnt/plain/big >/dev/null
		head -c 100M /dev/zero >/mnt/plain/scratch
		: >/mnt/plain/scratch
	done
}
