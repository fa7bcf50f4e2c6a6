#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# drrctl watch: devices come and go, as containerd does it, events are lost, and drrctl is killed.

# shellcheck source=tools/testing/lib.sh
. "${0%/*}/../lib.sh"
# shellcheck source=tools/testing/attaching.sh
. "${0%/*}/../attaching.sh"

WATCH=
CONFIG=$WORK/drrctl.toml

# watch_config LINE...
watch_config() { printf '%s\n' "$@" >"$CONFIG"; }

# watch_start: in the background; its lines go to $WORK/watch.log.
watch_start() {
	"$CTL" watch --config "$CONFIG" 2>"$WORK/watch.log" &
	WATCH=$!
}

# watch_stop [SIGNAL]
watch_stop() {
	local rc=0
	kill -"${1:-TERM}" "$WATCH"
	wait "$WATCH" || rc=$?
	WATCH=
	echo "watch: $rc: $(<"$WORK/watch.log")"
	[ "${1:-TERM}" != TERM ] || expect "exit code of watch" "$rc" 0
}

# stop_for_good: at the end of a case, whatever became of it.
stop_for_good() { [ -z "$WATCH" ] || { kill -KILL "$WATCH"; wait "$WATCH"; cat "$WORK/watch.log"; }; }

watch_says() { grep -qF -e "$1" "$WORK/watch.log"; }

needs_events() { [ -e /proc/net/netlink ] || skip "the kernel has no netlink, and so no events"; }

# Devices that were there, that come, that go and come again; and those that are none of its.
watch_attaches() {
	needs_events
	mounted ext4 one base-ext4
	thin_snap two base-ext4
	thin_snap left base-ext4
	on_exit "stop_for_good; gone one; gone two; gone left; gone three"
	watch_config 'pools = ["po*"]' 'exclude = ["t-base-*", "t-left"]' 'features = ["paranoid"]'
	watch_start
	wait_for 20 is_attached t-one
	wait_for 20 is_attached t-two
	[ "$(dmsetup table t-two | cut -d' ' -f5-)" = "1 paranoid" ] || flunk "$(dmsetup table)"
	refused 6 "is running already" watch --config "$CONFIG"
	thin_snap three one
	wait_for 20 is_attached t-three
	donate t-one some
	# a removed one is attached when it comes again
	dmsetup remove t-two
	thin_open two
	wait_for 20 is_attached t-two
	# detached by hand it stays so, whatever happens to it, until it is removed
	ctl detach t-two
	dmsetup suspend t-two
	dmsetup resume t-two
	dm_remove t-three
	thin_open three
	wait_for 20 is_attached t-three
	! is_attached t-two || flunk "attached against somebody's will"
	dmsetup remove t-two
	thin_open two
	wait_for 20 is_attached t-two
	# and attached by hand again, too
	ctl detach t-two
	ctl attach t-two
	! is_attached t-left || flunk "attached what is excluded"
	! is_attached t-base-ext4 || flunk "attached what is excluded"
	# a new configuration, once it can be read
	watch_config 'pools = ["pool"]' 'exclude = ["t-base-*"'
	kill -HUP "$WATCH"
	wait_for 20 watch_says "$CONFIG:"
	! is_attached t-left || flunk "attached what is excluded"
	watch_config 'pools = ["pool"]' 'exclude = ["t-base-*"]'
	kill -HUP "$WATCH"
	wait_for 20 is_attached t-left
	watch_stop
	is_attached t-one || flunk "stopping has detached it"
	wait_for 20 seconds_are 4
	same /mnt/t-one/some "$REF/some"
}

# suspend_once NAME: as containerd does. device-mapper looks whether a device is suspended before it has the
# lock that a swap of tables holds (do_suspend() in dm-ioctl.c): a request that had to wait for a swap by
# drrctl fails with EINVAL then. Counts these, and asks again.
suspend_once() {
	local text
	text=$(dmsetup suspend "$1" 2>&1) && return
	[[ $text = *"Invalid argument"* ]] || flunk "$text"
	crossed+=1
	dmsetup suspend "$1"
}

