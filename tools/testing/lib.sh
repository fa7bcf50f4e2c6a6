#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# What every guest suite shares: TAP output, expectations, and counters.
# Devices and file systems are made by pool.sh, which this file sources.
#
# A suite is one boot of the guest. It calls run_case for each case; a case is a
# function that runs in a subshell of its own, so that `flunk` ends only it.
#
# DRR=none uses plain dm-linear in drr's place and skips what only drr can show: for
# trying a suite's own logic, and for seeing that the data is right without DRR. LINEAR=passthrough
# takes the target of samples/ for dm-linear.

set -euo pipefail

DRR=${DRR:-drr}
LINEAR=${LINEAR:-linear}
SUITE=$(basename "$0" .sh)
WORK=/tmp/drr
REF=$WORK/ref
LOG=$WORK/case.log
declare -i CASES=0 FAILED=0

export DM_DISABLE_UDEV=1

mkdir -p "$WORK" "$REF"
[ -e /dev/fd ] || ln -s /proc/self/fd /dev/fd

# shellcheck source=tools/testing/pool.sh
. "${BASH_SOURCE[0]%/*}/pool.sh"

# shellcheck disable=SC2034 # for the suites
HELPER=${BASH_SOURCE[0]%/*}/bin/drr-helper

# --- TAP -----------------------------------------------------------------------------

# say TEXT: a TAP comment.
say() { printf '# %s\n' "$*"; }

# flunk TEXT: ends the running case as failed.
flunk() {
	printf 'FAILED: %s\n' "$*"
	devices_now
	exit 1
}

# devices_now: all devices' tables and status, once a case: before what it has made is taken down.
devices_now() {
	[ ! -e "$WORK/seen" ] || return 0
	touch "$WORK/seen"
	echo "--- dmsetup table"
	dmsetup table
	echo "--- dmsetup status"
	dmsetup status --noflush
}

# skip TEXT: ends the running case as not applicable here.
skip() {
	printf 'SKIP: %s\n' "$*"
	exit 77
}

# The command of a case that failed, and where: for a command that says nothing of its own. What fails in a subshell
# fails its command, too, and what a substitution prints is its value.
failed_in() {
	((BASH_SUBSHELL == CASE_LEVEL)) || return 0
	trap - ERR
	printf 'FAILED: %s:%s: %s (status %s)\n' "${BASH_SOURCE[1]##*/}" "${BASH_LINENO[0]}" "$2" "$1"
	devices_now
}

# mark TEXT: a line in the kernel log (not on the console), so that what follows has an owner.
mark() { printf '<7>drr-test: %s\n' "$*" >/dev/kmsg; }

# kernel_log: what the kernel has said since the last mark.
kernel_log() {
	dmesg | awk '/drr-test: / { text = ""; next } { text = text $0 "\n" } END { printf "%s", text }' | tail -n 60
}

# on_exit COMMAND: run when the case ends, newest first.
ON_EXIT=
on_exit() {
	ON_EXIT="$*; $ON_EXIT"
	# shellcheck disable=SC2064 # expanded now: the list as it stands
	trap "trap - ERR; set +e; $ON_EXIT" EXIT
}

# run_case NAME FUNCTION [ARGS]: one TAP line; the case's output follows only if it failed.
run_case() {
	local name=$1 start end rc ms
	shift
	# The last case of a file system takes it down for the next.
	if [[ ${ONLY:-} && $name != *"$ONLY"* && $name != *"nothing is remembered"* ]]; then
		return
	fi
	CASES+=1
	printf '# running: %s: %s\n' "$SUITE" "$name"
	start=${EPOCHREALTIME/./}
	set +e
	mark "$SUITE: $name"
	rm -f "$WORK/seen"
	(
		set -eE
		CASE_LEVEL=$BASH_SUBSHELL
		trap 'failed_in $? "$BASH_COMMAND"' ERR
		"$@"
		after_case
	) >"$LOG" 2>&1 </dev/null
	rc=$?
	set -e
	end=${EPOCHREALTIME/./}
	ms=$(((end - start) / 1000))
	case $rc in
	0) printf 'ok %d - %s: %s # time=%dms\n' "$CASES" "$SUITE" "$name" "$ms" ;;
	77) printf 'ok %d - %s: %s # SKIP %s\n' "$CASES" "$SUITE" "$name" \
		"$(sed -n 's/^SKIP: //p' "$LOG")" ;;
	*)
		FAILED+=1
		printf 'not ok %d - %s: %s # time=%dms\n' "$CASES" "$SUITE" "$name" "$ms"
		{
			cat "$LOG"
			echo "--- kernel log"
			kernel_log
		} 2>&1 | sed 's/^/# | /'
		;;
	esac
}

# Holds after every case: no hit ever differed from the disk.
after_case() {
	local line word
	while read -r line; do
		for word in $line; do
			if [[ $word == mismatches=* && $word != mismatches=0 ]]; then
				flunk "paranoid mode saw a hit that differs from the disk: $line"
			fi
		done
	done < <(status_lines)
}

# finish: the TAP plan, and the suite's exit status.
finish() {
	printf '1..%d\n' "$CASES"
	printf '# %s: %d passed, %d failed\n' "$SUITE" $((CASES - FAILED)) "$FAILED"
	[ "$FAILED" -eq 0 ]
}

