#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# VM: --mem 704M
#
# No memory, and no device, and no module: readers are killed in the middle of a read, the
# whole machine reclaims, drr comes and goes under running file systems, is suspended, or is
# taken away by force. All the while siblings read and write, and nobody gets a wrong byte.

# shellcheck source=tools/testing/lib.sh
. "${0%/*}/../lib.sh"
# shellcheck source=tools/testing/faults/faults.sh
. "${0%/*}/../faults/faults.sh"

# in_load KIND FUNCTION: something happens to three siblings under load.
in_load() {
	siblings_up "$1"
	load_start
	sleep 0.5
	"$2" "$1"
	sleep 0.5
	load_end
	check_siblings "$1"
	siblings_end
}

# killed_in GROUP: how many processes of it have run out of memory.
killed_in() {
	sed -n 's/^oom_kill //p' "$GROUPS_DIR/$1/memory.events"
}

# greedy FILE OOM_SCORE: reads much of a file at once, into memory that it hasn't got yet.
greedy() {
	echo "$2" >"/proc/$BASHPID/oom_score_adj"
	exec dd if="$1" of=/dev/null bs=160M count=1 status=none
}

# A reader's memory group is full halfway through its read, over and over.
readers_killed() {
	local i before name readers
	group_new small 6M
	on_exit "group_end small"
	before=$(killed_in small)
	for ((i = 0; i < 5; i++)); do
		readers=()
		for name in b c; do
			in_group small greedy "/mnt/$name/big" 0 &
			readers+=($!)
		done
		wait "${readers[@]}" || true
		evict /mnt/b/big
	done
	expect "readers killed" $(($(killed_in small) - before)) 6..
}

# free_mib: what could be had without taking anything from anybody.
free_mib() {
	awk '/^MemAvailable:/ { print int($2 / 1024) }' /proc/meminfo
}

# ballast: only holds 8 MiB, in front of a pipe that nobody reads. What there is to be killed
# between the end of a greedy reader and the moment when its memory is free again.
ballast() {
	echo 999 >"/proc/$BASHPID/oom_score_adj"
	exec dd if=/dev/zero bs=8M count=1 status=none 1<>"$WORK/ballast"
}

# The machine has no memory left: everything reclaims, and the greedy are killed.
machine_full() {
	local i before after
	# neither the load nor this shell is to blame
	echo -1000 >"/proc/$LOAD/oom_score_adj"
	echo -1000 >"/proc/$$/oom_score_adj"
	echo -1000 >"/proc/$BASHPID/oom_score_adj"
	mkfifo "$WORK/ballast"
	for ((i = 0; i < 6; i++)); do
		ballast &
		on_exit "kill $! 2>/dev/null || true"
	done
	mkdir -p /tmp/full
	mount -t tmpfs -o size=100% tmpfs /tmp/full
	on_exit "! mountpoint -q /tmp/full || umount /tmp/full"
	for ((i = 0; $(free_mib) > 48; i++)); do
		fallocate -l 16M "/tmp/full/$i"
	done
	before=$(sed -n 's/^oom_kill //p' /proc/vmstat)
	for ((i = 0; i < 3; i++)); do
		(greedy /dev/mapper/b 1000) &
		wait $! || true
		evict /mnt/a/big
	done
	after=$(sed -n 's/^oom_kill //p' /proc/vmstat)
	umount /tmp/full
	expect "readers killed" $((after - before)) 1..
}

# linear, drr: what is below a mounted file system, from now on.
table_of() {
	case $1 in
	linear) echo "0 $(thin_sectors "$2") linear /dev/mapper/t-$2 0" ;;
	drr) drr_table "$2" ;;
	esac
}

# replaced WITH: under all siblings.
replaced() {
	local name
	for name in "${SIBLINGS[@]}"; do
		dmsetup load "$name" --table "$(table_of "$1" "$name")"
		dmsetup suspend --nolockfs "$name"
		dmsetup resume "$name"
	done
}

# The module goes while its former devices are in use, and comes again, over and over. It does
# neither while it isn't time to.
module_comes_and_goes() {
	local i
	[ "$DRR" != none ] || skip "no drr"
	for ((i = 0; i < 5; i++)); do
		expect_fail rmmod dm_drr 2>&1
		expect_fail insmod "$(modinfo -n dm-drr)" 2>&1
		replaced linear
		rmmod dm_drr
		expect_fail rmmod dm_drr 2>&1
		[ ! -e /sys/module/dm_drr ] || flunk "a part of the module is still there"
		modprobe dm-drr
		replaced drr
	done
}

# Each in turn is suspended for a moment, its file system frozen first, or not.
suspended_in_turn() {
	local i name
	for ((i = 0; i < 2; i++)); do
		for name in "${SIBLINGS[@]}"; do
			dmsetup suspend "$name"
			sleep 0.1
			dmsetup resume "$name"
			dmsetup suspend --nolockfs --noflush "$name"
			sleep 0.1
			dmsetup resume "$name"
		done
	done
}

# Taken away under its mounted file system: it gets errors; the others notice nothing. Then
# it is put back, and all that was synced is there.
taken_away() {
	siblings_up "$1"
	load_start
	sleep 0.5
	dmsetup remove --force a 2>&1 || true
	load_until write_errors
	[ "$DRR" = none ] || [[ $(dmsetup status a) == *" error "* ]] || flunk "$(dmsetup status a)"
	sleep 0.5
	load_end
	expect_fail cat /mnt/a/big
	same /mnt/b/big "$REF/big"
	umount /mnt/a
	dm_remove a
	drr_new a paranoid
	fs_mount "$1" a
	check_siblings "$1"
	siblings_end
}

# drop_caches, compaction: the machine's memory is turned over.
memory_turned_over() {
	local i
	for ((i = 0; i < 6; i++)); do
		echo $((i % 3 + 1)) >/proc/sys/vm/drop_caches
		[ ! -e /proc/sys/vm/compact_memory ] || echo 1 >/proc/sys/vm/compact_memory
		sleep 0.2
	done
}

random_file big 10M
random_file one 512K
random_file odd 333333

for fs in ext4 xfs; do
	FILL_METADATA=1 pool_up 512
	image_new $fs base 320
	run_case "$fs: readers are killed for want of memory" in_load $fs readers_killed
	run_case "$fs: the module comes and goes" in_load $fs module_comes_and_goes
	run_case "$fs: taken away by force" taken_away $fs
	if [ $fs = ext4 ]; then	# what needs no second file system
		run_case "$fs: the machine is out of memory" in_load $fs machine_full
		run_case "$fs: caches dropped, memory compacted" in_load $fs memory_turned_over
		run_case "$fs: suspended in turn" in_load $fs suspended_in_turn
	fi
	run_case "$fs: nothing is remembered after unmount" all_down
done
finish
