#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# What the fault suites share, sourced after lib.sh: three siblings under load, and what has
# to hold of them when the fault is over. `a` and `b` compare every hit with the disk, `c`
# trusts; all three read the image's files and write files of their own.

SIBLINGS=(a b c)
FAULT_LOAD=${BASH_SOURCE[0]%/*}/../bin/fault-load
STATE=$WORK/load.state

# siblings_up KIND: three containers of `base`, until the case ends.
siblings_up() {
	on_exit siblings_away
	container_up "$1" a base paranoid
	container_up "$1" b base paranoid
	container_up "$1" c base
}

# siblings_away: for good, whatever state they are in.
siblings_away() {
	local name
	load_stop
	for name in "${SIBLINGS[@]}"; do
		[ -e "$THINS/$name" ] || continue
		unmount "$name"
		container_down "$name"
		thin_delete "$name"
		rm -f "$THINS/$name"
	done
}

# unmount NAME: also a file system that has shut down, of which mountpoint can't tell.
unmount() {
	! grep -q " /mnt/$1 " /proc/mounts || umount "/mnt/$1"
}

# siblings_end: the orderly end of a case; nothing may be remembered of them.
siblings_end() {
	local name
	for name in "${SIBLINGS[@]}"; do
		unmount "$name"
	done
	[ "$DRR" = none ] || records_gone
	siblings_away
}

# load_start: begins the load, and returns when faults may happen.
load_start() {
	rm -f "$STATE"*
	"$FAULT_LOAD" run "$RANDOM" "$STATE" "$REF" "${SIBLINGS[@]/#//mnt/}" >"$WORK/load.log" &
	LOAD=$!
	load_until ready
}

# load_promises_nothing: from now on, a successful fsync needn't mean that data is durable.
load_promises_nothing() {
	kill -USR1 "$LOAD"
}

# load_until WHAT...: waits for read_errors or write_errors of the load.
load_until() {
	local what
	for what; do
		wait_for 60 load_has "$what"
	done
	kill -0 "$LOAD" 2>/dev/null || flunk "the load has ended: $(cat "$WORK/load.log")"
}

load_has() {
	[ -e "$STATE.$1" ] || ! kill -0 "$LOAD" 2>/dev/null
}

# load_stop: of a case that has failed.
load_stop() {
	[ -z "${LOAD:-}" ] || kill -KILL "$LOAD" 2>/dev/null || true
	[ -z "${LOAD:-}" ] || wait "$LOAD" 2>/dev/null || true
	LOAD=
}

# load_end: ends the load. No byte was wrong, and no thread is stuck.
load_end() {
	kill "$LOAD" 2>/dev/null || true
	wait "$LOAD" || flunk "the load: $(cat "$WORK/load.log")"
	LOAD=
	cat "$WORK/load.log"
}

# check_siblings KIND: after the fault. The file systems are mounted anew, which replays their
# journals; then all files must be right, and the file systems be found clean.
check_siblings() {
	local name
	stats_sane
	for name in "${SIBLINGS[@]}"; do
		umount "/mnt/$name"
	done
	for name in "${SIBLINGS[@]}"; do
		fs_mount "$1" "$name"
	done
	check_content "$1"
}

# check_served: the siblings did serve each other, and their figures add up.
check_served() {
	local name sum=0
	[ "$DRR" != none ] || return 0
	stats_sane
	for name in "${SIBLINGS[@]}"; do
		figures_of "$name"
		sum=$((sum + FIGURES[hit_sectors]))
	done
	expect "sectors served" $sum 512..
}

# check_content KIND: all files are right, the siblings serve each other, and the file systems
# are clean. Unmounts them.
check_content() {
	local name file
	for name in "${SIBLINGS[@]}"; do
		for file in "$REF"/*; do
			same "/mnt/$name/${file##*/}" "$file"
		done
	done
	"$FAULT_LOAD" verify "$STATE" "${SIBLINGS[@]/#//mnt/}" || flunk "written files are wrong"
	for name in "${SIBLINGS[@]}"; do
		umount "/mnt/$name"
		fs_check "$1" "/dev/mapper/$name"
	done
	check_served
}

# fs_check KIND DEVICE: finds an unmounted file system without a fault.
fs_check() {
	case $1 in
	ext4*) e2fsck -fn "$2" ;;
	xfs*) xfs_repair -n "$2" ;;
	esac 2>&1 || flunk "$2 is damaged"
}

# figures_of NAME: the words of a sibling's status, in FIGURES. Without a process for each.
figures_of() {
	local word
	FIGURES=()
	for word in $(dmsetup status "$1"); do
		[[ $word != *=* ]] || FIGURES[${word%%=*}]=${word#*=}
	done
}
declare -A FIGURES=()

# stats_sane: with no read under way, the counters of each sibling add up.
stats_sane() {
	local name misses what entry from
	[ "$DRR" != none ] || return 0
	for name in "${SIBLINGS[@]}"; do
		figures_of "$name"
		misses=0
		for what in unshared metadata norecord changed stale layout left; do
			misses=$((misses + ${FIGURES[miss_$what]}))
		done
		expect "$name: hits and misses" $((FIGURES[hits] + misses)) \
			"${FIGURES[reads]}..${FIGURES[reads]}"
		from=0
		for entry in ${FIGURES[from]//,/ }; do
			[[ $entry == - ]] || from=$((from + ${entry#*:}))
		done
		expect "$name: sectors by donor" $from \
			"${FIGURES[hit_sectors]}..${FIGURES[hit_sectors]}"
		expect "$name: mismatches" "${FIGURES[mismatches]}" 0
	done
}
