#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# The installed packages on a Debian that has booted with its own systemd and udev: what an operator
# types, as the documents have it. Run by boot.sh.

# shellcheck source=tools/testing/lib.sh
. "${0%/*}/../lib.sh"
# shellcheck source=tools/testing/attaching.sh
. "${0%/*}/../attaching.sh"

DOCUMENTS=${0%/*}/../documents
COMMANDS=${0%/*}/../commands.awk
CONFIG=/etc/drrctl/drrctl.toml

# type_in FILE PATTERN: the command of a document that matches, once, and runs it.
type_in() {
	local commands
	commands=$(awk -f "$COMMANDS" "$DOCUMENTS/$1" | cut -f2- | grep -E "$2" | sort -u)
	expect "commands in $1 like $2" "$(wc -l <<<"$commands")" 1
	say "running: $commands"
	eval "$commands"
}

unit_is() { [ "$(systemctl is-active "$1")" = "$2" ]; }

# Nothing was loaded by hand: the unit does it.
watch_starts() {
	[ ! -e /sys/module/dm_drr ] || flunk "dm-drr is loaded already"
	sed -i 's/^pools = .*/pools = ["pool"]/' $CONFIG
	type_in Documentation/admin-guide/operating.rst '^systemctl enable'
	unit_is drrctl-watch active || flunk "$(systemctl status drrctl-watch)"
	[ -e /sys/module/dm_drr ] || flunk "dm-drr isn't loaded"
	[ "$(systemctl is-enabled drrctl-watch)" = enabled ] || flunk "not enabled"
}

# Before anything is loaded.
doctor_is_content() {
	drrctl doctor
	drrctl doctor --json | python3 -m json.tool >/dev/null
}

# Links are made to what is mounted, and none to what is below it.
devices_are_attached() {
	local below
	pool_up 256
	thin_new a 64
	wait_for 60 is_attached t-a
	# udev misses what is written while it sees to the change
	udevadm settle
	mkfs.ext4 -q -b 4096 -L a-label /dev/mapper/t-a
	(wait_for 20 label_leads_to t-a) ||
		flunk "no link to t-a by its label: $(udevadm info /dev/mapper/t-a; ls -l /dev/disk/by-label)"
	below=$(dmsetup ls | cut -f 1 | grep '^drr-')
	say "below t-a: $below"
	below=/sys/block/$(dmsetup info -c --noheadings -o blkdevname "$below")
	[ "$(udevadm info -q property --property SYSTEMD_READY --value "$below")" = 0 ] ||
		flunk "systemd takes $below for a device in use: $(udevadm info "$below")"
	[ ! "$(udevadm info -q symlink "$below")" ] || flunk "has links: $(udevadm info "$below")"
}

label_leads_to() { [ "$(readlink -f /dev/disk/by-label/a-label)" = "$(readlink -f "/dev/mapper/$1")" ]; }

siblings_are_served() {
	mkdir -p /mnt/t-a /mnt/t-b /mnt/t-c
	mount /dev/mapper/t-a /mnt/t-a
	head -c 2M /dev/urandom >/mnt/t-a/file
	sync
	umount /mnt/t-a
	thin_snap b a
	thin_snap c a
	wait_for 60 is_attached t-b
	wait_for 60 is_attached t-c
	mount -o ro /dev/mapper/t-b /mnt/t-b
	mount -o ro /dev/mapper/t-c /mnt/t-c
	cat /mnt/t-b/file >/dev/null
	cmp /mnt/t-b/file /mnt/t-c/file
	drrctl status t-c
	expect "sectors served" "$(stat_of t-c hit_sectors)" 4096..
	umount /mnt/t-b /mnt/t-c
}

# dmsetup waits for udev, which waits for the device below. So the thin device isn't in use when
# dmsetup has returned, and its pool takes its deletion, each time.
removed_is_removed() {
	local i
	for ((i = 0; i < 20; i++)); do
		thin_snap gone a
		wait_for 60 is_attached t-gone
		dmsetup remove --retry t-gone
		dmsetup message pool 0 "delete $(thin_id gone)" || flunk "time $i: $(dmsetup ls)"
		rm "$THINS/gone"
	done
	expect "marks that are left" "$(find /run/drrctl/attached -type f 2>/dev/null | wc -l)" 3
}

