#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# drrctl attach, detach and resize: drr comes and goes under file systems that are in use, which grow,
# drrctl is killed at every step, and devices are removed meanwhile.

# shellcheck source=tools/testing/lib.sh
. "${0%/*}/../lib.sh"
# shellcheck source=tools/testing/attaching.sh
. "${0%/*}/../attaching.sh"

# How long devices are attached and detached under I/O, and how often at most. A thousand times, on a
# kernel that is quick enough for it:
#
#	scripts/vm.sh --kernel uml --timeout 1500 -- /bin/bash -c \
#		'ONLY="cycles under" CYCLE_SECONDS=1200 exec /drr/suites/attach.sh'
CYCLE_SECONDS=${CYCLE_SECONDS:-20}
CYCLES=${CYCLES:-1000}

# --- what it does --------------------------------------------------------------------

# Attached, a container is donor and receiver like any other; detached, it is as it was.
serves() {
	local kind=$1 table
	mounted "$kind" one "base-$kind"
	mounted "$kind" two "base-$kind"
	on_exit "gone one; gone two"
	table=$(dmsetup table t-two)
	exec 9</mnt/t-two/some
	ctl attach t-one
	ctl attach /dev/mapper/t-two --paranoid
	is_attached t-one || flunk "$(dmsetup table)"
	[ "$(dmsetup table t-two | cut -d' ' -f5-)" = "1 paranoid" ] || flunk "$(dmsetup table)"
	expect "second devices" "$(seconds)" 2
	no_nodes
	donate t-one some
	receive t-two some 1024..
	# what it is called, and what isn't shown
	"$CTL" list >"$WORK/out"
	grep -q '^t-one *(attached) ' "$WORK/out" || flunk "$(<"$WORK/out")"
	! grep -q 'drr-' "$WORK/out" || flunk "$(<"$WORK/out")"
	[ "$("$CTL" list --json | jq -r '.devices[] | select(.name == "t-two") |
		"\(.attached) \(.pool) \(.thin_id)"')" = "true pool $(thin_id two)" ] ||
		flunk "$("$CTL" list --json)"
	"$CTL" layers >"$WORK/out"
	grep -q "t-two" "$WORK/out" || flunk "$(<"$WORK/out")"
	! grep -q 'drr-' "$WORK/out" || flunk "$(<"$WORK/out")"
	"$CTL" heatmap >"$WORK/out"
	grep -q "t-two ($(thin_id two))" "$WORK/out" || flunk "$(<"$WORK/out")"
	"$CTL" status t-two >"$WORK/out"
	# the first two fields are dm-thin's
	[ "$(dmsetup status t-one | cut -d' ' -f4,5)" = \
		"$(dmsetup status "$(dmsetup ls | grep -o '^drr-t-one[^	]*')" | cut -d' ' -f4,5)" ] ||
		flunk "$(dmsetup status)"
	ctl detach t-one
	ctl detach t-two
	expect_state t-two "$table"
	expect "second devices" "$(seconds)" 0
	evict /mnt/t-two/some
	same /mnt/t-two/some "$REF/some"
	same /dev/fd/9 "$REF/some"
	exec 9<&-
}

# A file is written, read back from the disk and compared, again and again, and so is one of the
# image's; until there's a file stop.
io_on() {
	local dir=$1
	local -i count=0
	while [ ! -e "$WORK/stop" ]; do
		cp "$REF/small" "$dir/new"
		sync -f "$dir"
		evict "$dir/new" "$dir/some"
		cmp "$dir/new" "$REF/small" || return 1
		cmp "$dir/some" "$REF/some" || return 1
		dd if="$REF/small" of="$dir/direct" bs=64k oflag=direct status=none || return 1
		dd if="$dir/direct" bs=64k iflag=direct status=none | cmp - "$REF/small" || return 1
		rm "$dir/new" "$dir/direct"
		count+=1
	done
	echo "$count rounds of I/O on $dir"
}

# io_start DIR...: in the background; io_stop waits for it, and for what it has to say.
IO_PIDS=()
io_start() {
	local dir
	rm -f "$WORK/stop"
	for dir; do
		io_on "$dir" &
		IO_PIDS+=($!)
	done
}

io_stop() {
	local pid
	touch "$WORK/stop"
	for pid in "${IO_PIDS[@]}"; do
		wait "$pid" || flunk "wrong data, or an error"
	done
	IO_PIDS=()
}

cycles_under_io() {
	local end=$((SECONDS + CYCLE_SECONDS)) table_one table_two
	local -i count=0
	mounted ext4 one base-ext4
	mounted xfs two base-xfs
	on_exit "touch $WORK/stop; wait; gone one; gone two"
	table_one=$(dmsetup table t-one) table_two=$(dmsetup table t-two)
	io_start /mnt/t-one /mnt/t-two
	while ((SECONDS < end && count < CYCLES)); do
		ctl attach t-one
		ctl attach t-two --paranoid
		ctl detach t-one
		ctl detach t-two
		count+=2
	done
	io_stop
	expect "cycles" "$count" 2..
	echo "$count" >"$WORK/cycles"
	expect_state t-one "$table_one"
	expect_state t-two "$table_two"
	expect "second devices" "$(seconds)" 0
	umount /mnt/t-one /mnt/t-two
	fsck.ext4 -fn /dev/mapper/t-one
	xfs_repair -n /dev/mapper/t-two
}

# A slab of bios goes with the last device that has bios of its size, which takes tenths of a second: the
# module keeps those of its targets.
slabs() { (cd /sys/kernel/slab && echo bio-*); }
no_slab_goes() {
	local before
	[ -d /sys/kernel/slab ] || skip "no /sys/kernel/slab"
	mounted ext4 one base-ext4
	on_exit "gone one"
	before=$(slabs)
	ctl attach t-one
	is_attached t-one || flunk "$(dmsetup table)"
	[ "$(slabs)" = "$before" ] || flunk "slabs with a target: $(slabs), without: $before"
	ctl detach t-one
	[ "$(slabs)" = "$before" ] || flunk "slabs without a target: $(slabs), before: $before"
}

# second NAME: the device below an attached one.
second() { dmsetup ls | grep -o "^drr-$1-[^	]*"; }

# It has no node.
second_folder() {
	echo "/sys/dev/block/$(dmsetup info -c --noheadings --separator : -o major,minor "$(second "$1")")"
}

# lengths NAME SECTORS [BELOW]: the device has SECTORS sectors, and the second device has BELOW, or as many.
lengths() {
	expect "sectors of $1" "$(blockdev --getsz "/dev/mapper/$1")" "$2"
	expect "sectors below $1" "$(cat "$(second_folder "$1")/size")" "${3:-$2}"
	expect_state "$1" "$(dmsetup table "$1")"
	[ "$(dmsetup info -c --noheadings -o suspended,tables_loaded "$(second "$1")")" = "Active:Live" ] ||
		flunk "state: $(dmsetup info "$(second "$1")")"
}

# reload NAME TABLE: replaces a device's table, as a program does that knows nothing of drr.
reload() {
	dmsetup load "$1" --table "$2"
	dmsetup resume "$1"
}

# fs_grow KIND NAME: resize2fs opens the device for writing, which some kernels allow nobody when it is
# mounted: bdev_allow_write_mounted=1 on the kernel's command line.
fs_grow() {
	case $1 in
	ext4)
		(: <>"/dev/mapper/$2") 2>/dev/null || skip "a mounted device can't be opened for writing"
		resize2fs "/dev/mapper/$2"
		;;
	xfs) xfs_growfs "/mnt/$2" ;;
	esac
}

