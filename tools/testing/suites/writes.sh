#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# Small writes into shared blocks: with donors for the rest the whole block is written, and nothing
# read; and whoever writes to the same block at the same time loses nothing. Raw devices: `donor`
# has the content of `base` in memory, `receiver` writes past the page cache.

# shellcheck source=tools/testing/lib.sh
. "${0%/*}/../lib.sh"

MIB=4

# devices [FEATURE...]: features are the receiver's.
devices() {
	pool_up 64
	on_exit 'exec 7<&- 8<&-; all_down'
	random_file base ${MIB}M
	thin_new base $MIB
	dd if="$REF/base" of=/dev/mapper/t-base bs=1M oflag=direct status=none
	thin_snap donor base
	thin_snap receiver base
	drr_new donor
	drr_new receiver "$@"
	cp "$REF/base" "$REF/receiver"
	exec 7</dev/mapper/donor
	cat <&7 >/dev/null
}

# write_part AT BYTES: on the receiver, and where what it has to have is kept.
write_part() {
	head -c "$2" /dev/urandom >"$WORK/part"
	dd if="$WORK/part" of="$REF/receiver" conv=notrunc oflag=seek_bytes seek="$1" bs="$2" status=none
	dd if="$WORK/part" of=/dev/mapper/receiver oflag=direct,seek_bytes seek="$1" bs="$2" status=none
}

# all_right NAME...: what is on the disk of these devices, read without DRR.
all_right() {
	local name
	for name in base donor receiver "$@"; do
		dd if="/dev/mapper/t-$name" bs=1M iflag=direct status=none >"$WORK/got"
		cmp "$WORK/got" "$REF/$([ -e "$REF/$name" ] && echo "$name" || echo base)" ||
			flunk "$name has wrong data"
	done
}

# counts WHOLE SECTORS: since `begin`, so many blocks were written as a whole, and read from the disk.
begin() {
	BEFORE=$(disk_sectors_read) WHOLE=$(stat_of receiver whole_writes)
}
counts() {
	expect_drr "blocks written as a whole" $(($(stat_of receiver whole_writes) - WHOLE)) "$1"
	expect_drr "sectors read from the disk" $(($(disk_sectors_read) - BEFORE)) "$2"
}

# Parts that begin and end anywhere, each in a block of its own.
parts() {
	local block=$((BLOCK_SECTORS * 512)) part at=0 number=0
	devices
	begin
	for part in 0,512 0,4096 4096,4096 512,512 3584,1024 4608,20480 61440,4096 65024,512 512,64512 \
		0,65024 7680,57856; do
		write_part $((at + ${part%,*})) "${part#*,}"
		at=$((at + block))
		number=$((number + 1))
	done
	counts $number 0
	# Mapped by nobody else now.
	write_part 8192 4096
	counts $number 0
	all_right
}

# What a donor lacks dm-thin has to read.
holes() {
	devices
	xfs_io -r -c "fadvise -d 8192 4096" /dev/mapper/donor
	expect_drr "pages that the donor has" "$(tracked)" $((MIB * 256 - 1))
	begin
	write_part 0 4096
	counts 0 128
	# Not if that is what is written.
	xfs_io -r -c "fadvise -d 73728 4096" /dev/mapper/donor
	begin
	write_part 73728 4096
	counts 1 0
	write_part 131072 4096
	counts 2 0
	all_right
}

# A block that was the receiver's own is shared again.
shared_again() {
	devices
	begin
	write_part 0 4096
	write_part 8192 4096
	counts 1 0
	cp "$REF/receiver" "$REF/later"
	thin_snap later receiver
	drr_new later
	exec 8</dev/mapper/later
	head -c 64k <&8 >/dev/null
	begin
	write_part 12288 4096
	counts 1 0
	all_right later
}

without() {
	devices "$1"
	begin
	write_part 0 4096
	counts 0 128
	all_right
}

# block_size SECTORS LIMIT WHOLE SECTORS_READ: in a pool with such blocks, on a disk with such a limit.
block_size() {
	local BLOCK_SECTORS=$1 RAM_DISK_SECTORS=$2
	devices
	begin
	write_part 1024 8192
	counts "$3" "$4"
	expect_drr "mentions of the disk's requests in the status" \
		"$(status_lines | grep -c "limits=disk_requests" || true)" "$((2 - 2 * $3))"
	all_right
}

# The device ends within a block.
short_end() {
	pool_up 64
	on_exit 'exec 7<&-; all_down'
	random_file base 100k
	thin_remember base 200
	dmsetup message pool 0 "create_thin $(thin_id base)"
	thin_open base
	dd if="$REF/base" of=/dev/mapper/t-base bs=100k oflag=direct status=none
	thin_snap donor base
	thin_snap receiver base
	drr_new donor
	drr_new receiver
	cp "$REF/base" "$REF/receiver"
	exec 7</dev/mapper/donor
	cat <&7 >/dev/null
	begin
	write_part 98304 4096
	counts 0 1..
	write_part 0 512
	counts 1 1..
	all_right
}

