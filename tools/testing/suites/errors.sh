#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# Bad tables and messages: each gives its text in the kernel log, and leaves nothing behind.

# shellcheck source=tools/testing/lib.sh
. "${0%/*}/../lib.sh"

SECTORS=$((64 << 11))

# What must be as before after every refusal: devices, and who has the thin device open.
footprint() {
	dmsetup ls | sort
	dmsetup info -c --noheadings -o name,open t-thin
	lsmod | grep '^dm_thin_pool'
}

# refused TABLE TEXT...: a table that is refused, with all the texts in the kernel log.
refused() {
	local table=$1 before text log
	shift
	before=$(footprint)
	dmesg -C
	expect_fail dmsetup create bad <<<"$table"
	log=$(dmesg)
	for text; do
		[[ $log == *"$text"* ]] || flunk "no '$text' in the log of '$table': $log"
	done
	! dmsetup info bad >/dev/null 2>&1 || flunk "'$table' left a device behind"
	[ "$(footprint)" = "$before" ] || flunk "'$table' left something behind: $(footprint)"
}

bad_arguments() {
	local thin="0 $SECTORS drr /dev/mapper/t-thin"
	refused "0 $SECTORS drr" "Invalid argument count" "<thin device>"
	refused "$thin 1" "Wrong number of feature arguments" '"1"'
	refused "$thin 0 paranoid" "Wrong number of feature arguments"
	refused "$thin 2 paranoid" "Wrong number of feature arguments"
	refused "$thin -1" "Wrong number of feature arguments" '"-1"'
	refused "$thin x" "Wrong number of feature arguments" '"x"'
	refused "$thin 99999999999999999999 paranoid" "Wrong number of feature arguments"
	refused "$thin 1 Paranoid" "Unknown feature argument" '"Paranoid"' "no_donate"
	refused "$thin 1 no_cache" "Unknown feature argument" '"no_cache"'
	refused "$thin 2 no_donate no_donate" "Feature argument given twice" '"no_donate"'
}

bad_devices() {
	refused "0 $SECTORS drr /dev/nowhere" "Cannot open device" "/dev/nowhere"
	refused "0 $SECTORS drr 250:77" "Cannot open device" "250:77"
	refused "0 $SECTORS drr /dev/$DATA_DISK" "not a device-mapper thin device"
	refused "0 $SECTORS drr /dev/loop0" "not a device-mapper thin device" "/dev/loop0"
	refused "0 $SECTORS drr /dev/mapper/pool" "not a device-mapper thin device"
	dmsetup create line --table "0 $SECTORS linear /dev/mapper/t-thin 0"
	on_exit "dmsetup remove line"
	refused "0 $SECTORS drr /dev/mapper/line" "not a device-mapper thin device"
	dmsetup create halves <<-EOF
	0 $((SECTORS / 2)) zero
	$((SECTORS / 2)) $((SECTORS / 2)) zero
	EOF
	on_exit "dmsetup remove halves"
	refused "0 $SECTORS drr /dev/mapper/halves" "not a device-mapper thin device"
}

# All thin devices are suspended for a moment when their pool's table is replaced, as it is to
# make it grow: that is waited for. Not for ever.
suspended_device() {
	local table="0 $SECTORS drr /dev/mapper/t-thin" resumer
	dmsetup suspend t-thin
	on_exit "dmsetup resume t-thin"
	refused "$table" "Thin device is suspended: resume it, or its pool" "/dev/mapper/t-thin"
	dmsetup resume t-thin
	dmsetup suspend pool
	on_exit "dmsetup resume pool"
	(sleep 0.5; dmsetup resume pool) &
	resumer=$!
	dmsetup create late --table "$table"
	wait "$resumer"
	dm_remove late
}

bad_lengths() {
	refused "0 $((SECTORS + 8)) drr /dev/mapper/t-thin" "too long" "$SECTORS"
	refused "0 $((1 << 40)) drr /dev/mapper/t-thin" "too long"
}