# A file system grows while it is written to, and what is in the new space is right. Its pages donate when they
# are read anew, as after any other table.
grows() {
	local kind=$1 blocks table
	mounted "$kind" one "base-$kind"
	mounted "$kind" two "base-$kind"
	on_exit "touch $WORK/stop; wait; gone one; gone two"
	table=$(dmsetup table t-one)
	ctl attach t-one --paranoid
	ctl attach t-two
	ctl resize t-one
	lengths t-one "$(thin_sectors one)"
	blocks=$(stat -f -c %b /mnt/t-one)
	ctl resize /dev/mapper/t-one 160M
	lengths t-one 327680
	[ "$(dmsetup table t-one | cut -d' ' -f5-)" = "1 paranoid" ] || flunk "$(dmsetup table)"
	donate t-one some
	receive t-two some 1024..
	io_start /mnt/t-one
	fs_grow "$kind" t-one
	expect "blocks" "$(stat -f -c %b /mnt/t-one)" $((blocks + 7000))..
	ctl resize t-one 163840K
	ctl resize t-one 200MiB
	lengths t-one 409600
	# grown below by hand
	reload "$(second t-one)" "$(dmsetup table "$(second t-one)" | sed 's/^0 409600 /0 524288 /')"
	lengths t-one 409600 524288
	ctl resize t-one
	lengths t-one 524288
	fs_grow "$kind" t-one
	# more than there was room for before
	dd if=/dev/urandom of="$WORK/large" bs=1M count=150 status=none
	cp "$WORK/large" /mnt/t-one/
	sync -f /mnt/t-one
	io_stop
	refused 2 "never made shorter" resize t-one 128M
	lengths t-one 524288
	umount /mnt/t-one
	fs_mount "$kind" t-one
	same /mnt/t-one/large "$WORK/large"
	same /mnt/t-one/some "$REF/some"
	rm "$WORK/large" /mnt/t-one/large
	ctl detach t-one
	as_before t-one "${table/ $(thin_sectors one) / 524288 }" 1
	# others take drr out when they give the device a longer table of their own
	ctl attach t-one
	reload t-one "${table/ $(thin_sectors one) / 526336 }"
	as_before t-one "${table/ $(thin_sectors one) / 526336 }" 1
	same /mnt/t-one/some "$REF/some"
	umount /mnt/t-one
	case $kind in
	ext4) fsck.ext4 -fn /dev/mapper/t-one ;;
	xfs) xfs_repair -n /dev/mapper/t-one ;;
	esac
}

