#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# One half of a pair for scripts/compare.sh, in the guest of one of two modules: times of hits, and processor time of
# misses. Prints lines "WHAT VALUE"; less is better.

set -eEuo pipefail

DRR=drr
REF=/tmp/ref	# reference files, for pool.sh
IO=/drr/bin/bench-io
MIB=128
MISSES=8

# shellcheck source=tools/testing/pool.sh
. /drr/pool.sh
# shellcheck source=tools/testing/bench/measure.sh
. /drr/bench/measure.sh

flunk() {
	echo "dm-drr: pair: $*" >&2
	exit 1
}

trap '((BASH_SUBSHELL)) || flunk "failed in line $LINENO, $BASH_COMMAND"' ERR

# median: of lines of numbers.
median() { sort -n | awk '{ value[NR] = $1 } END { print value[int((NR + 1) / 2)] }'; }

main() {
	local name before turn
	random_file big ${MIB}M
	pool_up 512
	modprobe dm-drr
	image_new ext4 base 300 big
	for name in it other; do
		container_up ext4 $name base
		xfs_io -r -c fiemap /mnt/$name/big >/dev/null
	done
	before=$(cpu_ticks)
	for ((turn = 0; turn < MISSES; turn++)); do
		evict /mnt/it/big
		$IO read /mnt/it/big $MIB >/dev/null
	done
	echo "miss.cpu_ticks $(($(cpu_ticks) - before))"
	evict /mnt/it/big
	cat /mnt/other/big >/dev/null
	echo "hit.read_ns $(for ((turn = 0; turn < 9; turn++)); do
		evict /mnt/it/big
		$IO read /mnt/it/big $MIB
	done | median)"
	evict /mnt/it/big
	echo "hit.randread_ns $(for ((turn = 0; turn < 9; turn++)); do
		BENCH_IO_DIRECT=1 $IO randread /mnt/it/big 32
	done | median)"
}

main
