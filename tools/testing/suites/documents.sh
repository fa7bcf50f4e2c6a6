#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# The commands that the documents show, as they stand there and in their order. Each is run here,
# unless `elsewhere` says who runs it; one that nobody knows what to do with is run, too, so that a
# new one can't be forgotten. `make check` looks at those for the machine that DRR is built on.

# shellcheck source=tools/testing/lib.sh
. "${0%/*}/../lib.sh"

DOCUMENTS=${0%/*}/../documents
COMMANDS=${0%/*}/../commands.awk
PTY=${0%/*}/../bin/drr-pty
FOUND=0
export PATH=${0%/*}/../bin:$PATH

# elsewhere COMMAND: says who runs it, if it isn't this suite.
elsewhere() {
	case $1 in
	make\ * | scripts/* | git\ am\ *) echo "make check: it is for the machine that builds" ;;
	mokutil\ *) echo "nobody: it wants a machine with UEFI and Secure Boot" ;;
	apt\ * | dkms\ * | systemctl\ * | perf\ * | bpftrace\ *)
		echo "make deb-test: it wants an installed Debian"
		;;
	esac
}

# lasting COMMAND: it is there until it is ended.
lasting() {
	case $1 in
	"drrctl watch"* | "drrctl export --listen"* | "cat trace_pipe") true ;;
	*) false ;;
	esac
}

# ready_for COMMAND: what the text around it takes for granted.
ready_for() {
	case $1 in
	"modprobe dm-thin-pool")
		modprobe -n -q dm-thin-hooks || skip "the patched dm-thin-pool needs no hooks"
		modprobe dm-drr
		rmmod dm-drr dm-thin-hooks
		rm -rf build
		mkdir -p build
		ln -s "/lib/modules/$(uname -r)/updates" build/debian
		;;
	"drrctl attach pool-snap-"*) snapshots "${1##* }" ;;
	"resize2fs /dev/mapper/pool-snap-7")
		mkdir -p /mnt/snap
		mount /dev/mapper/pool-snap-7 /mnt/snap
		;;
	"drrctl create c1 vg-c1") snapshots vg-c1 ;;
	"drrctl create c1 /dev/mapper/thin1") snapshots thin1 thin2 ;;
	"drrctl attach c1")
		dm_remove c2
		snapshots c1 c2
		;;
	"drrctl watch")
		mkdir -p /etc/drrctl
		echo 'pools = ["pool"]' >/etc/drrctl/drrctl.toml
		;;
	"drrctl watch --config "*) cp /etc/drrctl/drrctl.toml FILE ;;
	"drrctl export --listen"*) busybox ip link set lo up ;;
	"drrctl export --textfile "*) mkdir -p /var/lib/prometheus/node-exporter ;;
	"dmsetup message c2 0 heat")
		snapshots thin2
		dmsetup create c2 --table "0 2097152 drr /dev/mapper/thin2"
		;;
	'dmsetup message pool 0 "create_snap 1 0"')
		dm_remove c2
		dm_remove thin2
		;;
	esac
	mkdir -p /mnt/c1 /mnt/c2
}

# snapshots NAME...: of an image with a file; and the pool, if there is none.
snapshots() {
	local name
	if ! [ -e /dev/mapper/pool ]; then
		pool_up 256
		random_file big 4M
		image_new ext4 base 64
		dm_remove t-base
		echo 100 >"$THINS/next" # the documents give the first ones themselves
	fi
	for name; do
		thin_remember "$name" 2097152
		dmsetup message pool 0 "create_snap $(thin_id "$name") 0"
		dmsetup create "$name" --table "0 2097152 thin /dev/mapper/pool $(thin_id "$name")"
	done
}

# ends_by_us COMMAND: it goes on until it is told to end, and has not failed by then.
ends_by_us() {
	local rc=0
	timeout $((3 * ${DRR_SLOW:-1})) bash -c "$1" || rc=$?
	[ "$rc" = 124 ] || flunk "ended by itself, exit code $rc: $1"
}

# commands_of FILE
commands_of() { (cd "$DOCUMENTS" && awk -f "$COMMANDS" "$1") | cut -f2-; }

# run_here FILE: those of its commands that are for a guest like this. Tells of the others, but for what
# make check looks at.
run_here() {
	local command who
	while read -r command; do
		who=$(elsewhere "$command")
		case $who in
		"") echo "$command" ;;
		"make check"*) ;;
		*) say "$1: not run: $command ($who)" >&2 ;;
		esac
	done < <(commands_of "$1")
}

# document COMMAND...
document() {
	local command
	[ "${DRR_SLOW:-1}" = 1 ] || skip "the kernels with checkers have not all that documents use"
	mkdir -p "$WORK/folder"
	cd "$WORK/folder"
	on_exit 'cd /; undone'
	for command; do
		ready_for "$command"
		say "running: $command"
		if [[ $command = "drrctl top"* ]]; then
			"$PTY" $((4 * ${DRR_SLOW:-1})) q bash -c "$command"
		elif lasting "$command"; then
			ends_by_us "$command"
		else
			eval "$command"
		fi
	done
}

# undone: whatever a document has made.
undone() {
	local name
	[ ! -e /sys/kernel/tracing/events/drr/enable ] || echo 0 >/sys/kernel/tracing/events/drr/enable
	for name in /mnt/*/; do
		! mountpoint -q "$name" || umount "$name"
	done
	for name in $(dmsetup ls --target drr | cut -f1); do
		dm_remove "$name"
	done
	for name in $(dmsetup ls --target thin | cut -f1); do
		[ ! -e "/dev/mapper/$name" ] || dm_remove "$name"
	done
	all_down
}

while read -r -u 3 name; do
	mapfile -t commands < <(run_here "$name")
	[ ${#commands[@]} = 0 ] || run_case "$name" document "${commands[@]}"
	FOUND=$((FOUND + ${#commands[@]}))
done 3< <(cd "$DOCUMENTS" && find . -name '*.md' -o -name '*.rst' | sed 's|^\./||' | sort)
run_case "commands are found in documents" expect "commands" $FOUND 50..
finish