# A device that `create` made is resized to the length of its thin device.
follows() {
	local table longer
	thin_snap one base-ext4
	on_exit "container_down one; rm -f $THINS/one"
	table=$(dmsetup table t-one) longer=${table/ $(thin_sectors one) / 327680 }
	ctl create one t-one --no-donate
	fs_mount ext4 one
	ctl resize one
	refused 2 "grow that first" resize one 160M
	reload t-one "$longer"
	expect "sectors" "$(blockdev --getsz /dev/mapper/one)" "$(thin_sectors one)"
	stopped_at staged resize one
	kill_stopped
	ctl resize one
	expect "sectors" "$(blockdev --getsz /dev/mapper/one)" 327680
	[ "$(dmsetup table one | cut -d' ' -f5-)" = "1 no_donate" ] || flunk "$(dmsetup table)"
	expect_state one "$(dmsetup table one)"
	same /mnt/one/some "$REF/some"
	refused 2 "never made shorter" resize one 128M
	fs_grow ext4 one
	umount /mnt/one
	ctl remove one
	fsck.ext4 -fn /dev/mapper/t-one
	# longer than what is below it
	ctl create one t-one
	reload t-one "$table"
	refused 2 "give it its length back" resize one
	reload t-one "$longer"
	expect_state t-one "$longer"
}

# --- when it dies --------------------------------------------------------------------

# stopped_at STEP ARGUMENTS...: runs drrctl up to this step; its id is in $STOPPED.
STOPPED=
stopped_at() {
	local step=$1
	shift
	DRRCTL_STOP_AT=$step "$CTL" "$@" &
	STOPPED=$!
	wait_for 20 is_stopped "$STOPPED"
}

# kill_stopped: as if it had died at that step.
kill_stopped() {
	kill -KILL "$STOPPED"
	wait "$STOPPED" || true
}