# Neither the old nor anybody else's data is lost when the disk fails.
write_fails() {
	devices
	on_exit data_healthy
	cp "$REF/receiver" "$WORK/kept"
	data_table "0 $(sectors /dev/$DATA_DISK) flakey /dev/$DATA_DISK 0 0 60 1 error_writes"
	begin
	expect_fail write_part 4096 4096
	data_healthy
	counts 1 0
	cp "$WORK/kept" "$REF/receiver"
	all_right
	begin
	write_part 4096 4096
	counts 1 0
	all_right
}

# other_id: a write waits below drr, on the thin device that is suspended, while that gets another thin id; then one comes
# to another part of the same block, and donors have the rest.
other_id() {
	local id new round writer
	devices
	on_exit 'data_healthy; dmsetup resume t-receiver'
	id=$(thin_id receiver)
	for round in 1 2 3 4 5; do
		new=$((id + 100 * round))
		data_table "0 $(sectors /dev/$DATA_DISK) delay /dev/$DATA_DISK 0 300"
		dmsetup suspend --nolockfs t-receiver
		xfs_io -d -c "pwrite -q -S 0x22 $((round * 65536 + 4096)) 4096" /dev/mapper/receiver &
		writer=$!
		sleep 0.5
		dmsetup message pool 0 "create_snap $new $id"
		dmsetup load t-receiver <<<"0 $(thin_sectors receiver) thin /dev/mapper/pool $new"
		dmsetup resume t-receiver
		# A read of another block, by which drr learns of the new layer.
		dd if=/dev/mapper/receiver iflag=direct bs=4k count=1 of=/dev/null status=none
		[ -d /proc/$writer ] || flunk "the first write was too fast"
		xfs_io -d -c "pwrite -q -S 0x33 $((round * 65536 + 12288)) 4096" /dev/mapper/receiver
		wait $writer || flunk "the first write failed"
		data_healthy
		xfs_io -c "pwrite -q -S 0x22 $((round * 65536 + 4096)) 4096" \
			-c "pwrite -q -S 0x33 $((round * 65536 + 12288)) 4096" "$REF/receiver"
		id=$new
		all_right
	done
}

# write_pages FILE WRITER: the same page of every 32 KiB of the first half, with the writer's number;
# so two pages of each of eight writers are in every block.
write_pages() {
	local at commands=()
	for ((at = 4096 * ($2 - 1); at < MIB * 524288; at += 32768)); do
		commands+=(-c "pwrite -q -S 0x$2$2 $at 4096")
	done
	if [[ $1 == /dev/* ]]; then
		commands=(-d "${commands[@]}")
	fi
	xfs_io "${commands[@]}" "$1"
}

# at_once DELAY_MS: eight write to all blocks of the first half, and one zeroes the second.
at_once() {
	local writer pids=() half=$((MIB * 524288)) at
	devices
	on_exit data_healthy
	for writer in 1 2 3 4 5 6 7 8; do
		write_pages "$REF/receiver" $writer
	done
	dd if=/dev/zero of="$REF/receiver" conv=notrunc oflag=seek_bytes seek=$half bs=$half count=1 \
		status=none
	begin
	data_table "0 $(sectors /dev/$DATA_DISK) delay /dev/$DATA_DISK 0 $1"
	for writer in 1 2 3 4 5 6 7 8; do
		write_pages /dev/mapper/receiver $writer &
		pids+=($!)
	done
	for ((at = half; at < 2 * half; at += 262144)); do
		xfs_io -d -c "pwrite -q -S 0x99 $at 4096" /dev/mapper/receiver
		blkdiscard -q -f -z -o $at -l 262144 /dev/mapper/receiver
	done
	for writer in "${pids[@]}"; do
		wait "$writer" || flunk "a writer failed"
	done
	data_healthy
	expect_drr "blocks written as a whole" $(($(stat_of receiver whole_writes) - WHOLE)) 8..
	all_right
}

run_case "parts of blocks" parts
run_case "parts that nobody has in memory" holes
run_case "block is shared again" shared_again
run_case "not with no_receive" without no_receive
run_case "not with paranoid" without paranoid
run_case "blocks of 1 MiB" block_size 2048 2048 1 0
run_case "blocks longer than the disk's requests" block_size 2048 1024 0 2048
run_case "blocks longer than any request" block_size 4096 8192 0 4096
run_case "device ends within a block" short_end
run_case "disk fails" write_fails
run_case "thin device gets another id under a write" other_id
run_case "many writers of the same blocks" at_once 0
run_case "many writers of the same blocks, slowly" at_once 20
finish
