#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# SHORT: uml
#
# One container misbehaves, and what others get is watched.

# shellcheck source=tools/testing/lib.sh
. "${0%/*}/../lib.sh"
# shellcheck source=tools/testing/pool2.sh
. "${0%/*}/../pool2.sh"

# Milliseconds that a write may take beside a neighbour that misbehaves.
MOST_MS=$((1000 * ${DRR_SLOW:-1}))

# two_pools [DISK_MIB]: `donor` has the content of `base` in memory; `bad`, on the same pool, writes 4 KiB into blocks
# that it shares, so that these are written as a whole. `other` is on another pool, and as long as there are locks
# of blocks, so that it has one of each.
two_pools() {
	pool_up "${1:-128}"
	on_exit 'exec 7<&-; pool2_down; all_down'
	random_file base 32M
	thin_new base 32
	dd if="$REF/base" of=/dev/mapper/t-base bs=1M oflag=direct status=none
	thin_snap donor base
	thin_snap bad base
	drr_new donor
	drr_new bad
	pool2_up 600
	pool2_new 1
	pool2_top other 1 256
	exec 7</dev/mapper/donor
	cat <&7 >/dev/null
}

# bad_writes COUNT [FIRST]: writes into COUNT blocks from block FIRST on, all at the same time and in the background.
# BAD_WRITES has the processes.
BAD_WRITES=()
bad_writes() {
	local n first=${2:-0}
	for ((n = first; n < first + $1; n++)); do
		dd if=/dev/zero of=/dev/mapper/bad bs=4k seek=$((n * 16 + 3)) count=1 oflag=direct status=none 7<&- &
		BAD_WRITES+=($!)
	done
	sleep 0.5
	for n in "${BAD_WRITES[@]}"; do
		[ -d "/proc/$n" ] || flunk "a write of the bad neighbour's has ended"
	done
}

bad_writes_end() {
	local n
	for n in "${BAD_WRITES[@]}"; do
		wait "$n" || flunk "a write of the bad neighbour's failed"
	done
}

# other_works: all blocks of the other's device are written, one after the other, none of which waits; and it can
# be suspended. With the checkers' kernels, which are slower, fewer.
other_works() {
	local worst start=${EPOCHREALTIME/./}
	local -i count=$((4096 / ${DRR_SLOW:-1}))
	worst=$(timeout $((60 * ${DRR_SLOW:-1})) "$HELPER" writes /dev/mapper/other "$count" 65536) ||
		flunk "the other's writes failed"
	echo "$count blocks in $(((${EPOCHREALTIME/./} - start) / 1000)) ms, the longest $worst ms"
	expect "milliseconds of the longest write" "$worst" 0..$MOST_MS
	timeout $((30 * ${DRR_SLOW:-1})) dmsetup suspend other || flunk "the other's device can't be suspended"
	dmsetup resume other
	expect_drr "writes of the other that waited" "$(stat_of other parked_writes)" 0
}

# beside FUNCTION...: the other works while the bad neighbour does that, over and over, eight times at once; and reads
# what it has written. PREPARE: a function that is called first.
beside() {
	local n jobs=() start
	two_pools
	${PREPARE:-:}
	for n in 0 1 2 3 4 5 6 7; do
		(exec 7<&-; while [ ! -e "$WORK/stop" ]; do "$@" "$n"; done) &
		jobs+=($!)
	done
	on_exit "touch $WORK/stop; wait ${jobs[*]}; rm $WORK/stop"
	sleep 0.5
	other_works
	start=${EPOCHREALTIME/./}
	timeout $((60 * ${DRR_SLOW:-1})) dd if=/dev/mapper/other of=/dev/null bs=1M status=none ||
		flunk "the other can't read"
	echo "256 MiB read in $(((${EPOCHREALTIME/./} - start) / 1000)) ms"
	touch "$WORK/stop"
	for n in "${jobs[@]}"; do
		wait "$n" || flunk "the bad neighbour failed"
	done
}

# Reads of shared blocks, other ones for each job, and of the thin device below, the same for all.
flood_of_reads() {
	dd if=/dev/mapper/bad of=/dev/null bs=4k count=512 skip=$(($1 * 1024)) iflag=direct status=none
	dd if=/dev/mapper/t-base of=/dev/null bs=4k count=512 iflag=direct status=none
}