# Wherever drrctl dies, the device has the one table or the other, and is active; the next attach
# and detach work, and leave nothing.
killed() {
	local step table drr
	mounted ext4 one base-ext4
	on_exit "touch $WORK/stop; wait; gone one"
	table=$(dmsetup table t-one)
	io_start /mnt/t-one
	for step in made loaded opened activated deferred staged swapped; do
		stopped_at $step attach t-one
		kill_stopped
		case $step in
		swapped) is_attached t-one || flunk "not attached" ;;
		*) [ "$(dmsetup table t-one)" = "$table" ] || flunk "$step: $(dmsetup table t-one)" ;;
		esac
		[ "$(dmsetup info -c --noheadings -o suspended t-one)" = Active ] ||
			flunk "suspended after $step"
		[ $step = swapped ] || ctl attach t-one
		is_attached t-one || flunk "not attached after $step"
		wait_for 20 seconds_are 1
		ctl detach t-one
		as_before t-one "$table"
	done
	for step in staged swapped; do
		ctl attach t-one
		drr=$(dmsetup table t-one)
		stopped_at $step detach t-one
		kill_stopped
		case $step in
		staged)
			[ "$(dmsetup table t-one)" = "$drr" ] || flunk "$(dmsetup table t-one)"
			ctl detach t-one
			;;
		esac
		as_before t-one "$table"
	done
	io_stop
}

# The same when it grows: the device is never longer than what is below it.
killed_growing() {
	local step next table
	local -i before after
	mounted ext4 one base-ext4
	on_exit "touch $WORK/stop; wait; gone one"
	before=$(thin_sectors one)
	io_start /mnt/t-one
	for step in below-staged below-swapped staged swapped; do
		for next in resize detach; do
			table=$(dmsetup table t-one)
			ctl attach t-one
			after=$((before + 2048))
			stopped_at $step resize t-one $((after * 512))
			kill_stopped
			case $step in
			below-staged) expect "sectors below" "$(dmsetup table "$(second t-one)" | cut -d' ' -f2)" \
				$before ;;
			*) expect "sectors below" "$(dmsetup table "$(second t-one)" | cut -d' ' -f2)" $after ;;
			esac
			[ $step = swapped ] || after=before
			expect "sectors" "$(blockdev --getsz /dev/mapper/t-one)" $after
			[ "$(dmsetup info -c --noheadings -o suspended t-one)" = Active ] ||
				flunk "suspended after $step"
			if [ $next = resize ]; then
				after=$((before + 2048))
				ctl resize t-one $((after * 512))
				lengths t-one $after
			fi
			ctl detach t-one
			as_before t-one "${table/ $before / $after }"
			before=after
		done
	done
	io_stop
}

# What a dead drrctl left goes when the next is at work, whatever that fails at and whichever device it is
# for; so do marks of disks that are gone, when there are many.
left_behind() {
	local step table
	thin_snap one base-ext4
	thin_snap two base-ext4
	on_exit "gone one; gone two"
	table=$(dmsetup table t-one)
	for step in made activated staged; do
		stopped_at $step attach t-one
		kill_stopped
		expect "second devices" "$(seconds)" 1
		dmsetup suspend t-two
		refused 6 "dmsetup resume t-two" attach t-two
		dmsetup resume t-two
		as_before t-one "$table"
		stopped_at $step attach t-one
		kill_stopped
		ctl attach t-two
		as_before t-one "$table" 1
		ctl detach t-two
	done
	touch /run/drrctl/attached/{1000000000..1000000099}
	ctl attach t-two
	expect "marks" "$(find /run/drrctl/attached -name "10000000??" | wc -l)" 0
	ctl detach t-two
}

# A table that a dead drrctl left is made active by the next who resumes the device; all is well.
stray_table() {
	local table
	mounted ext4 one base-ext4
	on_exit "gone one"
	table=$(dmsetup table t-one)
	stopped_at staged attach t-one
	kill_stopped
	thin_snap two one
	is_attached t-one || flunk "$(dmsetup table)"
	same /mnt/t-one/some "$REF/some"
	ctl detach t-one
	as_before t-one "$table"
	gone two
	# and it goes with the device
	stopped_at staged attach t-one
	kill_stopped
	umount /mnt/t-one
	dmsetup remove t-one
	wait_for 20 seconds_are 0
}

