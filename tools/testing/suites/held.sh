#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# BUILD: mutants
#
# Races that are a few instructions wide, made certain: a test build holds one read up at
# a place of rust/drr/hold_point.rs while the other side does what it would have to do by chance.
# Raw devices, as a rule, each with a single data block that matters; a byte stands for its content.

# shellcheck source=tools/testing/lib.sh
. "${0%/*}/../lib.sh"

ORIGINAL=0xa1 CHANGED=0xb2 STRANGER=0xc3

# fill DEVICE BYTE: writes its first data block, past the page cache, and has it committed.
fill() {
	xfs_io -d -c "pwrite -q -b 64k -S $2 0 64k" -c fsync "/dev/mapper/$1"
}

# first_byte DEVICE: what a direct read gives, without paranoid mode to mend it. CPU 0, since
# a place may be held without scheduling.
first_byte() {
	taskset 1 dd if="/dev/mapper/$1" iflag=direct bs=4k count=1 status=none |
		od -An -tx1 -N1 | sed 's/^ */0x/'
}

# hold PLACE, let_go: through any drr device.
hold() { dmsetup message receiver 0 "hold $1"; }
held() { dmsetup message receiver 0 held 2>/dev/null; }
let_go() { dmsetup message receiver 0 release; }

# in_background COMMAND...: runs until it is held, with its output in $WORK/got.
in_background() {
	"$@" >"$WORK/got" &
	READER=$!
	wait_for 20 held
}

# go_on: the held read ends.
go_on() {
	let_go
	wait "$READER" || flunk "the read that was held failed"
}

# is BYTE WANTED...
is() {
	local byte=$1 wanted
	shift
	for wanted; do
		[ "$byte" != "$wanted" ] || return 0
	done
	flunk "read $byte, should be $*"
}

# layers: base with the original, and drr on two snapshots of it.
layers() {
	pool_up 16
	on_exit 'exec 7<&-; all_down'
	thin_new base 1
	fill t-base $ORIGINAL
	thin_snap donor base
	thin_snap receiver base
	drr_new donor "$@"
	drr_new receiver
}

# read_by NAME: into the device's own page cache, where descriptor 7 keeps it.
read_by() {
	dd if="/dev/mapper/$1" of=/dev/null bs=64k count=1 status=none
}

# The donor's page is overwritten and written back, all clean again, between the moment its
# record is found and the moment it is copied.
page_changes_before_the_copy() {
	layers
	exec 7</dev/mapper/donor
	read_by donor
	expect "records" "$(stat_of donor records)" 1..
	hold record_found
	in_background first_byte receiver
	taskset 2 xfs_io -c "pwrite -q -S $CHANGED 0 64k" -c fsync /dev/mapper/donor
	go_on
	is "$(<"$WORK/got")" $ORIGINAL
	expect "hits" "$(stat_of receiver hits)" 0
}

# The donor's pages are modified, and a direct reader looks at its memory all the while: what isn't proven is
# never there. Were it, the thread that has put it there would be held right after that.
unproven_bytes_are_never_seen() {
	layers
	exec 7<>/dev/mapper/donor
	read_by donor
	xfs_io -c "pwrite -q -S $CHANGED 0 64k" /dev/mapper/donor
	hold unproven
	taskset 1 "${HELPER%/*}/drr-watch-read" /dev/mapper/receiver $ORIGINAL 2
	let_go
	expect "copies that were in vain" "$(stat_of receiver unproven_pages)" 1..
}