# --- expectations --------------------------------------------------------------------

# within VALUE RANGE: RANGE is N, LO..HI, LO.. or any.
within() {
	local value=$1 low=${2%%..*} high=${2##*..}
	[ "$2" = any ] && return 0
	((value >= low)) || return 1
	[ -z "$high" ] || ((value <= high))
}

# expect WHAT VALUE RANGE
expect() {
	within "$2" "$3" || flunk "$1: is $2, should be $3"
	printf '%s: %s (wanted %s)\n' "$1" "$2" "$3"
}

# expect_fail COMMAND...: the command must not succeed.
expect_fail() {
	if "$@"; then
		flunk "succeeded but should not have: $*"
	fi
}

# same FILE REFERENCE: byte for byte.
same() {
	cmp "$1" "$2" || flunk "$1 differs from $2"
}

# wait_for SECONDS COMMAND...: polls until the command succeeds. A kernel with run-time
# checkers is given more time.
wait_for() {
	local deadline=$((SECONDS + $1 * ${DRR_SLOW:-1}))
	shift
	until "$@"; do
		((SECONDS < deadline)) || flunk "did not come true in time: $*"
		sleep 0.05
	done
}

# request PORT TEXT: sends it to whoever listens here, and prints what is answered.
request() {
	exec 9<>"/dev/tcp/127.0.0.1/$1" || return 1
	printf %b "$2" >&9
	cat <&9
	exec 9>&-
}

# --- counters ------------------------------------------------------------------------

# status_lines: status of every drr device, one a line.
status_lines() {
	if [ "$DRR" = none ]; then
		echo "none: tracked_pages=0 records=0"
	else
		dmsetup status --target drr
	fi
}

# stat_of DEVICE NAME: one of the name=value words of a drr device's status.
stat_of() {
	local word
	if [ "$DRR" = none ]; then
		echo 0
		return
	fi
	for word in $(dmsetup status "$1"); do
		if [[ $word == "$2="* ]]; then
			echo "${word#*=}"
			return
		fi
	done
	flunk "status of $1 has no $2=: $(dmsetup status "$1")"
}

# sectors_from DEVICE DONOR: how many sectors DEVICE got from the thin device DONOR uses.
sectors_from() {
	local entry
	for entry in $(stat_of "$1" from | tr ',' ' '); do
		if [ "${entry%%:*}" = "$(thin_id "$2")" ]; then
			echo "${entry#*:}"
			return
		fi
	done
	echo 0
}

# tracked: pages that are donors now, of all devices together.
tracked() {
	local words
	words=$(status_lines | head -n 1)
	words=${words#* tracked_pages=}
	echo "${words%% *}"
}

# disk_sectors_read: of the pool's data disk, as the block layer counts them.
disk_sectors_read() {
	local fields
	read -r -a fields <"/sys/block/$DATA_DISK/stat"
	echo "${fields[2]}"
}

# expect_drr WHAT VALUE RANGE: like expect, but only where drr is in place.
expect_drr() {
	[ "$DRR" = none ] || expect "$@"
}

# --- files ---------------------------------------------------------------------------

# evict FILE...: drops the clean pages of these files, and only these.
evict() {
	local file
	for file; do
		xfs_io -r -c "fadvise -d 0 0" "$file"
	done
}

# settle FILE: loads a file's inode and extents, so that reading it reads only data.
settle() {
	xfs_io -r -c "fiemap" "$1" >/dev/null
}

# donate NAME FILE [RANGE]: NAME's container reads a file that no one has read yet; its
# pages, or RANGE of them, are donors from then on. At its ends a file may share a data
# block with a neighbour that NAME has changed: these blocks are not shared any more.
donate() {
	local before
	settle "/mnt/$1/$2"
	before=$(stat_of "$1" recorded_sectors)
	same "/mnt/$1/$2" "$REF/$2"
	expect_drr "pages of $2 that $1 can donate" \
		$((($(stat_of "$1" recorded_sectors) - before) / 8)) \
		"${3:-$(($(stat -c %s "$REF/$2") / 4096 - 30))..}"
}

# receive NAME FILE RANGE: NAME's container reads a file; its data is that of the copy
# made without DRR, and RANGE sectors of it came from donors. Metadata isn't counted.
receive() {
	local before
	settle "/mnt/$1/$2"
	before=$(stat_of "$1" hit_sectors)
	same "/mnt/$1/$2" "$REF/$2"
	expect_drr "sectors of $2 served to $1" $(($(stat_of "$1" hit_sectors) - before)) "$3"
}

# read_at_once FILE NAME...: all these containers read a file at the same moment, and right.
read_at_once() {
	local file=$1 name pids=()
	shift
	for name; do
		same "/mnt/$name/$file" "$REF/$file" &
		pids+=($!)
	done
	for name in "${pids[@]}"; do
		wait "$name" || flunk "a concurrent reader saw wrong data"
	done
}

# records_gone: with nothing mounted or open, the module remembers nothing but metadata that it keeps, which goes
# with other caches.
records_gone() {
	local words
	echo 1 >/proc/sys/vm/drop_caches
	words=$(status_lines)
	if [[ $words == *records=* ]]; then
		expect "tracked pages" "$(tracked)" 0
		words=${words#* records=}
		expect "records" "${words%% *}" 0
	fi
}