# What containerd does to a pool, in its own words, as fast as it can: watch is never in the way. A
# removal isn't tried twice where containerd wouldn't.
containerd_loop() {
	local end=$((SECONDS + ${LOOP_SECONDS:-12})) name words i
	local -i count=0 attached=0 crossed=0
	needs_events
	on_exit "stop_for_good; dmsetup remove --force --retry pool-snap-1; \
dmsetup remove --force --retry pool-snap-2"
	watch_config 'pools = ["pool"]' 'exclude = ["t-base-*"]'
	watch_start
	dmsetup message pool 0 "create_snap 2001 $(thin_id base-ext4)"
	while ((count < 4 || SECONDS < end)); do
		dmsetup create pool-snap-1 --table \
			"0 $(thin_sectors base-ext4) thin /dev/mapper/pool 2001"
		case $((count % 4)) in
		0) ;;	# at once
		1) wait_for 20 is_attached pool-snap-1 ;;
		*)
			dd if=/dev/urandom of=/dev/mapper/pool-snap-1 bs=64k count=2 seek=$count \
				oflag=direct conv=notrunc status=none
			;;
		esac
		! is_attached pool-snap-1 || attached+=1
		suspend_once pool-snap-1
		dmsetup message pool 0 "create_snap 2002 2001"
		dmsetup resume pool-snap-1
		dmsetup create pool-snap-2 --table \
			"0 $(thin_sectors base-ext4) thin /dev/mapper/pool 2002"
		for name in pool-snap-1 pool-snap-2; do
			read -r -a words < <(dmsetup status $name)
			expect "sectors of $name" "${words[3]}" 1..
		done
		cmp -n $((4 << 20)) /dev/mapper/pool-snap-1 /dev/mapper/pool-snap-2
		blkdiscard /dev/mapper/pool-snap-2
		[ "$(target_of pool-snap-2)" != drr ] || attached+=1
		case $((count % 3)) in
		0) dmsetup remove --retry pool-snap-2 ;;
		1) dmsetup remove --deferred pool-snap-2 ;;
		2) dmsetup remove --retry --force pool-snap-2 ;;
		esac
		dmsetup remove --retry pool-snap-1
		dmsetup message pool 0 "delete 2002"
		count+=1
	done
	wait_for 20 seconds_are 0
	expect "rounds" "$count" 4..
	expect "of them attached" "$attached" 1..
	echo "suspended beside a swap: $crossed of $count"
	dmsetup message pool 0 "delete 2001"
	watch_stop
	! watch_says "not attached" || flunk "$(<"$WORK/watch.log")"
}

# Nothing that isn't watched for opens a device: a plain removal right after it came always works.
never_busy() {
	local i
	needs_events
	on_exit "stop_for_good; gone one"
	watch_config 'pools = ["pool"]' 'exclude = ["t-base-*"]'
	watch_start
	thin_snap one base-ext4
	for ((i = 0; i < 25; i++)); do
		dmsetup remove t-one
		dmsetup create t-one --table "0 $(thin_sectors one) thin /dev/mapper/pool $(thin_id one)"
	done
	wait_for 20 is_attached t-one
	watch_stop
	dmsetup remove t-one
	wait_for 20 seconds_are 0
}

# Events are lost, the pool goes and comes again, watch is killed half-way.
# lose_events: more than the buffer of the stopped watch takes; the kernel counts those it drops.
lose_events() {
	local i
	until awk -v pid="$WATCH" '$2 == 15 && $3 == pid && $9 > 0 { lost = 1 } END { exit !lost }' \
		/proc/net/netlink; do
		for ((i = 0; i < 500; i++)); do
			echo change >/sys/block/$META_DISK/uevent
		done
	done
}

watch_recovers() {
	local i
	needs_events
	on_exit "stop_for_good; gone one; gone two"
	watch_config 'pools = ["pool"]' 'exclude = ["t-base-*"]'
	watch_start
	thin_snap one base-ext4
	wait_for 20 is_attached t-one
	kill -STOP "$WATCH"
	dmsetup remove t-one
	thin_open one
	lose_events
	thin_snap two base-ext4
	kill -CONT "$WATCH"
	wait_for 60 watch_says "events were lost"
	wait_for 60 is_attached t-one
	wait_for 60 is_attached t-two
	# the pool goes
	gone two
	dmsetup remove t-one
	dm_remove t-base-ext4
	dm_remove t-base-xfs
	wait_for 20 seconds_are 0
	dm_remove pool
	pool_create /dev/$META_DISK
	thin_open base-ext4
	thin_open base-xfs
	thin_open one
	wait_for 20 is_attached t-one
	watch_stop
	# killed half-way: the next finds what it left
	dmsetup remove t-one
	wait_for 20 seconds_are 0
	for i in activated staged; do
		DRRCTL_STOP_AT=$i "$CTL" watch --config "$CONFIG" 2>"$WORK/watch.log" &
		WATCH=$!
		thin_open one
		wait_for 20 is_stopped "$WATCH"
		watch_stop KILL
		watch_start
		wait_for 20 is_attached t-one
		[ $i != activated ] || wait_for 20 watch_says "left something behind"
		expect "second devices" "$(seconds)" 1
		watch_stop
		dmsetup remove t-one
		wait_for 20 seconds_are 0
	done
}

watch_refuses() {
	refused 3 "write one" watch --config /nowhere/drrctl.toml
	watch_config 'pools = ["pool"]' 'pol = 7'
	refused 2 "$CONFIG:2: unknown field" watch --config "$CONFIG"
	watch_config 'pools = ["pool"]' 'features = [' '"fast"]'
	refused 2 "$CONFIG:3: 'fast' is no feature" watch --config "$CONFIG"
}

[ "$DRR" = drr ] || { say "these are about drr"; finish; exit; }
bases_up
run_case "watch attaches" watch_attaches
run_case "watch, and what containerd does" containerd_loop
run_case "watch is never in the way" never_busy
run_case "watch recovers" watch_recovers
run_case "watch refuses bad configuration" watch_refuses
run_case "nothing is remembered after unmount" all_down
finish
