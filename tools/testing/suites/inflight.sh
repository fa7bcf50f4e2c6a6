#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# Several read the same at the same moment: one goes to the disk, the others wait for it, but not
# for ever.

# shellcheck source=tools/testing/lib.sh
. "${0%/*}/../lib.sh"

# no_experience: nobody knows how long reads take, so all have the patience of a second.
no_experience() {
	local name
	[ "$DRR" != none ] || return 0
	for name in "${ALL[@]}" p nd nr; do
		dmsetup suspend --nolockfs "$name"
		dmsetup resume "$name"
	done
}

# slow_disk MILLISECONDS: every request takes so much longer.
slow_disk() {
	no_experience
	on_exit data_healthy
	data_table "0 $(sectors "/dev/$DATA_DISK") delay /dev/$DATA_DISK 0 $1"
}

# first_pages NAME FILE: reads a file's first pages with readahead.
first_pages() {
	dd if="/mnt/$1/$2" of="$WORK/$1.pages" bs=64k count=1 status=none
}

# asked_for MISSES NAME: the device has asked the disk more often than that. What waits for others
# is not counted before it ends.
asked_for() {
	local before=$1 name=$2
	(($(stat_of "$name" miss_norecord) > before))
}

# leader_and_follower FILE: a's read of it is under way, and b's of the same.
leader_and_follower() {
	local before
	settle "/mnt/a/$1"
	settle "/mnt/b/$1"
	local slowed=${EPOCHREALTIME/./}
	slow_disk $(($2 * ${DRR_SLOW:-1}))
	SLOWED=$((${EPOCHREALTIME/./} - slowed))
	before=$(stat_of a miss_norecord)
	first_pages a "$1" &
	LEADER=$!
	[ "$DRR" = none ] || wait_for 5 asked_for "$before" a
	LEFT=$(stat_of b miss_left) FOLLOWED=$(stat_of b followed_sectors)
	first_pages b "$1" &
	FOLLOWER=$!
	sleep 0.2
}

# both_right FILE: the two of above have ended, and well.
both_right() {
	wait "$LEADER" || flunk "the first read failed"
	wait "$FOLLOWER" || flunk "the second read failed"
	cmp -n 65536 "$WORK/a.pages" "$REF/$1"
	cmp -n 65536 "$WORK/b.pages" "$REF/$1"
}

left() { (($(stat_of "$1" miss_left) > LEFT)); }

# All begin at the same moment; the disk gives each sector once, or nearly so: donors are locked now
# and then for longer than it's worth.
at_once() {
	local name disk sum=0
	for name in "${ALL[@]}"; do
		settle "/mnt/$name/big"
	done
	# longer than it takes them to begin: who comes later finds donors
	slow_disk $((40 * ${DRR_SLOW:-1} * ${DRR_SLOW:-1}))
	disk=$(disk_sectors_read)
	read_at_once big "${ALL[@]}"
	disk=$(($(disk_sectors_read) - disk))
	for name in "${ALL[@]}"; do
		sum=$((sum + $(stat_of "$name" followed_sectors)))
	done
	say "disk: $disk sectors of $BIG_SECTORS for ${#ALL[@]} readers" >&2
	expect_drr "sectors from the disk" $disk "..$((BIG_SECTORS + BIG_SECTORS / 8))"
	say "of these $sum with others" >&2
	expect_drr "sectors of reads that followed others" $sum "$((BIG_SECTORS / 4)).."
}