# A whole device that is discarded, and blocks of it written again.
trims() {
	blkdiscard -f -o $(($1 << 22)) -l 4M /dev/mapper/bad
	dd if=/dev/zero of=/dev/mapper/bad bs=4k count=64 seek=$(($1 * 1024)) oflag=direct status=none
}

# Snapshots come and go by the hundred.
snapshots() {
	local id
	for ((id = 1000 * ($1 + 1); id < 1000 * ($1 + 1) + 50; id++)); do
		dmsetup message pool 0 "create_snap $id $(thin_id base)"
	done
	for ((id = 1000 * ($1 + 1); id < 1000 * ($1 + 1) + 50; id++)); do
		dmsetup message pool 0 "delete $id"
	done
}

# The disk takes a fifth of a second for each request. Each job reads what a sibling has, reads from the disk, and
# writes parts of blocks.
slow_disk() {
	modprobe -q dm-delay || true
	data_table "0 $(sectors /dev/$DATA_DISK) delay /dev/$DATA_DISK 0 200"
	on_exit data_healthy
}
slow_requests() {
	dd if=/dev/mapper/bad of=/dev/null bs=64k count=4 skip=$(($1 * 64)) iflag=direct status=none
	dd if=/dev/mapper/t-base of=/dev/null bs=4k count=4 iflag=direct status=none
	dd if=/dev/zero of=/dev/mapper/bad bs=4k count=4 seek=$(($1 * 1024)) oflag=direct status=none
}

# A disk that completes nothing.
disk_hangs() {
	two_pools
	dmsetup suspend --noflush --nolockfs data
	on_exit 'dmsetup resume data'
	bad_writes 16
	other_works
	dmsetup resume data
	bad_writes_end
	expect_drr "blocks written as a whole" "$(stat_of bad whole_writes)" 16
}

# A pool without space, which queues writes for ever.
no_space() {
	local timeout=/sys/module/dm_thin_pool/parameters/no_space_timeout before
	before=$(<$timeout)
	two_pools 64
	on_exit "echo $before >$timeout"
	echo 0 >$timeout
	thin_new filler 64
	dd if=/dev/zero of=/dev/mapper/t-filler bs=64k count=512 oflag=direct status=none
	bad_writes 4
	wait_for 10 dmsetup status pool | grep -q out_of_data_space
	other_works
	# From now on, parts of blocks are what waits.
	bad_writes 4 4
	# Space, at last.
	dm_remove t-filler
	dmsetup message pool 0 "delete $(thin_id filler)"
	dmsetup suspend --noflush --nolockfs pool
	dmsetup resume pool
	bad_writes_end
	expect_drr "blocks written as a whole" "$(stat_of bad whole_writes)" 1..4
}

# looped: pool2's data is on a loop device over a file of a container's: whatever its drr target writes becomes writes to
# the other's, which write whole blocks, too.
looped() {
	local loop round name
	pool_up 700
	on_exit 'exec 7<&- 8<&-; pool2_down; all_down'
	modprobe -q loop || true
	random_file base 32M
	image_new ext4 image 600 base
	for name in host sibling; do
		container_up ext4 $name image
	done
	fallocate -l 256m /mnt/host/data.img
	loop=$(losetup --find --show --direct-io=on /mnt/host/data.img)
	on_exit "losetup -d $loop"
	on_exit 'exec 7<&- 8<&-; pool2_down'
	pool2_up 256 "$loop"
	pool2_new 0
	pool2_thin image2 0 32
	dd if="$REF/base" of=/dev/mapper/p2-image2 bs=1M oflag=direct status=none
	dm_remove p2-image2
	pool2_snap 1 0
	pool2_top donor 1 32
	exec 7</dev/mapper/donor
	cat <&7 >/dev/null
	for round in 2 3; do
		pool2_snap $round 0
		pool2_top "writer$round" $round 32
		scattered "writer$round"
		expect_drr "blocks written as a whole" "$(stat_of "writer$round" whole_writes)" 8..
	done
	# The file's blocks are shared from here on, and somebody has them in memory.
	container_up ext4 later host
	cat /mnt/later/data.img >/dev/null
	scattered writer3
	expect_drr "blocks of the other written as a whole" "$(stat_of host whole_writes)" 8..
}

