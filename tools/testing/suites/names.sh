#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# SHORT: uml
# BUILD: mutants
#
# A record's name is (activation of the pool, data block, time of its mapping), and names one content
# among those who see the block as shared. Here are the ways in which dm-thin could make a name stand
# for two contents: mappings that change while a block is read, snapshots of an origin that is being
# written or discarded, metadata that is rolled back or half-made, times that don't fit. What drr gives
# of a device has to be what its thin device gives, at that time.
#
# A byte stands for a data block's content. The test build of dm-thin has the parameters that these
# cases need: changes_ms and changed_ms, for how long it sleeps between telling of a change of a mapping and the
# change, and between the change and telling of that, and fail_snap, which makes the next snapshot fail half-way.

# shellcheck source=tools/testing/lib.sh
. "${0%/*}/../lib.sh"

ORIGINAL=0xa1 CHANGED=0xb2 STRANGER=0xc3
# 2^24: the time of a mapping has 24 bits
TIMES=16777216

# parameter_of NAME: a parameter of the test build's dm-thin, or of the hooks that take the place of our patches.
parameter_of() {
	local file
	for file in /sys/module/dm_thin_{hooks,pool}/parameters/"$1"; do
		[ ! -e "$file" ] || { echo "$file"; return; }
	done
}

# thin_parameter NAME VALUE: until the case ends.
thin_parameter() {
	local file
	file=$(parameter_of "$1")
	[ -n "$file" ] || skip "this dm-thin has no parameter $1"
	on_exit "echo 0 >$file"
	echo "$2" >"$file"
}

# A dm-thin-pool with another interface has functions of the same names, with other arguments.
another_interface() {
	local file number
	modprobe dm-thin-pool
	file=$(parameter_of interface)
	[ -n "$file" ] || skip "this dm-thin has no parameter interface"
	number=$(<"$file")
	up
	thin_new origin 1
	on_exit "echo $number >$file"
	echo $((number - 1)) >"$file"
	expect_fail drr_new origin
	dmesg | tail -n 5 | grep -q "dm-thin-pool without stacking support" || flunk "no text: $(dmesg | tail)"
	echo "$number" >"$file"
	drr_new origin
}

# up [MIB]: a pool that goes when the case ends, with the page caches that are kept.
up() {
	on_exit 'exec 5<&- 6<&- 7<&- 8<&- 9<&-; data_healthy; all_down'
	pool_up "${1:-16}"
}

# fill DEVICE BYTE [BLOCK]: writes a data block, past the page cache, and has it committed.
fill() {
	xfs_io -d -c "pwrite -q -b 64k -S $2 $((${3:-0} * 65536)) 64k" -c fsync "/dev/mapper/$1"
}

# first_byte DEVICE [BLOCK]: what a direct read gives.
first_byte() {
	dd if="/dev/mapper/$1" iflag=direct bs=4k count=1 skip=$((${2:-0} * 16)) status=none |
		od -An -tx1 -N1 | sed 's/^ */0x/'
}

# is BYTE WANTED
is() {
	[ "$1" = "$2" ] || flunk "read $1, should be $2"
}

# read_by NAME: the first two data blocks, into the device's own page cache.
read_by() {
	dd if="/dev/mapper/$1" of=/dev/null bs=64k count=2 status=none
}

# gives NAME [OPTION]: drr gives of a device's first $BLOCKS data blocks what its thin device gives. A
# write may land in the middle of this, so that it is asked before and after.
BLOCKS=4
gives() {
	local when
	for when in before now after; do
		if [ $when = now ]; then
			dd if="/dev/mapper/$1" of="$WORK/now" "${@:2}" bs=64k count=$BLOCKS status=none
		else
			dd if="/dev/mapper/t-$1" of="$WORK/$when" iflag=direct bs=64k count=$BLOCKS status=none
		fi
	done
	cmp -s "$WORK/now" "$WORK/before" || same "$WORK/now" "$WORK/after"
}

# agree NAME...: it does for direct reads.
agree() {
	local name
	for name; do
		gives "$name" iflag=direct
	done
}

# agree_cached NAME...: it does for page caches that have nothing of it yet.
agree_cached() {
	local name
	for name; do
		gives "$name"
	done
}