# slow_blocks: every other marked data block takes 90 ms longer: of a reader that waits for longer, the next read
# doesn't, so that it knows how long one takes.
slow_blocks() {
	local block slow=() table="" next=0 total
	total=$(sectors "/dev/$DATA_DISK")
	mapfile -t slow < <(head -c 128M "/dev/$DATA_DISK" | grep -aobE 'MARK [0-9]+[13579] ' |
		awk -F: -v size=$((BLOCK_SECTORS * 512)) '{ print int($1 / size) }' | sort -nu)
	expect "slow blocks" ${#slow[@]} 4..
	for block in "${slow[@]}"; do
		block=$((block * BLOCK_SECTORS))
		((block == next)) || table+="$next $((block - next)) linear /dev/$DATA_DISK $next"$'\n'
		table+="$block $BLOCK_SECTORS delay /dev/$DATA_DISK $block 90"$'\n'
		next=$((block + BLOCK_SECTORS))
	done
	no_experience
	on_exit data_healthy
	data_table "$table$next $((total - next)) linear /dev/$DATA_DISK $next"
}

# Large folios that span two blocks are on record with the first and locked until the second has
# come. Those who come then wait for that, and the disk gives each sector once.
partly_read() {
	local disk
	for name in a b c d; do
		settle "/mnt/$name/marks"
	done
	slow_blocks
	disk=$(disk_sectors_read)
	first_pages a marks
	read_at_once marks a &
	sleep 0.1
	read_at_once marks b c d
	wait $!
	disk=$(($(disk_sectors_read) - disk))
	say "disk: $disk sectors of 2048 for 4 readers" >&2
	# Now and then two wait for each other, and one of them reads, or sees how long it takes: 2800 and more if
	# nobody waited.
	expect_drr "sectors from the disk" $disk ..$((2048 + 5 * BLOCK_SECTORS))
}

# One with readahead, one without page cache and in other portions.
direct_follower() {
	local before followed
	settle /mnt/a/direct
	settle /mnt/b/direct
	slow_disk 800
	before=$(disk_sectors_read) followed=$(stat_of b followed_sectors)
	first_pages a direct &
	sleep 0.2
	dd if=/mnt/b/direct of="$WORK/b.pages" iflag=direct bs=60k count=1 status=none
	wait $!
	cmp -n 61440 "$WORK/b.pages" "$REF/direct"
	# with what readahead asks for beyond
	expect_drr "sectors from the disk" $(($(disk_sectors_read) - before)) 128..512
	expect_drr "sectors that followed" $(($(stat_of b followed_sectors) - followed)) 120
	# every byte of what p gets in this way is compared
	settle /mnt/p/direct
	evict /mnt/a/direct
	first_pages a direct &
	sleep 0.2
	first_pages p direct
	wait $!
	cmp -n 65536 "$WORK/p.pages" "$REF/direct"
	expect_drr "sectors that followed, compared" "$(stat_of p followed_sectors)" 128..
}

# The leader's read fails, in less than the second that it is waited for: the follower asks for
# itself, and gets what is there by then. The disk's table is replaced meanwhile: that waits for the
# leader's read, which is slow below it, and holds the follower's back.
leader_fails() {
	[ "${DRR_SLOW:-1}" = 1 ] || skip "less than a second is too short on this kernel"
	dmsetup create bad --table "0 $(sectors "/dev/$DATA_DISK") error"
	on_exit "dmsetup remove --retry bad"
	dmsetup create slow-bad --table "0 $(sectors "/dev/$DATA_DISK") delay /dev/mapper/bad 0 700"
	on_exit "dmsetup remove --retry slow-bad"
	settle /mnt/a/fails
	settle /mnt/b/fails
	LEFT=$(stat_of b miss_left)
	on_exit data_healthy
	data_table "0 $(sectors "/dev/$DATA_DISK") linear /dev/mapper/slow-bad 0"
	first_pages a fails &
	LEADER=$!
	sleep 0.2
	first_pages b fails &
	FOLLOWER=$!
	sleep 0.2
	data_healthy
	wait "$LEADER" || true	# as it should
	wait "$FOLLOWER" || flunk "the second read failed"
	cmp -n 65536 "$WORK/b.pages" "$REF/fails"
	[ "$DRR" = none ] || left b || flunk "b did not go its own way"
}

# A leader that takes too long is left.
leader_is_slow() {
	local start=${EPOCHREALTIME/./}
	[ "${DRR_SLOW:-1}" = 1 ] || skip "less than a second is too short on this kernel"
	leader_and_follower slow 4000
	[ "$DRR" = none ] || wait_for 3 left b
	[ "$DRR" = none ] || [ -d /proc/$LEADER ] || flunk "the first has ended already"
	expect "milliseconds" $(((${EPOCHREALTIME/./} - start) / 1000)) 900..
	data_healthy
	both_right slow
	# its own read has taken the second reader as long, so that waits again
	evict /mnt/a/slow /mnt/b/slow
	leader_and_follower slow 800
	both_right slow
	expect_drr "sectors that followed" $(($(stat_of b followed_sectors) - FOLLOWED)) 128..
}

# suspended NAME FILE: nobody waits for a device that is suspended, and it waits for nobody. That is
# why the wait is over before its second is; if this takes longer for other reasons, it is tried anew.
suspended() {
	local try start took
	[ "$DRR" != none ] || skip "nobody waits"
	[ "${DRR_SLOW:-1}" = 1 ] || skip "less than a second is too short on this kernel"
	for try in 1 2 3 4 5; do
		start=${EPOCHREALTIME/./}
		leader_and_follower "$2" 3000
		dmsetup suspend --noflush --nolockfs "$1" &
		on_exit "dmsetup resume $1"
		wait_for 2 left b
		took=$(((${EPOCHREALTIME/./} - start - SLOWED) / 1000))
		[ -d /proc/$LEADER ] || flunk "the first has ended already"
		wait $!
		dmsetup resume "$1"
		data_healthy
		both_right "$2"
		printf 'try %d: left after %d ms\n' "$try" "$took"
		((took >= 1000)) || return 0
		evict "/mnt/a/$2" "/mnt/b/$2"
	done
	flunk "it was always left after a second or more"
}

# What was said of giving and taking holds here, too.
features() {
	local disk name=$1
	settle "/mnt/$name/features"
	settle /mnt/a/features
	slow_disk 800
	disk=$(disk_sectors_read)
	first_pages "$2" features &
	sleep 0.2
	first_pages "$3" features
	wait $!
	expect_drr "sectors from the disk, of 128" $(($(disk_sectors_read) - disk)) 256..
	evict /mnt/a/features "/mnt/$name/features"
}

random_file big 8M
BIG_SECTORS=$((8 << 11))
for name in direct fails slow sa sb features; do
	random_file $name 1M
done

random_file marks 1M
for ((i = 100; i < 116; i++)); do
	printf 'MARK %d ' $i | dd of="$REF/marks" bs=64k seek=$((i - 100)) conv=notrunc status=none
done

ALL=(a b c d e f g h)
for fs in ext4 xfs; do
	pool_up 768
	image_new $fs base 320
	for name in "${ALL[@]}"; do
		container_up $fs "$name" base
	done
	container_up $fs p base paranoid
	container_up $fs nd base no_donate
	container_up $fs nr base no_receive
	run_case "$fs: eight cold readers, one read of the disk" at_once
	run_case "$fs: a folio that is read in part" partly_read
	run_case "$fs: direct reader follows readahead" direct_follower
	run_case "$fs: the read that others wait for fails" leader_fails
	run_case "$fs: its device is suspended" suspended a sa
	run_case "$fs: the device of one that waits is suspended" suspended b sb
	run_case "$fs: no_donate is not waited for" features nd nd a
	run_case "$fs: no_receive does not wait" features nr a nr
	run_case "$fs: the read that others wait for is slow" leader_is_slow
	run_case "$fs: nothing is remembered after unmount" all_down
done
finish