# scattered DEVICE: eight write to all its blocks at the same time, each to pages of its own.
scattered() {
	local n
	for n in 0 1 2 3 4 5 6 7; do
		timeout 120 "$HELPER" scattered "/dev/mapper/$1" 512 "$n" 65536 &
	done
	for n in 0 1 2 3 4 5 6 7; do
		wait -n || flunk "a writer hasn't ended in two minutes"
	done
}

# thin_number: of the thin device of `bad`, as MAJOR:MINOR.
thin_number() { dmsetup info -c --noheadings --separator : -o major,minor t-bad; }

# Bytes that the group `payer` has written to that, and those that anybody has.
written_by_group() {
	sed -n "s/^$(thin_number) .*wbytes=\([0-9]*\).*/\1/p" "$GROUPS_DIR/payer/io.stat"
}
written_by_all() {
	local fields
	read -r -a fields <"/sys/dev/block/$(thin_number)/stat"
	echo $((fields[6] * 512))
}

# payer_up: an image with the file `charged`, and a group `payer`, which pays for what it reads and writes.
payer_up() {
	pool_up 256
	on_exit "data_healthy; all_down; rmdir $GROUPS_DIR/payer"
	mountpoint -q $GROUPS_DIR || mount -t cgroup2 cgroup2 $GROUPS_DIR
	echo "+io +memory" >$GROUPS_DIR/cgroup.subtree_control
	mkdir $GROUPS_DIR/payer
	image_new ext4 image 64 charged
}

# writer_up: `donor` has all of the file in memory, and `bad`, which is to write to it, nothing.
writer_up() {
	container_up ext4 donor image
	container_up ext4 bad image
	cat /mnt/donor/charged >/dev/null
	settle /mnt/bad/charged
}

# charged HOW: a group pays for what it writes, also if that becomes more, waits, or is written by the flusher.
charged() {
	local n commands=() group all whole parked flags=()
	payer_up
	writer_up
	for ((n = 0; n < 128; n++)); do
		commands+=(-c "pwrite -q $((n * 131072 + 8192)) 4096" -c "pwrite -q $((n * 131072 + 40960)) 4096")
	done
	data_table "0 $(sectors /dev/$DATA_DISK) delay /dev/$DATA_DISK 0 20"
	all=$(written_by_all)
	case $1 in
	direct) flags=(-d) ;;
	fsync) commands+=(-c fsync) ;;
	esac
	(in_group payer xfs_io "${flags[@]}" "${commands[@]}" /mnt/bad/charged)
	sync -f /mnt/bad
	data_healthy
	group=$(written_by_group) all=$(($(written_by_all) - all))
	whole=$(stat_of bad whole_writes) parked=$(stat_of bad parked_writes)
	echo "group $group of $all bytes; $whole whole writes, $parked parked"
	expect_drr "blocks written as a whole" "$whole" 64..
	[ "$1" = direct ] || expect_drr "writes that waited for that" "$parked" 1..
	expect "percent that the group has paid" $((${group:-0} * 100 / all)) 80..100
}

# limited HOW: a group may write 1 MiB/s to the data disk, and writes 4 KiB into each of many shared blocks, one
# after the other or 32 at once. It isn't made to pay for whole blocks where that is what takes long.
limited() {
	local disk n round commands=() whole start ms group
	payer_up
	writer_up
	disk=$(<"/sys/block/$DATA_DISK/dev")
	for round in 0 1 2 3 4 5 6 7; do
		for ((n = 0; n < 32; n++)); do
			commands+=(-c "pwrite -q $(((round * 32 + n) * 65536 + 8192)) 4096")
		done
		[ "$1" = direct ] || commands+=(-c fsync)
	done
	sync -f /mnt/bad
	echo "$disk wbps=1048576" >$GROUPS_DIR/payer/io.max
	start=${EPOCHREALTIME/./}
	case $1 in
	direct) (in_group payer xfs_io -d "${commands[@]}" /mnt/bad/charged) ;;
	fsync) (in_group payer xfs_io "${commands[@]}" /mnt/bad/charged) ;;
	esac
	ms=$(((${EPOCHREALTIME/./} - start) / 1000))
	echo "$disk wbps=max" >$GROUPS_DIR/payer/io.max
	group=$(written_by_group)
	say "$ms ms, the group paid for $((${group:-0} / 1024)) KiB" >&4
	expect_drr "blocks written as a whole" "$(stat_of bad whole_writes)" 1..96
}

