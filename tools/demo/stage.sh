#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# What the demo's scripts share, to be sourced by them in the guest: figures for the reports, and
# a disk that is as slow as a hard disk. The figures go to /out/facts.tsv, as lines of
# tab-separated words.
#
# The disk is RAM, and is slow while containers are measured. Where the CPU is emulated, memory is
# slower than a real machine's; there, the disk is slowed as much.

# A real machine's page cache, in bytes a second: what an emulated one is compared with.
MACHINE_RATE=2500000000
DRR=drr
FACTS=/out/facts.tsv

# shellcheck source=tools/testing/pool.sh
. /drr/pool.sh
# shellcheck source=tools/testing/slow-disk.sh
. /drr/slow-disk.sh
# shellcheck source=tools/testing/bench/measure.sh
. /drr/bench/measure.sh

flunk() {
	echo "dm-drr: demo: $*" >&2
	exit 1
}

trap '((BASH_SUBSHELL)) || flunk "failed in line $LINENO, $BASH_COMMAND"' ERR

# --- figures -------------------------------------------------------------------------

# note WORD...: one line for the report.
note() { (IFS=$'\t'; printf '%s\n' "$*") >>"$FACTS"; }

# rate BYTES NANOSECONDS: in MiB/s.
rate() { awk -v b="$1" -v ns="$2" 'BEGIN { printf "%.1f", b / 1048576 / (ns / 1e9) }'; }

# seconds NANOSECONDS
seconds() { awk -v ns="$1" 'BEGIN { printf "%.2f", ns / 1e9 }'; }

# nanoseconds_of COMMAND...: what dd says that a copy took. It is dd's own clock, so that
# starting dd does not count.
nanoseconds_of() {
	"$@" 2>&1 >/dev/null | awk '/copied,/ { sub(/.*copied, /, ""); printf "%.0f", $1 * 1e9 }'
}

# disk_bytes DISK: read from it since it was made.
disk_bytes() {
	local fields
	read -r -a fields <"/sys/block/$1/stat"
	echo $((fields[2] * 512))
}

# drr_status NAME WORD: a value of a drr device's status line.
drr_status() { dmsetup status "$1" | grep -o " $2=[^ ]*" | cut -d= -f2; }

# --- the disk --------------------------------------------------------------------------

# slow: the pool's data is on a hard disk from now on; fast: it is in RAM again.
slow() { data_table "$(disk_table hdd "/dev/$DATA_DISK" "$TIMES")"; }
fast() { data_healthy; }

# cached_rate_ns FILE: nanoseconds for reading a file from the page cache, at best.
cached_rate_ns() {
	local best=0 ns
	for _ in 1 2 3 4; do
		ns=$(nanoseconds_of dd if="$1" of=/dev/null bs=1M)
		if ((best == 0 || ns < best)); then
			best=$ns
		fi
	done
	echo "$best"
}

# Files only: the pool's metadata stays in memory, as on any machine that is in use.
forget_files() {
	sync
	echo 1 >/proc/sys/vm/drop_caches
}

# machine: what this runs on: uml, an emulated CPU (tcg), or a real one (cpu).
machine() {
	if grep -q '^vendor_id.*User Mode Linux' /proc/cpuinfo; then
		echo uml
	elif grep -q 'model name.*TCG' /proc/cpuinfo; then
		echo tcg
	else
		echo cpu
	fi
}

# stage_up MIB: a pool on a disk of that size, and all that is measured with.
stage_up() {
	[ "$(machine)" != uml ] || touch_memory
	modprobe dm-drr
	modprobe drr-disk
	pool_up "$1"
}

# measure_machine FILE: how fast the page cache is, and how many TIMES as slow as a real one the disk is to be;
# then how fast that is.
measure_machine() {
	local bytes ns count
	bytes=$(stat -c %s "$1")
	ns=$(cached_rate_ns "$1")
	note fact kernel "$(uname -r)"
	note fact machine "$(machine)"
	note fact pagecache_mib_per_s "$(rate "$bytes" "$ns")"
	echo "  page cache $(rate "$bytes" "$ns") MiB/s, the best of 4 reads of that file"
	TIMES=1
	[ "$(machine)" != tcg ] || TIMES=$(awk -v b="$bytes" -v ns="$ns" -v real=$MACHINE_RATE '
		BEGIN { times = real / (b / (ns / 1e9)); printf "%.1f", times < 1 ? 1 : times }')
	note fact slower "$TIMES"
	slow
	count=$(awk -v times="$TIMES" 'BEGIN { printf "%d", 120 / times + 1 }')
	ns=$(nanoseconds_of dd if=/dev/mapper/data of=/dev/null bs=1M count="$count" iflag=direct)
	fast
	note fact disk_mib_per_s "$(rate $((count << 20)) "$ns")"
	echo "  disk $(rate $((count << 20)) "$ns") MiB/s, and a seek takes $(awk -v times="$TIMES" \
		'BEGIN { printf "%d", 8 * times }') ms: a hard disk's"
}