# Somebody else has the thin device.
busy_device() {
	mkfs.ext4 -q -F -b 4096 /dev/mapper/t-thin
	mkdir -p /mnt/thin
	mount /dev/mapper/t-thin /mnt/thin
	on_exit "umount /mnt/thin"
	refused "0 $SECTORS drr /dev/mapper/t-thin" "Cannot open device"
}

# message_refused MESSAGE TEXT: the log says TEXT; no effect.
message_refused() {
	dmesg -C
	expect_fail dmsetup message good 0 "$1"
	dmesg | grep -qF "$2" ||
		flunk "no text for the message '$1': $(dmesg)"
}

bad_messages() {
	local before
	dmsetup create good --table "0 $SECTORS drr /dev/mapper/t-thin"
	on_exit "dm_remove good"
	dd if=/dev/mapper/good of=/dev/null bs=64k count=4 iflag=direct status=none
	before=$(dmsetup status good)
	message_refused "resetstats" 'unknown message "resetstats": known are layers, heat'
	message_refused "RESET_STATS" 'unknown message "RESET_STATS"'
	message_refused "reset_stats now" 'superfluous argument "now"'
	message_refused "heat 1" 'superfluous argument "1"'
	message_refused "blocks maybe" 'unknown argument "maybe": on or off'
	message_refused "duplicates of" 'unknown argument "of": list'
	message_refused "duplicates list -1" 'not a place in the list "-1"'
	message_refused "layer 1" 'arguments are missing "layer"'
	message_refused "layer x -" 'not a thin id "x"'
	message_refused "layer 1 - x" "not a pool's time \"x\""
	message_refused "layer 1 2" "layer 1: unknown parent"
	message_refused "layer 1 -" "layer 1: unknown layer"
	[ "$(dmsetup status good)" = "$before" ] || flunk "a refused message changed the status"
	dmsetup message good 0 reset_stats
	expect "reads" "$(stat_of good reads)" 0
}

# Canonical table, and what is measured of it.
tables_are_canonical() {
	local number
	number=$(dmsetup info -c --noheadings -o major,minor --separator : t-thin)
	drr_new thin
	[ "$(dmsetup table thin)" = "0 $SECTORS drr $number" ] ||
		flunk "table is $(dmsetup table thin)"
	dm_remove thin
	drr_new thin paranoid no_receive no_donate
	[ "$(dmsetup table thin)" = "0 $SECTORS drr $number 3 no_donate no_receive paranoid" ] ||
		flunk "table is $(dmsetup table thin)"
	dm_remove thin
	dmsetup create thin --table "0 $SECTORS drr $number 0"
	[ "$(dmsetup table thin)" = "0 $SECTORS drr $number" ] ||
		flunk "table is $(dmsetup table thin)"
	dm_remove thin
}

# A table that was made and is never used goes without a trace.
unused_table() {
	local before
	before=$(footprint)
	dmsetup create idle --notable
	dmsetup load idle --table "0 $SECTORS drr /dev/mapper/t-thin"
	dmsetup clear idle
	dmsetup load idle --table "0 $SECTORS drr /dev/mapper/t-thin"
	dmsetup remove idle
	[ "$(footprint)" = "$before" ] || flunk "left behind: $(footprint)"
}

[ "$DRR" = drr ] || { say "these are about drr"; finish; exit; }
pool_up 128
modprobe loop max_loop=1
truncate -s 64M /tmp/loop
losetup /dev/loop0 /tmp/loop
thin_new thin 64
modprobe dm-drr
run_case "arguments" bad_arguments
run_case "devices" bad_devices
run_case "suspended" suspended_device
run_case "lengths" bad_lengths
run_case "device in use" busy_device
run_case "messages" bad_messages
run_case "canonical tables" tables_are_canonical
run_case "tables that are never used" unused_table
losetup -d /dev/loop0
run_case "nothing is remembered after unmount" all_down
finish