# drr_snap NAME ORIGIN_ID: drr on a snapshot, for which nobody has been suspended.
drr_snap() {
	thin_remember "$1" 2048
	dmsetup message pool 0 "create_snap $(thin_id "$1") $2"
	thin_open "$1"
	drr_new "$1"
}

# writes_slow MS: what is written to the data disk, or discarded, takes that long; reads don't.
writes_slow() {
	data_table "0 $(sectors "/dev/$DATA_DISK") delay /dev/$DATA_DISK 0 0 /dev/$DATA_DISK 0 $1"
}

# total WORD: of all drr devices' status.
total() {
	local sum=0 line word
	while read -r line; do
		for word in $line; do
			[[ $word != "$1="* ]] || sum=$((sum + ${word#*=}))
		done
	done < <(status_lines)
	echo $sum
}

# nothing_more COMMAND...: while it runs, nothing is recorded and nobody is served.
nothing_more() {
	local recorded hits
	recorded=$(total recorded_sectors)
	hits=$(total hit_sectors)
	"$@"
	expect_drr "sectors recorded" $(($(total recorded_sectors) - recorded)) 0
	expect_drr "sectors served" $(($(total hit_sectors) - hits)) 0
}

hold() { dmsetup message receiver 0 "hold $1"; }
held() { dmsetup message receiver 0 held 2>/dev/null; }
let_go() { dmsetup message receiver 0 release; }

# A write of donor's whole block takes a second on the disk. Meanwhile a read of the same block looks its
# mapping up, and is held. dm-thin inserts the new mapping, and sleeps before it tells. The read goes
# on, passes dm-thin, and comes back with the writer's data, which aren't those of the block that was
# looked up. WRITER is donor, whose write passes drr, or t-donor, whose doesn't.
write_overlaps_a_read() {
	local writer reader name
	up
	[ "$DRR" != none ] || skip "nobody to be held"
	thin_parameter changed_ms 0
	thin_new base 1
	fill t-base $ORIGINAL
	for name in donor receiver third; do
		thin_snap $name base
		drr_new $name
	done
	exec 7</dev/mapper/donor 8</dev/mapper/receiver 9</dev/mapper/third
	writes_slow 1000
	thin_parameter changed_ms 4000
	xfs_io -d -c "pwrite -q -b 64k -S $CHANGED 0 64k" "/dev/mapper/$1" &
	writer=$!
	sleep 0.3
	hold mapping_known
	dd if=/dev/mapper/donor of=/dev/null bs=64k count=1 status=none &
	reader=$!
	wait_for 20 held
	sleep 2
	[ -d /proc/$writer ] || flunk "the write was told of too early"
	let_go
	wait $reader
	is "$(first_byte receiver)" $ORIGINAL
	dd if=/dev/mapper/receiver of=/dev/null bs=64k count=1 status=none
	wait $writer
	thin_parameter changed_ms 0
	data_healthy
	is "$(first_byte donor)" $CHANGED
	is "$(first_byte receiver)" $ORIGINAL
	is "$(first_byte third)" $ORIGINAL
	agree_cached third
	agree donor receiver third
}

# dm-thin has told that donor's mapping is going to change, and sleeps. A read of donor's finds the old mapping,
# and is held until the change is made: it comes back with the new block's data.
read_between_the_telling_and_the_change() {
	local writer reader name
	up
	[ "$DRR" != none ] || skip "nobody to be held"
	thin_parameter changes_ms 0
	thin_new base 1
	fill t-base $ORIGINAL
	for name in donor receiver; do
		thin_snap $name base
		drr_new $name
	done
	exec 7</dev/mapper/donor 8</dev/mapper/receiver
	# a change that all targets are told of as a whole
	fill t-donor $CHANGED 1
	dd if=/dev/mapper/donor of=/dev/null bs=4k count=1 skip=16 iflag=direct status=none
	thin_parameter changes_ms 3000
	xfs_io -d -c "pwrite -q -b 64k -S $CHANGED 0 64k" /dev/mapper/t-donor &
	writer=$!
	sleep 1
	hold mapping_known
	dd if=/dev/mapper/donor of=/dev/null bs=64k count=1 status=none &
	reader=$!
	wait_for 20 held
	[ -d /proc/$writer ] || flunk "the change was made too early"
	wait $writer
	let_go
	wait $reader
	thin_parameter changes_ms 0
	is "$(first_byte receiver)" $ORIGINAL
	agree donor receiver
}

# snapshots_agree PID...: origin has a snapshot, and that another, while the processes change origin's
# block; a third comes when they have ended. Cached reads and direct reads of all see the same.
snapshots_agree() {
	drr_snap snap "$(thin_id origin)"
	exec 7</dev/mapper/snap
	read_by snap
	drr_snap other "$(thin_id snap)"
	agree origin snap other
	wait "$@"
	agree origin snap other
	exec 8</dev/mapper/other
	read_by other
	drr_snap third "$(thin_id snap)"
	agree_cached third
	agree origin snap other third
}

# A write to a block that isn't shared is on its way to the disk when the block becomes shared: nobody
# has suspended the origin. It lands in place. snap reads the block before that, where it can, and a
# record is made; other is a snapshot of snap, and reads it from then on. WRITER is origin, through
# drr, or t-origin.
snapshot_while_written() {
	local writer
	up
	thin_new origin 1
	fill t-origin $ORIGINAL
	fill t-origin $ORIGINAL 1
	drr_new origin
	writes_slow 2000
	xfs_io -d -c "pwrite -q -S $CHANGED 0 4k" "/dev/mapper/$1" &
	writer=$!
	sleep 0.5
	snapshots_agree $writer
	data_healthy
	# and from now on writes break sharing
	fill t-origin $STRANGER
	agree origin snap other third
}

# The same with a write that waits in dm-thin: it breaks the sharing of a block with base by a copy, which
# takes two seconds, and then goes there in place.
snapshot_while_sharing_is_broken() {
	local writer
	up
	thin_new base 1
	fill t-base $ORIGINAL
	fill t-base $ORIGINAL 1
	thin_snap origin base
	drr_new origin
	writes_slow 1000
	xfs_io -d -c "pwrite -q -S $CHANGED 0 4k" "/dev/mapper/$1" &
	writer=$!
	sleep 1.5
	snapshots_agree $writer
}

# A discard of a block that isn't shared waits for a write to another block to end; then it is passed
# down. In between the block becomes shared, since nobody has suspended the origin, and the disk's
# block is wiped all the same. snap reads it before.
snapshot_while_discarded() {
	local writer discard BLOCKS=2
	up
	thin_new origin 1
	fill t-origin $ORIGINAL
	fill t-origin $ORIGINAL 1
	fill t-origin $ORIGINAL 2
	drr_new origin
	writes_slow 2000
	xfs_io -d -c "pwrite -q -S $CHANGED 128k 4k" "/dev/mapper/$1" &
	writer=$!
	sleep 0.3
	blkdiscard -f -l 64k "/dev/mapper/$1" &
	discard=$!
	sleep 0.3
	snapshots_agree $writer $discard
}

# A snapshot fails half-way, and its device can't be removed again: it would see as shared what its origin
# goes on writing in place. So the metadata is rolled back. ORIGIN is active, with drr, or inactive until
# then. Others of the pool have records.
snapshot_fails() {
	local name
	up
	thin_new base 1
	fill t-base $ORIGINAL
	for name in donor receiver; do
		thin_snap $name base
		drr_new $name
	done
	exec 7</dev/mapper/donor
	read_by donor
	thin_new origin 1
	fill t-origin $ORIGINAL
	fill t-origin $ORIGINAL 1
	drr_new origin
	if [ "$1" = inactive ]; then
		dm_remove origin
		dm_remove t-origin
	fi
	thin_parameter fail_snap 1
	thin_remember half 2048
	expect_fail dmsetup message pool 0 "create_snap $(thin_id half) $(thin_id origin)"
	is "$(<"$(parameter_of fail_snap)")" N
	if [ "$1" = inactive ]; then
		thin_open origin
		drr_new origin
	fi
	exec 8</dev/mapper/origin
	nothing_more read_by origin
	nothing_more read_by receiver
	nothing_more agree origin donor receiver
	is "$(first_byte origin)" $ORIGINAL
	is "$(first_byte receiver)" $ORIGINAL
}

# donor and receiver map a block, which donor has in its page cache. Both discard it, past drr, and the
# second discard is passed down to the disk. The metadata can't be written meanwhile: the commit, which
# dm-thin makes a second after the last, fails, and the mappings come back, but the disk's block has been
# wiped.
discards_are_rolled_back() {
	local healthy name
	up
	healthy="0 $(sectors /dev/$META_DISK) linear /dev/$META_DISK 0"
	meta_table "$healthy"
	thin_new base 1
	fill t-base $ORIGINAL
	for name in donor receiver third; do
		thin_snap $name base
		drr_new $name
	done
	thin_delete base
	exec 7</dev/mapper/donor 9</dev/mapper/third
	read_by donor
	blkdiscard -f -l 64k /dev/mapper/t-third
	dmsetup load meta --table "0 $(sectors /dev/$META_DISK) flakey /dev/$META_DISK 0 0 60 1 error_writes"
	fill t-third $STRANGER 1	# with a commit
	dmsetup suspend --nolockfs --noflush meta
	dmsetup resume meta
	for name in donor receiver; do
		blkdiscard -f -l 64k /dev/mapper/t-$name || true
	done
	wait_for 30 pool_cannot_be_written
	if ! pool_is_read_only; then
		[ "${DRR_SLOW:-1}" != 1 ] || flunk "$(dmsetup status pool)"
		skip "this kernel took longer than a second for both discards, and the commit came in between"
	fi
	meta_table "$healthy"
	is "$(first_byte t-donor)" 0x00
	nothing_more agree receiver donor third
	nothing_more agree_cached receiver third
	exec 8</dev/mapper/receiver
	read_by receiver
	nothing_more agree receiver donor third
}

pool_is_read_only() { [[ $(dmsetup status pool) == *" ro "* ]]; }
pool_cannot_be_written() { [[ $(dmsetup status pool) == *" ro "* || $(dmsetup status pool) == *Fail* ]]; }

# pool_at_time TIME: the pool as it is, with another time, while none of its devices is active.
pool_at_time() {
	dm_remove pool
	thin_dump -o "$WORK/pool.xml" /dev/$META_DISK
	sed -i "/<superblock/s/ time=\"[0-9]*\"/ time=\"$1\"/" "$WORK/pool.xml"
	thin_restore -q -i "$WORK/pool.xml" -o /dev/$META_DISK
	sync /dev/$META_DISK
	pool_create /dev/$META_DISK
}

# write_and_snapshot NUMBER: origin gets new blocks, old$NUMBER is a snapshot of it, and both read.
write_and_snapshot() {
	fill t-origin "0x$1$1" 0
	fill t-origin "0x${1}f" $(($1 % 4))
	drr_snap "old$1" "$(thin_id origin)"
	read_by origin
	read_by "old$1"
}

# The pool's time has 32 bits, that of a mapping 24: beyond, dm-thin mixes it up with the number of the
# block. Some snapshots before that siblings serve each other; one before it bytes are right; from it
# on nothing is recorded or served, and drr gives what the thin device gives, whatever that is.
times_that_dont_fit() {
	local name number
	up
	thin_new base 1
	fill t-base $ORIGINAL
	fill t-base $ORIGINAL 1
	dm_remove t-base
	pool_at_time $((TIMES - 5))
	thin_open base
	for name in donor receiver; do	# at -4 and -3
		thin_snap $name base
		drr_new $name
	done
	exec 5</dev/mapper/donor 6</dev/mapper/receiver
	read_by donor
	read_by receiver
	expect_drr "sectors served before" "$(total hit_sectors)" 256
	thin_snap origin base	# at -2
	drr_new origin
	exec 7</dev/mapper/origin
	agree donor receiver origin
	write_and_snapshot 1	# at -1
	exec 8</dev/mapper/old1
	agree donor receiver origin old1
	for number in 2 3 4 5; do
		# at 0: the first writes still have a time that fits
		fill t-origin "0x$number$number" 0
		drr_snap "old$number" "$(thin_id origin)"
		nothing_more read_by origin
		nothing_more read_by "old$number"
		fill t-origin "0x${number}e" 1
		nothing_more agree donor receiver origin old1 "old$number"
	done
	nothing_more agree_cached old5
	thin_new stranger 1
	fill t-stranger $STRANGER
	drr_snap copy "$(thin_id stranger)"
	nothing_more agree donor receiver origin old1 old3 copy
}

# free_blocks: that the pool has left.
free_blocks() {
	local fields
	read -r -a fields < <(dmsetup status pool)
	echo $((${fields[5]#*/} - ${fields[5]%/*}))
}

# donor has blocks in its page cache that were mapped at the time 0; it and receiver discard them, past
# drr. When the pool's time is 2^24, stranger gets all blocks that are free: its mappings of odd blocks
# have the time 0, the low bits of 2^24, too. So a block that donor has in memory has the name that it
# had, and another content.
time_begins_anew() {
	local name BLOCKS=64
	up 4
	thin_new base 1
	fill t-base $ORIGINAL
	fill t-base $ORIGINAL 1
	dm_remove t-base
	pool_at_time $((TIMES - 3))
	for name in donor receiver; do
		drr_snap $name "$(thin_id base)"
	done
	thin_delete base
	exec 5</dev/mapper/donor
	read_by donor
	for name in donor receiver; do
		blkdiscard -f -l 128k /dev/mapper/t-$name
	done
	sync /dev/mapper/t-donor
	drr_snap last "$(thin_id donor)"
	thin_new stranger 4
	dd if=/dev/zero bs=64k count="$(free_blocks)" status=none | tr '\0' '\303' |
		dd of=/dev/mapper/t-stranger bs=64k iflag=fullblock oflag=direct conv=fsync status=none
	for name in copy other; do
		thin_snap $name stranger
		drr_new $name
		agree $name
		agree_cached $name
	done
}

# A pool is taken down and comes again, and blocks have another content then, though mappings and times are
# what they were. donor's page cache is still there, as somebody has the device open.
pool_comes_again() {
	local name
	up
	thin_new base 1
	fill t-base $ORIGINAL
	for name in donor receiver; do
		thin_snap $name base
		drr_new $name
	done
	exec 7</dev/mapper/donor
	read_by donor
	agree receiver
	dmsetup remove --force donor 2>/dev/null || true
	for name in receiver t-receiver t-donor t-base pool; do
		dm_remove $name
	done
	xfs_io -d -c "pwrite -q -b 1m -S $STRANGER 0 16m" /dev/mapper/data
	pool_create /dev/$META_DISK
	thin_open receiver
	thin_open base
	drr_new receiver
	drr_snap other "$(thin_id base)"
	is "$(first_byte t-receiver)" $STRANGER
	agree receiver other
	agree_cached other
	agree receiver
}

# Thin ids are deleted and used again, with other content in the same blocks of a pool that has no others.
# Of each generation a page cache is left when the thin device below it is gone.
ids_used_again() {
	local round name byte
	up 2
	for round in 1 2; do
		byte="0x$round$round"
		echo 100 >"$THINS/next"
		thin_new base 1
		fill t-base "$byte"
		fill t-base "$byte" 1
		for name in one two; do
			thin_snap $name base
			drr_new $name
		done
		exec 7</dev/mapper/one
		read_by one
		is "$(first_byte two)" "$byte"
		agree one two
		dm_remove two
		thin_delete two
		thin_delete base
		# one's table goes, and one's page cache stays as long as it is open
		dmsetup remove --force one 2>/dev/null || true
		thin_delete one
		thin_new two 1
		fill t-two $STRANGER
		drr_snap again "$(thin_id two)"
		drr_new two
		agree two again
		agree_cached again
		exec 7<&-
		for name in one two again; do
			dm_remove $name
		done
		thin_delete two
		thin_delete again
	done
}

# Blocks that a thin device doesn't map are read from a device outside of the pool, and belong to no pool.
# x and y have the same origin; x is written in part, which copies, and z is a snapshot of x.
external_origin() {
	local name
	on_exit 'echo 0 >/sys/kernel/config/nullb/nullb2/power; rmdir /sys/kernel/config/nullb/nullb2'
	ram_disk nullb2 1
	up
	xfs_io -d -c "pwrite -q -b 64k -S $ORIGINAL 0 1m" /dev/nullb2
	for name in x y; do
		thin_remember $name 2048
		dmsetup message pool 0 "create_thin $(thin_id $name)"
		external_open $name
	done
	exec 7</dev/mapper/x
	read_by x
	agree x y
	xfs_io -d -c "pwrite -q -S $CHANGED 4k 4k" /dev/mapper/x
	thin_remember z 2048
	dmsetup suspend x
	dmsetup message pool 0 "create_snap $(thin_id z) $(thin_id x)"
	dmsetup resume x
	external_open z
	exec 8</dev/mapper/z
	read_by z
	is "$(first_byte z)" $ORIGINAL
	agree x y z
	xfs_io -d -c "pwrite -q -S $STRANGER 0 4k" /dev/mapper/x
	agree x y z
	agree_cached y
	blkdiscard -f -l 64k /dev/mapper/x
	agree x y z
	is "$(first_byte y)" $ORIGINAL
}

# external_open NAME: a thin device with an external origin, and drr on it.
external_open() {
	dmsetup create "t-$1" --table "0 2048 thin /dev/mapper/pool $(thin_id "$1") /dev/nullb2"
	drr_new "$1"
}

# busy COMMAND...: in a loop, while receiver is written with what it has, so that its blocks become its
# own, and read, and everybody reads the image from each other. Every byte is compared.
busy() {
	local load round name
	up 64
	thin_new base 16
	head -c 16M /dev/urandom >"$WORK/image"
	dd if="$WORK/image" of=/dev/mapper/t-base bs=1M oflag=direct status=none
	for name in donor receiver other; do
		thin_snap $name base
		drr_new $name
	done
	exec 7</dev/mapper/donor
	same /dev/mapper/donor "$WORK/image"
	"$HELPER" rawrace /dev/mapper/receiver "$WORK/image" 4 &
	load=$!
	round=0
	while [ -d /proc/$load ]; do
		"$@"
		dd if=/dev/mapper/other of="$WORK/other" iflag=direct bs=256k status=none
		same "$WORK/other" "$WORK/image"
		round=$((round + 1))
	done
	wait $load || flunk "receiver has wrong bytes"
	echo "$round rounds"
	for name in donor receiver other; do
		dd if="/dev/mapper/$name" of="$WORK/got" iflag=direct bs=64k status=none
		same "$WORK/got" "$WORK/image"
	done
	expect_drr "sectors served" "$(total hit_sectors)" 64..
}

# A reserved snapshot of the metadata has all of its blocks copied when they change.
metadata_snapshot() {
	dmsetup message pool 0 reserve_metadata_snap
	sleep 0.1
	dmsetup message pool 0 release_metadata_snap
}

# The tables of the pool and of a thin device are loaded anew, with requests waiting.
tables_reloaded() {
	dmsetup load pool --table "$(dmsetup table pool)"
	dmsetup suspend --noflush --nolockfs pool
	dmsetup resume pool
	dmsetup load t-receiver --table "$(dmsetup table t-receiver)"
	dmsetup suspend --nolockfs t-receiver
	dmsetup resume t-receiver
}

[ "$DRR" = none ] || modprobe dm-drr
run_case "write through drr overlaps a read" write_overlaps_a_read donor
run_case "write past drr overlaps a read" write_overlaps_a_read t-donor
run_case "read between the telling and the change" read_between_the_telling_and_the_change
for writer in origin t-origin; do
	run_case "snapshot while $writer is written" snapshot_while_written $writer
	run_case "snapshot while $writer breaks sharing" snapshot_while_sharing_is_broken $writer
	run_case "snapshot while $writer is discarded" snapshot_while_discarded $writer
done
run_case "snapshot of an inactive origin fails half-way" snapshot_fails inactive
run_case "snapshot of an active origin fails half-way" snapshot_fails active
run_case "discards are rolled back" discards_are_rolled_back
run_case "times that don't fit" times_that_dont_fit
run_case "time begins anew" time_begins_anew
run_case "pool comes again" pool_comes_again
run_case "another interface" another_interface
run_case "thin ids used again" ids_used_again
run_case "external origin" external_origin
run_case "metadata snapshots under load" busy metadata_snapshot
run_case "tables reloaded under load" busy tables_reloaded
finish
