#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# What the demo's scripts share, to be sourced by them in the guest: figures for the report, and
# a disk that is slow for the containers alone. The figures go to /out/facts.tsv, as lines of
# tab-separated words.
#
# The disk is RAM, throttled by the block layer for the containers' control group alone,
# so that making the image takes no longer than it must.

# A hard disk's share of a cached read: 120 MB/s of 2.5 GB/s.
DISK_PER_MILLE=48
DRR=drr
FACTS=/out/facts.tsv
GROUP=/sys/fs/cgroup/containers

# shellcheck source=tools/testing/pool.sh
. /drr/pool.sh

flunk() {
	echo "dm-drr: demo: $* : see build/out/demo" >&2
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

# disk_bytes: read from the pool's data disk since it was made.
disk_bytes() {
	local fields
	read -r -a fields <"/sys/block/$DATA_DISK/stat"
	echo $((fields[2] * 512))
}

# drr_status NAME WORD: a value of a drr device's status line.
drr_status() { dmsetup status "$1" | grep -o " $2=[^ ]*" | cut -d= -f2; }

# --- the disk --------------------------------------------------------------------------

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

# throttle BYTES_PER_SECOND: what the containers, together, may read from the disk.
throttle() {
	mountpoint -q /sys/fs/cgroup || mount -t cgroup2 cgroup2 /sys/fs/cgroup
	echo +io >/sys/fs/cgroup/cgroup.subtree_control
	mkdir "$GROUP"
	echo "$(<"/sys/block/$DATA_DISK/dev") rbps=$1" >"$GROUP/io.max"
}

# Moves this subshell into the containers' control group.
join_containers() { echo "$BASHPID" >"$GROUP/cgroup.procs"; }

# in_container COMMAND...: in the containers' control group.
in_container() { (join_containers && exec "$@"); }

# Files only: the pool's metadata stays in memory, as on any machine that is in use.
forget_files() {
	sync
	echo 1 >/proc/sys/vm/drop_caches
}

# note_machine: what this runs on.
note_machine() {
	note fact kernel "$(uname -r)"
	note fact emulated "$(grep -c 'model name.*TCG' /proc/cpuinfo || true)"
}

# measure_machine FILE: how fast the page cache is, and from that how fast the disk may be.
measure_machine() {
	local bytes ns wanted count
	bytes=$(stat -c %s "$1")
	ns=$(cached_rate_ns "$1")
	note fact pagecache_mib_per_s "$(rate "$bytes" "$ns")"
	echo "  page cache $(rate "$bytes" "$ns") MiB/s, the best of 4 reads of that file"
	wanted=$(awk -v b="$bytes" -v ns="$ns" -v share=$DISK_PER_MILLE \
		'BEGIN { printf "%.0f", b / (ns / 1e9) * share / 1000 }')
	throttle "$wanted"
	count=$((wanted * 3 / 1048576))
	ns=$(nanoseconds_of in_container dd if="/dev/$DATA_DISK" of=/dev/null bs=1M count=$count)
	note fact disk_mib_per_s "$(rate $((count * 1048576)) "$ns")"
	echo "  disk $(rate $((count * 1048576)) "$ns") MiB/s, throttled"
}
