#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# Which layer is whose snapshot, who wrote what is read, and from where it comes: what the
# messages of include/uapi/linux/dm-drr.h tell, against what the cases themselves did.

# shellcheck source=tools/testing/lib.sh
. "${0%/*}/../lib.sh"
# shellcheck source=tools/testing/pool2.sh
. "${0%/*}/../pool2.sh"

SHORT_BUFFERS=${0%/*}/../bin/drr-short-buffers

# ask NAME MESSAGE...: the answer of a drr device.
ask() {
	local name=$1
	shift
	dmsetup message "$name" 0 "$@"
}

# layer_of NAME THIN: what NAME's pool knows of the live layer of THIN: serial number, thin id,
# parent, time, state, devices.
layer_of() {
	ask "$1" layers | awk -v id="$(thin_id "$2")" \
		'$1 == "layer" && $3 == id && $6 == "live" { print $2, $3, $4, $5, $6, $7 }'
}

# field WORDS NUMBER
field() { awk -v n="$2" '{ print $n }' <<<"$1"; }

serial_of() { field "$(layer_of "$1" "$2")" 1; }

# says WHAT TEXT WANTED
says() {
	[ "$2" = "$3" ] || flunk "$1: '$2', should be '$3'"
}

# is_child NAME CHILD PARENT
is_child() {
	expect "parent of $2" "$(field "$(layer_of "$1" "$2")" 3)" "$(serial_of "$1" "$3")"
}

# read_of NAME THIN NUMBER: a figure of what NAME has read of THIN's blocks: 1 reads and
# 2 sectors from the disk, 3 reads and 4 sectors served.
read_of() {
	ask "$1" heat | awk -v id="$(thin_id "$2")" -v n=$(($3 + 3)) \
		'$1 == "read" && $3 == id { sum += $n } END { print sum + 0 }'
}

# sum_of NAME NUMBER: the same of all owners.
sum_of() {
	ask "$1" heat | awk -v n=$(($2 + 3)) '$1 == "read" { sum += $n } END { print sum + 0 }'
}

# raw_write NAME MIB COUNT: whole blocks, past any cache.
raw_write() {
	dd if=/dev/urandom of="/dev/mapper/$1" bs=1M seek="$2" count="$3" oflag=direct \
		conv=notrunc status=none
}

# raw_read NAME MIB COUNT
raw_read() {
	dd if="/dev/mapper/$1" of=/dev/null bs=1M skip="$2" count="$3" iflag=direct status=none
}

# What happened in a pool before its first drr device, but after the module was loaded.
known_before() {
	thin_new early 16
	thin_snap young early
	on_exit "for it in young early; do container_down \$it; thin_delete \$it; done"
	drr_new young
	is_child young young early
}

tree_follows_the_pool() {
	local before
	thin_new root 16
	drr_new root
	on_exit "for it in root one two three; do container_down \$it; done"
	says "parent of root" "$(field "$(layer_of root root)" 3)" "-"
	expect "devices on root" "$(field "$(layer_of root root)" 6)" 1
	thin_snap one root
	thin_snap two one
	thin_snap three root
	is_child root one root
	is_child root two one
	is_child root three root
	expect "devices on one" "$(field "$(layer_of root one)" 6)" 0
	expect "later than one" "$(field "$(layer_of root two)" 4)" \
		$(($(field "$(layer_of root one)" 4) + 1))
	drr_new two
	expect "devices on two" "$(field "$(layer_of root two)" 6)" 1
	dm_remove two
	expect "devices on two" "$(field "$(layer_of root two)" 6)" 0

	# In the middle: it stays for its child. The id is used again.
	before=$(serial_of root one)
	thin_delete one
	expect "deleted and kept" \
		"$(ask root layers | grep -c "^layer $before .* deleted 0$")" 1
	expect "parent of two" "$(field "$(layer_of root two)" 3)" "$before"
	dmsetup message pool 0 "create_thin $(thin_id one)"
	expect "another serial number" "$(serial_of root one)" "$((before + 1)).."
	says "parent of the new one" "$(field "$(layer_of root one)" 3)" "-"
	thin_delete two
	expect "kept no longer" "$(ask root layers | grep -c "^layer $before ")" 0
	dmsetup message pool 0 "delete $(thin_id one)"
}

# owners DEPTH: each layer writes a MiB of its own, and one of its ancestor's.
owners() {
	local depth=$1 i last=0
	thin_new l0 64
	on_exit "for ((i = 0; i <= $depth; i++)); do container_down l\$i; thin_delete l\$i; done"
	raw_write t-l0 0 $((depth + 4))
	for ((i = 1; i <= depth; i++)); do
		thin_snap l$i l$((i - 1))
		raw_write t-l$i $((20 + i)) 1
		raw_write t-l$i $i 1
		last=$i
	done
	drr_new l$last
	raw_read l$last 0 $((depth + 4))
	raw_read l$last 21 "$depth"
	# of the first MiBs one was overwritten by each of the others
	expect "sectors of l0" "$(read_of l$last l0 2)" $((4 * 2048))
	for ((i = 1; i <= depth; i++)); do
		expect "sectors of l$i" "$(read_of l$last l$i 2)" $((2 * 2048))
	done
	expect "all sectors" "$(sum_of l$last 2)" "$(stat_of l$last read_sectors)"
	# What was never written is nobody's.
	raw_read l$last 50 1
	expect "nobody's sectors" \
		"$(ask l$last heat | awk '$1 == "read" && $2 == "-" { print $5 }')" 2048
}

# To the byte, on raw devices: what drr says came from the disk did.
adds_up() {
	local disk name
	thin_new sum 32
	on_exit "exec 7<&-; for it in sum sum1 sum2; do container_down \$it; done"
	raw_write t-sum 0 16
	for name in sum1 sum2; do
		thin_snap $name sum
		drr_new $name
	done
	disk=$(disk_sectors_read)
	exec 7</dev/mapper/sum1
	dd if=/dev/mapper/sum1 of=/dev/null bs=1M count=16 status=none
	raw_read sum2 0 16
	disk=$(($(disk_sectors_read) - disk))
	# what is mapped nowhere is nobody's, and not read from any disk
	expect "sectors from the disk" $(($(read_of sum1 sum 2) + $(read_of sum2 sum 2))) "$disk"
	expect "sectors served" "$(read_of sum2 sum 4)" 16384..
	expect "sectors served" "$(sum_of sum2 4)" "$(stat_of sum2 hit_sectors)"
	expect "all reads" $(($(sum_of sum2 1) + $(sum_of sum2 3))) "$(stat_of sum2 reads)"
	expect "sectors from sum1" "$(ask sum2 heat |
		awk -v id="$(thin_id sum1)" '$1 == "donor" && $3 == id { print $4 }')" \
		"$(sum_of sum2 4)"
	raw_write sum2 0 1
	expect "sectors written" "$(ask sum2 heat | awk '$1 == "write" { print $3 }')" 2048
	ask sum2 reset_stats
	says "what is left" "$(ask sum2 heat | sed 1d)" "write 0 0"
}

# fs_adds_up KIND: the same on a file system, with what is written and the metadata: reads of the
# disk that aren't drr's are dm-thin's own, when it breaks sharing.
fs_adds_up() {
	local kind=$1 name disk copied
	random_file sum/small 200000
	random_file sum/large 6M
	image_new "$kind" sum 64 sum
	for name in one two; do
		container_up "$kind" $name sum
	done
	on_exit "for it in one two sum; do container_down \$it; done"
	for name in one two; do
		ask $name reset_stats
	done
	echo 3 >/proc/sys/vm/drop_caches
	disk=$(disk_sectors_read)
	for name in one two; do
		same "/mnt/$name/sum/large" "$REF/sum/large"
		same "/mnt/$name/sum/small" "$REF/sum/small"
		ls -lR "/mnt/$name" >/dev/null
	done
	disk=$(($(disk_sectors_read) - disk))
	expect "sectors from the disk" $(($(sum_of one 2) + $(sum_of two 2))) "$disk"
	expect "sectors served" "$(sum_of two 4)" $((6 * 2048))..
	expect "sectors served" "$(sum_of two 4)" "$(stat_of two hit_sectors)"

	# A write to a shared block has dm-thin copy the rest of that, which is no read of ours.
	copied=$(disk_sectors_read)
	dd if=/dev/urandom of="/mnt/two/sum/large" bs=4k seek=100 count=1 conv=notrunc,fsync \
		status=none
	copied=$(($(disk_sectors_read) - copied))
	disk=$(($(sum_of one 2) + $(sum_of two 2) - disk))
	say "read by dm-thin to break sharing: $((copied - disk)) sectors"
	expect "sectors read by dm-thin" $((copied - disk)) 0..$((64 * BLOCK_SECTORS))
}

# What is older than the module can be declared, and nothing that isn't so.
declared() {
	local id parent
	thin_new old 16
	raw_write t-old 0 2
	thin_snap young old
	raw_write t-young 1 1
	rmmod dm_drr
	modprobe dm-drr
	drr_new young
	on_exit "container_down young; container_down old"
	id=$(thin_id young) parent=$(thin_id old)
	raw_read young 0 2
	expect "nobody's sectors" \
		"$(ask young heat | awk '$1 == "read" && $2 == "-" { print $5 }')" 2048
	expect_fail ask young layer "$id" "$parent"
	expect_fail ask young layer "$parent" -
	ask young layer "$parent" - 0
	expect_fail ask young layer "$parent" "$id"
	expect_fail ask young layer "$id" "$id"
	ask young layer "$id" "$parent"
	expect_fail ask young layer "$id" "$parent"
	is_child young young old
	ask young reset_stats
	raw_read young 0 2
	expect "sectors of old" "$(read_of young old 2)" 2048
	expect "sectors of young" "$(read_of young young 2)" 2048
}

blocks_are_counted() {
	local name
	thin_new hot 16
	on_exit "for it in hot hot1 hot2 hot3; do container_down \$it; done"
	raw_write t-hot 0 4
	for name in hot1 hot2 hot3; do
		thin_snap $name hot
		drr_new $name
	done
	raw_read hot1 0 4
	says "off" "$(ask hot1 blocks | cut -d' ' -f4,5)" "state=off blocks=0"
	ask hot1 blocks on
	for name in hot1 hot2 hot3; do raw_read $name 0 1; done
	raw_read hot1 1 1
	says "answer" "$(ask hot2 blocks | sed 1d | tr '\n' ';')" \
		"reads 1 1 16;reads 2 3 16;layers 1 1 16;layers 3 3 16;"
	ask hot2 blocks off
	says "off again" "$(ask hot1 blocks | cut -d' ' -f4,5)" "state=off blocks=0"
}

# total_of KIND FIELD: of the lines of that kind.
total_of() { awk -v kind="$1" -v field="$2" '$1 == kind { sum += $field } END { print sum + 0 }'; }

# Three have parts of the same in memory; the last reader's are the newest copies.
duplicates_are_told() {
	local i answer list next=0
	thin_new dup 16
	on_exit "exec 7<&- 8<&- 9<&-; for it in dup dup1 dup2 dup3; do container_down \$it; done"
	raw_write t-dup 0 4
	for i in 1 2 3; do
		thin_snap dup$i dup
		drr_new dup$i
	done
	exec 7</dev/mapper/dup1 8</dev/mapper/dup2 9</dev/mapper/dup3
	for i in 1 2 3; do
		dd if=/dev/mapper/dup$i of=/dev/null bs=1M count=$((5 - i)) status=none
	done
	answer=$(ask dup3 duplicates)
	say "$answer"
	expect "pages in memory" "$(total_of layer 4 <<<"$answer")" "$(stat_of dup1 tracked_pages)"
	expect "pages once" "$(awk '$1 == "copies" && $2 == 1 { print $4 }' <<<"$answer")" 150..300
	expect "pages three times" "$(awk '$1 == "copies" && $2 == 3 { print $4 }' <<<"$answer")" 400..640
	expect "further copies" "$(total_of layer 5 <<<"$answer")" \
		$(($(total_of layer 4 <<<"$answer") - $(total_of copies 4 <<<"$answer")))
	expect "of the newest" "$(awk -v id="$(thin_id dup3)" '$3 == id { print $5 }' <<<"$answer")" 0
	list=$(while [ "$next" != - ]; do
		ask dup1 duplicates list "$next" >"$WORK/list"
		next=$(awk '$1 == "next" { print $2 }' "$WORK/list")
		cat "$WORK/list"
	done)
	expect "pages in the list" "$(total_of copy 4 <<<"$list")" \
		"$(awk '$1 == "copies" && $2 > 1 { sum += $2 * $4 } END { print sum }' <<<"$answer")"
	exec 7<&- 8<&- 9<&-
	says "nothing" "$(ask dup1 duplicates | sed 1d)" ""
}

# Why pages donate no longer.
ends_are_counted() {
	thin_new end 16
	on_exit "exec 7<&-; container_down end; container_down end1"
	raw_write t-end 0 4
	thin_snap end1 end
	drr_new end1
	exec 7<>/dev/mapper/end1
	dd if=/dev/mapper/end1 of=/dev/null bs=1M count=4 status=none
	# all but where readahead is not yet under way
	expect "pages on record" "$(stat_of end1 tracked_pages)" 900..1024
	dd if=/dev/urandom of=/dev/mapper/end1 bs=64k seek=32 count=1 conv=notrunc status=none
	xfs_io -c "fadvise -d 0 1m" /dev/mapper/end1
	expect "pages reclaimed" "$(stat_of end1 ended_removed)" 256
	# a sibling finds out what was modified
	thin_snap end2 end
	drr_new end2
	on_exit "container_down end2"
	dd if=/dev/mapper/end2 of=/dev/null bs=64k skip=32 count=1 iflag=direct status=none
	expect "pages modified" "$(stat_of end1 ended_changed)" 16
	expect "copies that were in vain" "$(stat_of end2 unproven_pages)" 16
	expect "pages on record" "$(stat_of end1 tracked_pages)" \
		$(($(stat_of end1 recorded_sectors) / 8 - 256 - 16))
	ask end1 reset_stats
	expect "pages modified" "$(stat_of end1 ended_changed)" 0
}

# Answers, long and short, with too little room for them and with enough.
short_buffers() {
	local i message
	thin_new many 16
	raw_write t-many 0 4
	thin_snap few many
	drr_new few
	on_exit "container_down few; container_down many"
	for ((i = 0; i < 20; i++)); do
		dmsetup message pool 0 "create_snap $((5000 + i)) $(thin_id many)"
	done
	ask few blocks on
	raw_read few 0 4
	for message in layers heat blocks duplicates; do
		"$SHORT_BUFFERS" few $message
	done
	ask few blocks off
	for ((i = 0; i < 20; i++)); do
		dmsetup message pool 0 "delete $((5000 + i))"
	done
}

# Answers of any length, from several at once, while layers and devices come and go.
asked_all_the_time() {
	local i pids=()
	thin_new busy 16
	drr_new busy
	on_exit "container_down busy"
	for ((i = 0; i < 120; i++)); do
		dmsetup message pool 0 "create_snap $((5000 + i)) $(thin_id busy)"
	done
	expect "layers" "$(ask busy layers | grep -c ' live ')" 121..
	for i in 1 2 3; do
		(while :; do
			ask busy layers | grep -q '^drr-layers 1 ' || exit 1
			ask busy heat | grep -q '^drr-heat 1 ' || exit 1
		done) &
		pids+=($!)
	done
	for ((i = 0; i < 120; i++)); do
		dmsetup message pool 0 "delete $((5000 + i))"
		((i % 20)) || {
			thin_snap visitor busy
			drr_new visitor
			raw_read visitor 0 1
			container_down visitor
			thin_delete visitor
		}
	done
	for i in "${pids[@]}"; do
		kill "$i" 2>/dev/null || flunk "an answer was wrong"
		wait "$i" 2>/dev/null || true
	done
	expect "layers" "$(ask busy layers | grep -c " $(thin_id busy) ")" 1..
}

# What is known of a second pool's layers goes with that pool.
pools_come_and_go() {
	local before round id
	thin_new keeper 1
	drr_new keeper
	on_exit 'pool2_down; dm_remove keeper; thin_delete keeper'
	before=$(stat_of keeper table_bytes)
	for round in 1 2 3; do
		pool2_up 16
		pool2_new 0
		for ((id = 1; id <= 100; id++)); do
			pool2_snap $id 0
		done
		expect "bytes while there are 101 layers more" "$(stat_of keeper table_bytes)" \
			$((before + 101 * 32))..
		pool2_down
		expect "bytes without them, after pool $round" "$(stat_of keeper table_bytes)" "$before"
	done
}

# before dm-thin-pool: the module sees to it that nothing of a pool is missed
modprobe dm-drr
pool_up 256
run_case "layers older than any drr device" known_before
run_case "the tree follows the pool" tree_follows_the_pool
run_case "owners, three layers deep" owners 3
run_case "owners, ten layers deep" owners 10
run_case "figures add up to the disk's" adds_up
run_case "ext4: figures add up to the disk's" fs_adds_up ext4
run_case "xfs: figures add up to the disk's" fs_adds_up xfs
run_case "older layers are declared" declared
run_case "blocks are counted" blocks_are_counted
run_case "duplicates are told" duplicates_are_told
run_case "ends are counted" ends_are_counted
run_case "answers with little room" short_buffers
run_case "asked all the time" asked_all_the_time
run_case "layers of pools that are gone" pools_come_and_go
run_case "nothing is remembered after unmount" all_down
finish
