#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# The disk below the pool fails while siblings read and write: read errors, write errors,
# everything or in places, for seconds, again and again, or without a word. Whatever fails,
# a read gives right bytes or an error, and what was synced is there afterwards.

# shellcheck source=tools/testing/lib.sh
. "${0%/*}/../lib.sh"
# shellcheck source=tools/testing/faults/faults.sh
. "${0%/*}/../faults/faults.sh"

DISK=/dev/$DATA_DISK

# under_fault KIND ERRORS INJECT...: the fault lasts until the load has seen these errors,
# read_errors or write_errors, separated by commas; after it the load goes on for a second.
under_fault() {
	local kind=$1
	IFS=, read -r -a WANTED <<<"$2"
	shift 2
	siblings_up "$kind"
	load_start
	"$@"
	sleep 1
	load_end
	check_siblings "$kind"
	siblings_end
}

# fails TABLE: the disk does.
fails() {
	on_exit data_healthy
	data_table "$1"
	load_until "${WANTED[@]}"
	sleep 0.5
	data_healthy
}

# flakey UP DOWN [FEATURE...]
flakey() {
	local up=$1 down=$2
	shift 2
	fails "0 $(sectors "$DISK") flakey $DISK 0 $up $down $# $*"
}

# Every other 64 KiB fails, at an offset that isn't a data block's.
gone_in_places() {
	fails "$(awk -v n=$(($(sectors "$DISK") / 256)) -v disk="$DISK" 'BEGIN {
		for (i = 0; i < n; i++) {
			print i * 256, 104, "linear", disk, i * 256
			print i * 256 + 104, 152, "error"
		}
	}')"
}

# Sectors that can't be read or written, as a medium has them: a request fails after its
# good beginning was transferred.
bad_sectors() {
	local dir=/sys/kernel/config/nullb/$DATA_DISK i at=() total
	[ -e "$dir/badblocks_partial_io" ] || skip "null_blk cannot fail in the middle of a request"
	total=$(sectors "$DISK")
	for ((i = 0; i < 300; i++)); do
		at[i]=$((i * (total / 300) / 8 * 8 + i % 8))
		echo "+${at[i]}-$((at[i] + 3))" >"$dir/badblocks"
	done
	on_exit "sectors_good ${at[*]}"
	load_until "${WANTED[@]}"
	sectors_good "${at[@]}"
}

sectors_good() {
	local at
	for at; do
		echo "-$at-$((at + 3))" >"/sys/kernel/config/nullb/$DATA_DISK/badblocks"
	done
}

# dm-dust: bad blocks that a write mends, as a disk remaps them. How many of them are ever read depends
# on what the load has in memory by then, so there are more and more.
dust() {
	modprobe -q dm-dust || skip "the kernel has no dm-dust"
	on_exit data_healthy
	data_table "0 $(sectors "$DISK") dust $DISK 0 4096"
	BAD=0
	more_dust 128
	dmsetup message data 0 enable
	wait_for 60 dust_is_read
	load_until "${WANTED[@]}"
	dmsetup message data 0 disable
	data_healthy
}

dust_is_read() {
	load_has read_errors || {
		more_dust 16
		return 1
	}
}

# more_dust COUNT: all over the disk, between those that there are.
more_dust() {
	local blocks=$(($(sectors "$DISK") / 8)) end=$((BAD + $1))
	for ((; BAD < end; BAD++)); do
		dmsetup message data 0 addbadblock $((BAD * 81001 % blocks))
	done
}

# The disk says nothing at all for a while: no error, only time.
stalls() {
	dmsetup suspend --nolockfs data
	on_exit "dmsetup resume data"
	sleep 2
	dmsetup resume data
}

# A disk that takes writes and forgets them is beyond a file system's help, so this one is
# used raw. What it holds afterwards is anybody's guess; that siblings and thin device agree
# on it isn't.
forgets_writes() {
	local i name
	thin_snap liar base
	drr_new liar paranoid
	on_exit "data_healthy; container_down liar"
	data_table "0 $(sectors "$DISK") flakey $DISK 0 0 60 1 drop_writes"
	for ((i = 0; i < 8; i++)); do
		xfs_io -d -c "pwrite -q -b 64k -S $i $((i * 640))k 640k" /dev/mapper/liar
		if ((i % 4 == 3)); then
			name=copy$i
			thin_snap "$name" liar
			drr_new "$name" paranoid
			on_exit "exec 7<&- 8<&-; container_down $name"
		fi
	done
	exec 7</dev/mapper/liar 8</dev/mapper/copy3
	agree liar copy3
	data_healthy
	agree copy7 copy3 liar
	exec 7<&- 8<&-
}

# agree NAME...: what the devices give is what their thin devices do.
agree() {
	local name
	for name; do
		dd if="/dev/mapper/t-$name" of="$WORK/thin" bs=1M count=5 iflag=direct status=none
		dd if="/dev/mapper/$name" of="$WORK/raw" bs=1M count=5 status=none
		same "$WORK/raw" "$WORK/thin"
	done
}

# A disk that gives wrong data and says nothing. What a container has read is then wrong, and
# so is what siblings get from it, as with any cache; paranoid mode sees it and says so.
lies() {
	[ "$DRR" != none ] || skip "no drr"
	siblings_up "$1"
	settle /mnt/a/one
	settle /mnt/b/one
	on_exit data_healthy
	data_table "0 $(sectors "$DISK") flakey $DISK 0 0 60 5 corrupt_bio_byte 32 r 85 0"
	! cmp /mnt/a/one "$REF/one" || flunk "the disk did not lie"
	data_healthy
	same /mnt/b/one "$REF/one"
	expect "mismatches" "$(stat_of b mismatches)" 1..
	evict /mnt/a/one /mnt/b/one
	same /mnt/a/one "$REF/one"
	same /mnt/b/one "$REF/one"
	dmsetup message b 0 reset_stats
	siblings_end
}

random_file one 1M
random_file two 512K
random_file odd 333333

for fs in ext4 xfs; do
	pool_up 512
	image_new $fs base 320

	run_case "$fs: reads fail" under_fault $fs read_errors flakey 0 60 error_reads
	run_case "$fs: writes fail" under_fault $fs write_errors flakey 0 60 error_writes
	run_case "$fs: the disk is gone" \
		under_fault $fs read_errors,write_errors fails "0 $(sectors "$DISK") error"
	run_case "$fs: the disk is gone in places" under_fault $fs read_errors gone_in_places
	if [ $fs = ext4 ]; then	# what needs no second file system
		run_case "$fs: the disk comes and goes" \
			under_fault $fs read_errors,write_errors flakey 1 1
		run_case "$fs: bad sectors" under_fault $fs read_errors bad_sectors
		run_case "$fs: bad sectors that a write mends" under_fault $fs read_errors dust
		run_case "$fs: the disk says nothing for a while" under_fault $fs "" stalls
		run_case "$fs: the disk lies" lies $fs
		run_case "raw: the disk forgets writes" forgets_writes
	fi
	run_case "$fs: nothing is remembered after unmount" all_down
done
finish