# The device goes while drrctl is at work on it, and its thin device is deleted from the pool at once:
# the pool waits until drrctl has noticed.
removed_meanwhile() {
	local how step rc
	for how in plain deferred force; do
		for step in loaded activated deferred staged; do
			thin_snap one base-ext4
			stopped_at $step attach t-one
			case $how in
			plain) dmsetup remove t-one ;;
			deferred) dmsetup remove --deferred t-one ;;
			force) dmsetup remove --force t-one ;;
			esac
			! dmsetup info t-one >/dev/null 2>&1 || flunk "still there: $how at $step"
			{ sleep 0.1; kill -CONT "$STOPPED"; } &
			dmsetup message pool 0 "delete $(thin_id one)" || flunk "$how at $step"
			rm "$THINS/one"
			rc=0
			wait "$STOPPED" || rc=$?
			expect "exit code" "$rc" 3
			wait_for 20 seconds_are 0
		done
	done
}

# What drrctl leaves when it is killed while the kernel swaps the second device's table, and links to second devices
# that are gone: the next attach mends both.
suspended_below() {
	thin_snap one base-ext4
	thin_snap two base-ext4
	thin_snap three base-ext4
	on_exit "gone one; gone two; gone three"
	ctl attach t-one
	ctl attach t-two
	dm_remove t-two
	wait_for 20 seconds_are 1
	dmsetup suspend --noflush --nolockfs "$(second t-one)"
	rm -f /run/drrctl/clean
	ctl attach t-three
	[ "$(<"$(second_folder t-one)/dm/suspended")" = 0 ] || flunk "the second device is still suspended"
	dd if=/dev/mapper/t-one of=/dev/null bs=64k count=1 iflag=direct status=none
	expect "links to second devices" "$(find /dev/mapper -name 'drr-*' | wc -l)" 2
}

# An attached device goes as any other does, and what is below it by itself.
removed_attached() {
	local how
	for how in "" --retry --deferred --force; do
		thin_snap one base-ext4
		ctl attach t-one
		# shellcheck disable=SC2086 # none is no word
		dmsetup remove $how t-one
		# at once, as a manager of containers does: what is below goes in a worker
		thin_delete one
		seconds_are 0 || flunk "still there: $(dmsetup table)"
	done
	# in use: when it's closed
	mounted ext4 one base-ext4
	ctl attach t-one
	dmsetup remove --deferred t-one
	same /mnt/t-one/some "$REF/some"
	umount /mnt/t-one
	wait_for 20 seconds_are 0
	thin_delete one
}

# What stays open can't be deleted from the pool, and nobody waits for that.
deleted_while_open() {
	local start
	thin_snap one base-ext4
	ctl attach t-one
	start=$(date +%s%N)
	expect_fail dmsetup message pool 0 "delete $(thin_id one)"
	expect "time (ms)" "$((($(date +%s%N) - start) / 1000000))" 0..$((400 * ${DRR_SLOW:-1}))
	dmsetup remove t-one
	thin_delete one
}

# Snapshots of an attached device that is written to: each has what was written before it.
snapshots() {
	local i
	mounted ext4 one base-ext4
	on_exit "touch $WORK/stop; wait; gone one"
	ctl attach t-one
	io_start /mnt/t-one
	for i in 1 2 3; do
		cp "$REF/small" "/mnt/t-one/kept-$i"
		thin_snap "snap$i" one
		fs_mount ext4 "t-snap$i" "/dev/mapper/t-snap$i"
		ctl attach "t-snap$i"
		same "/mnt/t-snap$i/kept-$i" "$REF/small"
		same "/mnt/t-snap$i/some" "$REF/some"
		umount "/mnt/t-snap$i"
		fsck.ext4 -fn "/dev/mapper/t-snap$i"
		gone "snap$i"
	done
	io_stop
	ctl detach t-one
}