# convoy LIMIT: `bad` may read no more than LIMIT of the data disk, and `free` reads the same file at the same time.
convoy() {
	local disk start ms reader
	payer_up
	disk=$(<"/sys/block/$DATA_DISK/dev")
	for name in bad free; do
		container_up ext4 $name image
		settle /mnt/$name/charged
	done
	echo "$disk $1" >$GROUPS_DIR/payer/io.max
	(in_group payer cat /mnt/bad/charged >/dev/null) &
	reader=$!
	sleep 0.3
	start=${EPOCHREALTIME/./}
	same /mnt/free/charged "$REF/charged"
	ms=$(((${EPOCHREALTIME/./} - start) / 1000))
	[ -d /proc/$reader ] || flunk "the slow reader has ended already"
	echo "$disk rbps=max riops=max" >$GROUPS_DIR/payer/io.max
	wait $reader
	say "$ms ms, followed $(stat_of free followed_sectors) sectors, left $(stat_of free miss_left) times" >&4
	expect "milliseconds for 17 MiB" "$ms" 0..$((2000 * ${DRR_SLOW:-1}))
}

exec 4>&1

# container bad has NUMBER files that share the blocks of one, and keeps one page of each block of each file in
# memory: it reads another page first, so that the record that this makes is there when the page is added to it,
# and drops that again. Then the file is read by two others.
room_for_records() {
	local number=$1 n block commands=() before
	pool_up 512
	on_exit all_down
	image_new xfs image 320 shared
	for n in bad second third; do
		container_up xfs $n image
	done
	blockdev --setra 0 /dev/mapper/bad
	for ((block = 0; block < 16; block++)); do
		commands+=(-c "pread -q $((block * 65536 + 3 * 4096)) 4096"
			-c "pread -q $((block * 65536 + 6 * 4096)) 4096"
			-c "fadvise -d $((block * 65536 + 3 * 4096)) 4096")
	done
	for ((n = 0; n < number; n++)); do
		cp --reflink=always /mnt/bad/shared "/mnt/bad/clone$n"
	done
	sync -f /mnt/bad
	for ((n = 0; n < number; n++)); do
		xfs_io -r "${commands[@]}" "/mnt/bad/clone$n"
	done
	donate second shared
	receive third shared 1900..
}

# Forty-eight devices have the same data in their page caches, far more than are on record, and the first twenty let go of
# it. What the others have serves one more still.
others_let_go() {
	local n holder holders=()
	pool_up 256
	on_exit all_down
	thin_new base 1
	dd if="$REF/shared" of=/dev/mapper/t-base bs=1M oflag=direct status=none
	for ((n = 0; n < 48; n++)); do
		thin_snap "holder$n" base
		drr_new "holder$n"
		exec {holder}<"/dev/mapper/holder$n"
		cat <&"$holder" >/dev/null
		holders+=("$holder")
	done
	for holder in "${holders[@]:0:20}"; do
		exec {holder}<&-
	done
	thin_snap last base
	drr_new last
	cmp /dev/mapper/last "$REF/shared"
	for holder in "${holders[@]:20}"; do
		exec {holder}<&-
	done
	expect "sectors that the others served" "$(stat_of last hit_sectors)" 1600..2048
}

run_case "a pool whose disk hangs" disk_hangs
run_case "a pool without space" no_space
run_case "a flood of reads" beside flood_of_reads
PREPARE=slow_disk run_case "a disk that is slow" beside slow_requests
run_case "discards of a whole device" beside trims
run_case "snapshots by the hundred" beside snapshots
run_case "a pool on a loop device over the other" looped
random_file charged 17M
run_case "whoever writes pays, directly" charged direct
run_case "whoever writes pays, with fsync" charged fsync
run_case "whoever writes pays, by the flusher" charged flusher
run_case "whoever may write little, one after the other" limited direct
run_case "whoever may write little, many at once" limited fsync
run_case "a reader of the same file that may read 512 KiB/s" convoy rbps=524288
run_case "a reader of the same file that may read 4 MiB/s" convoy rbps=4194304
run_case "a reader of the same file that may read 8 times a second" convoy riops=8
rm "$REF/charged"
random_file shared 1M
run_case "a few files that share their blocks" room_for_records 2
run_case "hundreds of files that share their blocks" room_for_records 300
run_case "many have the same, and the first let go" others_let_go
finish