# strange_block: a read of the receiver's is held when its mapping is known. Then its data block is
# given up by everyone, filled by a stranger, and shared again with its snapshot `copy`.
strange_block() {
	local fields
	thin_new stranger 1
	thin_new filler 64
	read -r -a fields < <(dmsetup status pool)
	dd if=/dev/zero of=/dev/mapper/t-filler oflag=direct bs=64k status=none \
		count=$((${fields[5]#*/} - ${fields[5]%/*}))
	container_down donor
	hold mapping_known
	in_background first_byte receiver
	blkdiscard -f -l 64k /dev/mapper/receiver
	thin_delete donor
	thin_delete base
	fill t-stranger $STRANGER
	thin_snap copy stranger
	drr_new copy
	exec 7</dev/mapper/copy
}

# The stranger's block is put on record between the lookup of the mapping and the search for records.
block_changes_hands() {
	layers
	strange_block
	read_by copy
	expect "records" "$(stat_of copy records)" 1..
	go_on
	is "$(<"$WORK/got")" $ORIGINAL 0x00
	expect "hits" "$(stat_of receiver hits)" 0
}

# The donor's mapping moves to another block, by a path that doesn't pass its drr device,
# between the lookup of the mapping and the read: what was read isn't the old block's.
mapping_moves_before_the_read() {
	layers no_receive
	exec 7</dev/mapper/donor
	hold mapping_known
	in_background read_by donor
	fill t-donor $CHANGED
	go_on
	is "$(first_byte donor)" $CHANGED
	is "$(first_byte receiver)" $ORIGINAL
	is "$(first_byte t-base)" $ORIGINAL
}

# The same, and somebody who maps the old block waits for that read. There is less than a second for
# that: who reads is there already, and the shell itself waits a moment, on a pipe that nobody writes to.
mapping_moves_before_a_read_that_is_followed() {
	local reader
	layers no_receive
	on_exit data_healthy
	exec 7</dev/mapper/donor
	hold mapping_known
	in_background read_by donor
	fill t-donor $CHANGED
	data_table "0 $(sectors "/dev/$DATA_DISK") delay /dev/$DATA_DISK 0 800"
	mkfifo "$WORK/do" "$WORK/never"
	taskset 1 xfs_io -r -d /dev/mapper/receiver <"$WORK/do" >"$WORK/early" &
	reader=$!
	exec 8>"$WORK/do" 9<>"$WORK/never"
	on_exit "exec 8>&- 9>&-; rm $WORK/do $WORK/never"
	let_go
	read -r -t 0.2 -u 9 || true
	echo "pread -v 0 4k" >&8
	exec 8>&-
	wait $reader
	wait "$READER"
	is "0x$(awk '$1 == "00000000:" { print $2 }' "$WORK/early")" $ORIGINAL
	expect "reads that went their own way" "$(stat_of receiver miss_left)" 1
}

# The block changes hands as in block_changes_hands(), and it is the stranger's read that the reader
# then waits for.
block_changes_hands_before_a_read_is_followed() {
	local stranger
	layers
	strange_block
	on_exit data_healthy
	data_table "0 $(sectors "/dev/$DATA_DISK") delay /dev/$DATA_DISK 0 700"
	read_by copy &
	stranger=$!
	sleep 0.2
	go_on
	wait $stranger
	is "$(<"$WORK/got")" $ORIGINAL 0x00
	expect "sectors that followed" "$(stat_of receiver followed_sectors)" 0
	expect "hits" "$(stat_of receiver hits)" 0
}

# recorded NAME SECTORS: so many of what the device has read.
recorded() { (($(stat_of "$1" recorded_sectors) >= $2)); }

# write_page NUMBER BYTE [DEVICE]: on the receiver, by itself or another device.
write_page() {
	xfs_io -d -c "pwrite -q -S $2 $(($1 * 4096)) 4096" "/dev/mapper/${3:-receiver}"
}

# pages_are BYTE...: the receiver's first ones, on the disk.
pages_are() {
	local byte number=0
	for byte; do
		is "$(dd if=/dev/mapper/t-receiver iflag=direct bs=4k skip=$number count=1 status=none |
			od -An -tx1 -N1 | sed 's/^ */0x/')" "$byte"
		number=$((number + 1))
	done
}

# later_write_waits DEVICE: a write has become one of the whole block; another to the same block comes
# before that is sent, by this device on the same thin device.
later_write_waits() {
	local later
	layers
	[ -e "/dev/mapper/$1" ] || dmsetup create "$1" --table "$(drr_table receiver)"
	exec 7</dev/mapper/donor
	read_by donor
	hold block_filled
	in_background write_page 0 $CHANGED
	write_page 2 $STRANGER "$1" &
	later=$!
	sleep 0.5
	go_on
	wait $later
	pages_are $CHANGED $ORIGINAL $STRANGER $ORIGINAL
	expect "blocks written as a whole" "$(stat_of receiver whole_writes)" 1
}

# The other comes first, when there are no donors, and is slow.
earlier_write_counts() {
	local earlier
	layers
	on_exit data_healthy
	exec 7</dev/mapper/donor
	data_table "0 $(sectors "/dev/$DATA_DISK") delay /dev/$DATA_DISK 0 1000"
	write_page 2 $STRANGER &
	earlier=$!
	sleep 0.2
	read_by donor
	expect "records" "$(stat_of donor records)" 1..
	[ -d /proc/$earlier ] || flunk "the first write was too fast"
	write_page 0 $CHANGED
	wait $earlier
	data_healthy
	pages_are $CHANGED $ORIGINAL $STRANGER $ORIGINAL
	expect "blocks written as a whole" "$(stat_of receiver whole_writes)" 0
}

# The thin device's table is replaced by one of another layer, between the lookup of the
# mapping and the read.
table_changes_before_the_read() {
	layers no_receive
	thin_new other 1
	fill t-other $STRANGER
	dm_remove t-other
	exec 7</dev/mapper/donor
	hold mapping_known
	in_background read_by donor
	dmsetup suspend --noflush --nolockfs t-donor
	dmsetup load t-donor --table "0 2048 thin /dev/mapper/pool $(thin_id other)"
	dmsetup resume t-donor
	go_on
	is "$(first_byte t-donor)" $STRANGER
	is "$(first_byte receiver)" $ORIGINAL
}

# A block is shared only by a snapshot that the pool then fails to commit. It is read and
# recorded before the roll-back takes the snapshot away, and may be written in place then.
# (Not before the pool is repaired, and so torn down: but that is dm-thin's business.)
snapshot_is_rolled_back() {
	local healthy snapshot
	! modprobe -n -q dm-thin-hooks || skip "dm-thin-hooks tells of a snapshot when it has been committed"
	pool_up 16
	on_exit 'exec 7<&-; all_down'
	healthy="0 $(sectors /dev/$META_DISK) linear /dev/$META_DISK 0"
	meta_table "$healthy"
	thin_new receiver 1
	fill t-receiver $ORIGINAL
	drr_new receiver
	exec 7</dev/mapper/receiver
	dmsetup suspend t-receiver
	hold layer_created
	dmsetup message pool 0 "create_snap 7 $(thin_id receiver)" &
	snapshot=$!
	wait_for 20 held
	dmsetup resume t-receiver
	read_by receiver
	expect "records" "$(stat_of receiver records)" 1..
	meta_table "0 $(sectors /dev/$META_DISK) flakey /dev/$META_DISK 0 0 60 1 error_writes"
	let_go
	wait $snapshot	# the message doesn't tell that its commit failed
	meta_table "$healthy"
	# Its record is there, and nothing is found by its name any more. With the first read the pool reads its
	# metadata again.
	is "$(first_byte receiver)" $ORIGINAL
	is "$(first_byte receiver)" $ORIGINAL
	expect "hits" "$(stat_of receiver hits)" 0
	expect "reads of what isn't named any more" "$(stat_of receiver miss_stale)" 1..
}

# Copies that are one too many have been found, and are modified before they are dropped: what was written
# is on the disk in the end. No dirty page is written back before that.
copies_are_modified_before_they_go() {
	local name dirty reader ratio=/proc/sys/vm/dirty_ratio background=/proc/sys/vm/dirty_background_ratio
	dirty="echo $(<$ratio) >$ratio; echo $(<$background) >$background"
	pool_up 256
	on_exit all_down
	random_file big 24M
	random_file changed 24M
	image_new ext4 base 64 big
	for name in donor receiver; do
		container_up ext4 $name base
	done
	group_new small 32M
	on_exit "group_end small"
	on_exit "$dirty"
	echo 95 >$ratio
	echo 90 >$background
	hold copies_found
	(
		while ! held; do
			in_group small cat /mnt/{donor,receiver}/big >/dev/null
		done
	) &
	reader=$!
	wait_for 60 held
	wait $reader
	# or reclaim would have them written back
	echo max >$GROUPS_DIR/small/memory.max
	for name in donor receiver; do
		dd if="$REF/changed" of=/mnt/$name/big bs=1M conv=notrunc status=none
	done
	let_go
	sleep 1		# for the worker, whose candidates these were
	for name in donor receiver; do
		same /mnt/$name/big "$REF/changed"
		umount /mnt/$name
		fs_mount ext4 $name
		same /mnt/$name/big "$REF/changed"
	done
}

run_case "page changes before it is copied" page_changes_before_the_copy
run_case "unproven bytes are never seen" unproven_bytes_are_never_seen
run_case "block changes hands before the hit" block_changes_hands
run_case "block changes hands before a read is followed" block_changes_hands_before_a_read_is_followed
run_case "mapping moves before the read" mapping_moves_before_the_read
run_case "mapping moves before a read that is followed" mapping_moves_before_a_read_that_is_followed
run_case "later write waits for the whole block" later_write_waits receiver
run_case "later write by another target waits" later_write_waits twin
run_case "earlier write is left its data" earlier_write_counts
run_case "table changes before the read" table_changes_before_the_read
run_case "snapshot is rolled back" snapshot_is_rolled_back
run_case "copies are modified before they go" copies_are_modified_before_they_go
finish