# I/O that doesn't end, as the disk doesn't answer: the device stays as it is, and goes on when the
# disk does.
hanging_io() {
	local table writer
	thin_snap one base-ext4
	on_exit "dmsetup resume data; wait; gone one"
	table=$(dmsetup table t-one)
	dmsetup suspend --noflush --nolockfs data
	dd if="$REF/small" of=/dev/mapper/t-one bs=64k oflag=direct conv=notrunc status=none &
	writer=$!
	wait_for 20 in_flight t-one
	refused 6 "did not end within" attach t-one
	expect_state t-one "$table"
	kill -0 $writer || flunk "the writer has ended"
	dmsetup resume data
	wait $writer
	as_before t-one "$table"
	ctl attach t-one
	cmp -n "$(stat -c %s "$REF/small")" /dev/mapper/t-one "$REF/small"
	# nor does an attached one grow then
	dmsetup suspend --noflush --nolockfs data
	dd if="$REF/small" of=/dev/mapper/t-one bs=64k oflag=direct conv=notrunc status=none &
	writer=$!
	wait_for 20 in_flight t-one
	refused 6 "did not end within" resize t-one 160M
	kill -0 $writer || flunk "the writer has ended"
	dmsetup resume data
	wait $writer
	lengths t-one "$(thin_sectors one)"
	ctl resize t-one 160M
	lengths t-one 327680
	ctl detach t-one
}

# in_flight NAME: requests that haven't ended.
in_flight() {
	local reads writes
	read -r reads writes \
		<"/sys/dev/block/$(dmsetup info -c --noheadings -o major,minor "$1")/inflight"
	((reads + writes))
}

# --- what it refuses, and what it takes ----------------------------------------------

odd_devices() {
	local table
	refused 3 "no such" attach nothing
	refused 7 "but a linear" attach data
	refused 7 "drr is not attached" detach data
	thin_snap one base-ext4
	on_exit "gone one"
	table=$(dmsetup table t-one)
	refused 7 "drr is not attached" detach t-one
	refused 7 "lvextend" resize t-one 1G
	refused 7 "but a linear" resize data
	refused 3 "no such" resize nothing 1G
	# somebody is at work on it
	dmsetup suspend t-one
	refused 6 "dmsetup resume t-one" attach t-one
	[ "$(dmsetup info -c --noheadings -o suspended t-one)" = Suspended ] || flunk "was resumed"
	dmsetup resume t-one
	dmsetup load t-one --table "$table"
	refused 6 "dmsetup clear t-one" attach t-one
	[ "$(dmsetup info -c --noheadings -o tables_loaded t-one)" = "Live + Inactive" ] ||
		[ "$(dmsetup info -c --noheadings -o tables_loaded t-one)" = Both ] ||
		flunk "somebody's table is gone: $(dmsetup info -c -o all t-one)"
	dmsetup clear t-one
	as_before t-one "$table"
	# attached already, by itself and by hand
	ctl attach t-one --no-donate
	refused 6 "attached to it already" attach t-one
	refused 7 "below an attached one" attach "$(dmsetup ls | grep -o '^drr-[^	]*')"
	refused 7 "below an attached one" resize "$(second t-one)"
	dmsetup suspend t-one
	refused 6 "dmsetup resume t-one" resize t-one 1G
	dmsetup resume t-one
	dmsetup load t-one --table "${table/ $(thin_sectors one) / 128 }"
	refused 6 "dmsetup clear t-one" resize t-one 1G
	dmsetup clear t-one
	dmsetup suspend pool
	refused 1 "suspended" resize t-one 1G
	dmsetup resume pool
	lengths t-one "$(thin_sectors one)"
	refused 7 "below an attached one" create x "$(dmsetup ls | grep -o '^drr-[^	]*')"
	refused 7 "but a drr" create x t-one
	ctl detach t-one
	ctl create above t-one
	refused 6 "above" attach t-one
	refused 7 "is a drr device itself" attach above
	refused 7 "drrctl remove" detach above
	ctl remove above
	as_before t-one "$table"
	# LVM's
	dmsetup create vg-lv --uuid LVM-abc --table "0 $(thin_sectors one) thin \
/dev/mapper/pool $(thin_id one)"
	refused 7 "drrctl create NEW-NAME vg-lv" attach vg-lv
	dm_remove vg-lv
	# suspended pools
	dmsetup suspend pool
	refused 1 "suspended" attach t-one
	dmsetup resume pool
	as_before t-one "$table"
	# no module
	rmmod dm_drr
	mv "/lib/modules/$(uname -r)/updates/dm-drr.ko" /tmp/
	on_exit "mv /tmp/dm-drr.ko /lib/modules/$(uname -r)/updates/"
	refused 5 "modprobe dm-drr" attach t-one
	as_before t-one "$table"
}

