#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# What the suites attach and watch share. To be sourced, after lib.sh. Here a container is a thin device that
# is mounted itself: /mnt/t-NAME on /dev/mapper/t-NAME.

CTL=${0%/*}/../bin/drrctl

ctl() { "$CTL" "$@"; }

target_of() { dmsetup table "$1" | cut -d' ' -f3; }

is_attached() { [ "$(target_of "$1")" = drr ]; }

# What drrctl makes below attached devices.
seconds() { dmsetup ls | grep -c '^drr-' || true; }

seconds_are() { [ "$(seconds)" = "$1" ]; }

# no_nodes: nothing in /dev is one of them.
no_nodes() {
	local dm
	for dm in /sys/block/dm-*; do
		[[ $(<"$dm/dm/uuid") != DRR-* || ! -e /dev/${dm##*/} ]] ||
			flunk "/dev/${dm##*/} is there: $(<"$dm/dm/name")"
	done
}

# refused CODE TEXT ARGUMENTS...: that exit code, and one line on stderr that has the text.
refused() {
	local code=$1 text=$2 rc=0
	shift 2
	"$CTL" "$@" >"$WORK/out" 2>"$WORK/err" || rc=$?
	expect "exit code of drrctl $*: $(<"$WORK/err")" "$rc" "$code"
	expect "lines on stderr" "$(wc -l <"$WORK/err")" 1
	grep -q "^drrctl: .*: .*: ." "$WORK/err" || flunk "not WHAT: WHY: REMEDY: $(<"$WORK/err")"
	grep -qF -e "$text" "$WORK/err" || flunk "no '$text' in: $(<"$WORK/err")"
}

# as_before NAME TABLE: active, and nothing of drrctl is left, now or soon.
as_before() {
	expect_state "$1" "$2"
	wait_for 20 seconds_are "${3:-0}"
}

# expect_state NAME TABLE
expect_state() {
	[ "$(dmsetup table "$1")" = "$2" ] || flunk "table: $(dmsetup table "$1")"
	[ "$(dmsetup info -c --noheadings -o suspended,tables_loaded "$1")" = "Active:Live" ] ||
		flunk "state: $(dmsetup info "$1")"
}

# mounted KIND NAME ORIGIN: a snapshot that is mounted itself.
mounted() {
	thin_snap "$2" "$3"
	fs_mount "$1" "t-$2" "/dev/mapper/t-$2"
}

# gone NAME: unmounts and removes it; its thin device stays in the pool.
gone() {
	! mountpoint -q "/mnt/t-$1" || umount "/mnt/t-$1"
	[ ! -e "/dev/mapper/t-$1" ] || dm_remove "t-$1"
	rm -f "$THINS/$1"
}

is_stopped() { grep -q '^State:	T' "/proc/$1/status"; }

# bases_up: a pool with two images.
bases_up() {
	random_file some 2M
	random_file small 512K
	pool_up 768
	modprobe dm-drr
	image_new ext4 base-ext4 128
	image_new xfs base-xfs 128
}