# Tracepoints, with what reads them, while something is read.
tracepoints_are_read() {
	local command commands file=Documentation/admin-guide/device-mapper/drr.rst reader
	mapfile -t commands < <(awk -f "$COMMANDS" "$DOCUMENTS/$file" | cut -f2- | grep -E '^(perf|bpftrace) ')
	expect "commands in $file" "${#commands[@]}" 4..
	cd "$WORK"
	for command in "${commands[@]}"; do
		reads_all_the_time &
		reader=$!
		on_exit "kill $reader 2>/dev/null"
		say "running: $command"
		if [[ $command = bpftrace* ]]; then
			# it goes on until it is told to end, and prints then
			eval "exec $command" >"$WORK/said" 2>&1 &
			wait_for 90 grep -q '^Attach' "$WORK/said"
			sleep 5
			kill -INT $!
			wait $!
			grep -q '^@.*: [1-9]' "$WORK/said" || flunk "nothing was counted: $(<"$WORK/said")"
		else
			eval "$command" >"$WORK/said" 2>&1
		fi
		tail -n 5 "$WORK/said"
		case $command in
		"perf script") grep -q 'drr:drr_hit' "$WORK/said" || flunk "no hit" ;;
		"perf stat"*) grep -qE '^ *[1-9][0-9,.]* +drr:drr_hit' "$WORK/said" || flunk "no hit" ;;
		esac
		kill $reader
		wait $reader || true
	done
}

# Hits, misses, and records that end.
reads_all_the_time() {
	mount -o ro /dev/mapper/t-b /mnt/t-b
	mount -o ro /dev/mapper/t-c /mnt/t-c
	trap 'umount /mnt/t-b /mnt/t-c; exit' TERM
	while :; do
		cat /mnt/t-b/file /mnt/t-c/file >/dev/null
		echo 1 >/proc/sys/vm/drop_caches
		sleep 0.2
	done
}

exporter_answers() {
	systemctl enable --now drrctl-export
	wait_for 30 request 9776 'GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n' >"$WORK/metrics"
	grep '^drr_hit_bytes_total{device="t-c"' "$WORK/metrics" || flunk "$(<"$WORK/metrics")"
	systemctl disable --now drrctl-export
}

journal_has() { journalctl -u drrctl-watch --no-pager | grep -F -e "$1"; }

# A new configuration is taken; a bad one is not tried over and over.
configuration_is_read() {
	sed -i 's/^exclude = .*/exclude = ["t-left*"]/' $CONFIG
	systemctl reload drrctl-watch
	wait_for 20 journal_has "has read $CONFIG again"
	thin_snap left a
	thin_snap right a
	wait_for 60 is_attached t-right
	! is_attached t-left || flunk "attached what is excluded"
	echo 'pools = [' >>$CONFIG
	expect_fail systemctl restart drrctl-watch
	unit_is drrctl-watch failed || flunk "$(systemctl status drrctl-watch)"
	journal_has "$CONFIG:" || flunk "$(journalctl -u drrctl-watch --no-pager)"
	sed -i '$d' $CONFIG
	systemctl reset-failed drrctl-watch
	systemctl start drrctl-watch
	is_attached t-right || flunk "what was attached is no more"
}

takes_out() {
	local name
	type_in Documentation/admin-guide/operating.rst '^systemctl disable'
	unit_is drrctl-watch inactive || flunk "$(systemctl status drrctl-watch)"
	is_attached t-a || flunk "detached by the end of watch"
	for name in a b c right; do
		drrctl detach "t-$name"
		[ "$(target_of "t-$name")" = thin ] || flunk "$(dmsetup table "t-$name")"
	done
	wait_for 60 seconds_are 0
	for name in a b c left right; do
		dm_remove "t-$name"
	done
	all_down
	modprobe -r dm-drr
}

# udev is there, and whoever uses device-mapper is to wait for it
unset DM_DISABLE_UDEV
run_case "drrctl doctor finds nothing missing" doctor_is_content
run_case "systemctl starts drrctl watch" watch_starts
run_case "devices are attached, and named as without" devices_are_attached
run_case "siblings are served" siblings_are_served
run_case "a removed device's thin device can be deleted at once" removed_is_removed
run_case "perf and bpftrace read tracepoints" tracepoints_are_read
run_case "the exporter answers" exporter_answers
run_case "a changed configuration is read, a bad one reported" configuration_is_read
run_case "it is taken out" takes_out
finish