odd_tables() {
	local table sectors
	thin_snap one base-ext4
	sectors=$(thin_sectors one)
	# read-only
	dm_remove t-one
	dmsetup create t-one --readonly --table "0 $sectors thin /dev/mapper/pool $(thin_id one)"
	ctl attach t-one
	[ "$(blockdev --getro /dev/mapper/t-one)" = 1 ] || flunk "can be written"
	ctl detach t-one
	[ "$(blockdev --getro /dev/mapper/t-one)" = 1 ] || flunk "can be written"
	dm_remove t-one
	# shorter than the thin device
	dmsetup create t-one --table "0 128 thin /dev/mapper/pool $(thin_id one)"
	table=$(dmsetup table t-one)
	ctl attach t-one
	[ "$(blockdev --getsz /dev/mapper/t-one)" = 128 ] || flunk "another size"
	ctl detach t-one
	as_before t-one "$table"
	dm_remove t-one
	# with an external origin
	dmsetup message pool 0 "create_thin 1000"
	dmsetup create t-one --table "0 128 thin /dev/mapper/pool 1000 /dev/mapper/t-base-ext4"
	table=$(dmsetup table t-one)
	ctl attach t-one
	cmp -n 65536 /dev/mapper/t-one /dev/mapper/t-base-ext4
	dd if=/dev/zero of=/dev/mapper/t-one bs=4k count=1 oflag=direct status=none
	ctl detach t-one
	as_before t-one "$table"
	cmp -n 4096 /dev/mapper/t-one /dev/zero
	dm_remove t-one
	dmsetup message pool 0 "delete 1000"
	# names
	dmsetup create "my dev" --table "0 $sectors thin /dev/mapper/pool $(thin_id one)"
	table=$(dmsetup table "my dev")
	ctl attach "my dev"
	is_attached "my dev" || flunk "$(dmsetup table)"
	ctl detach "/dev/mapper/my\\x20dev"
	as_before "my dev" "$table"
	dm_remove "my dev"
	local long
	long=$(printf 'x%.0s' {1..127})
	dmsetup create "$long" --table "0 $sectors thin /dev/mapper/pool $(thin_id one)"
	ctl attach "$long"
	ctl detach "$long"
	dm_remove "$long"
	rm "$THINS/one"
}

[ "$DRR" = drr ] || { say "these are about drr"; finish; exit; }
bases_up
run_case "attached and detached, ext4" serves ext4
run_case "attached and detached, xfs" serves xfs
run_case "no slab goes with the last target" no_slab_goes
run_case "an attached device grows, ext4" grows ext4
run_case "an attached device grows, xfs" grows xfs
run_case "a device follows its thin device" follows
run_case "cycles under I/O" cycles_under_io
[ ! -e "$WORK/cycles" ] || say "$(<"$WORK/cycles") cycles of attach and detach"
run_case "killed at every step" killed
run_case "killed while it grows" killed_growing
run_case "what a dead one has left" left_behind
run_case "a stray table" stray_table
run_case "removed while it is attached" removed_meanwhile
run_case "removed when it is attached" removed_attached
run_case "a second device that is left suspended" suspended_below
run_case "deleted while it is attached" deleted_while_open
run_case "snapshots of an attached device" snapshots
run_case "I/O that hangs" hanging_io
run_case "odd devices" odd_devices
run_case "odd tables" odd_tables
run_case "nothing is remembered after unmount" all_down
finish
