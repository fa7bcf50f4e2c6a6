#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# SHORT: uml
#
# Where memory is short, copies that others have go before last copies (drr/reclaim.rs): what goes is
# in nobody's use and not modified, of devices that don't keep theirs, and nothing while memory lasts.

# shellcheck source=tools/testing/lib.sh
. "${0%/*}/../lib.sh"

MIB=40
NAMES=(a b c)
THP=/sys/kernel/mm/transparent_hugepage/enabled
# Changes that are made meanwhile, and rounds of reading for these.
CHANGES=$((400 / ${DRR_SLOW:-1})) ROUNDS=$((${DRR_SLOW:-1} > 1 ? 2 : 4))

# thinned NAME...: pages of theirs that were dropped.
thinned() {
	local name sum=0
	for name; do
		sum=$((sum + $(stat_of "$name" thinned_pages)))
	done
	echo $sum
}

# siblings_up KIND [FEATURE...]: three with nothing cached, and a group with memory for one copy of the
# file and a half.
siblings_up() {
	local name
	for name in "${NAMES[@]}"; do
		container_up "$1" "$name" "base-$1" "${@:2}"
		on_exit "container_gone $name"
	done
	group_new small $(((MIB + MIB / 2 + 16) << 20))
	on_exit "group_end small"
}

container_gone() {
	container_down "$1"
	thin_delete "$1"
}

# read_in_turn TIMES: they read the same file, a piece each, from different places on, and all of it is
# right.
read_in_turn() {
	local time at who piece
	for ((time = 0; time < $1; time++)); do
		for ((at = 0; at < MIB; at++)); do
			for who in 0 1 2; do
				piece=$(((at + who * MIB / 3) % MIB))
				cmp -n $((1 << 20)) -i $((piece << 20)) "/mnt/${NAMES[who]}/big" "$REF/big"
			done
		done
	done
}

# Copies go, it's counted, and no byte is wrong; nor is anything of the pool's disk read twice, but what
# was the last copy.
extra_copies_go() {
	local before
	siblings_up "$1"
	before=$(disk_sectors_read)
	(in_group small read_in_turn 3)
	say "thinned: $(thinned "${NAMES[@]}") of $((3 * MIB * 256)) pages, read from the disk" \
		"$((($(disk_sectors_read) - before) * 100 / (MIB * 2048))) %"
	expect "pages dropped" "$(thinned "${NAMES[@]}")" 1000..
	expect "MiB from the disk" $((($(disk_sectors_read) - before) / 2048)) "..$((MIB * 3 / 2))"
}

kept_where_asked() {
	siblings_up ext4 keep_copies
	(in_group small read_in_turn 2)
	expect "pages dropped" "$(thinned "${NAMES[@]}")" 0
}

# Memory lasts, or the user has it emptied: nothing to do.
nothing_without_need() {
	local name
	siblings_up ext4
	for name in "${NAMES[@]}"; do
		same "/mnt/$name/big" "$REF/big"
	done
	sync
	echo 3 >/proc/sys/vm/drop_caches
	for name in "${NAMES[@]}"; do
		same "/mnt/$name/big" "$REF/big"
	done
	evict /mnt/a/big
	sleep 1
	expect "pages dropped" "$(thinned "${NAMES[@]}")" 0
	expect "pages on record" "$(tracked)" $((MIB * 256 * 2 - 200))..
}

# What somebody has mapped isn't dropped, whoever else has it.
mapped_stays() {
	local holder
	siblings_up ext4
	# what is made one huge page is mapped no longer, until it is touched again
	[ ! -e $THP ] || echo never >$THP
	mkfifo "$WORK/commands"
	xfs_io -r /mnt/a/big <"$WORK/commands" >/dev/null 2>&1 &
	holder=$!
	exec 4>"$WORK/commands"
	on_exit "exec 4>&-; wait $holder"
	printf '%s\n' "mmap -r 0 ${MIB}m" "mread 0 ${MIB}m" >&4
	wait_for 60 all_mapped $holder
	# the mapped pages are somebody else's
	group_new small $(((MIB + 8) << 20))
	# until others go: how soon depends on what reclaim takes
	for _ in 1 2 3 4 5 6 7 8 9 10; do
		(in_group small read_in_turn 2)
		[ "$(thinned b c)" = 0 ] || break
	done
	expect "pages of it dropped" "$(thinned a)" 0
	expect "others" "$(thinned b c)" 1..
}

# all_mapped PROCESS: and touched.
all_mapped() {
	awk -v want=$((MIB << 10)) '/\/big$/ { ours = 1 } ours && /^Rss:/ { exit $2 < want }
		END { if (!ours) exit 1 }' "/proc/$1/smaps"
}

# What is modified while copies of the same go is there afterwards, on the disk, too.
modified_stays() {
	local i at
	siblings_up "$1"
	cp "$REF/big" "$WORK/mine"
	on_exit "rm -f $WORK/mine"
	(in_group small read_over_and_over $ROUNDS) &
	i=$!
	for ((at = 0; at < CHANGES; at++)); do
		head -c 3000 /dev/urandom >"$WORK/piece"
		for file in "$WORK/mine" /mnt/a/big; do
			dd if="$WORK/piece" of="$file" bs=3000 seek=$((at * 7919 % 13000)) conv=notrunc status=none
		done
	done
	wait $i
	same /mnt/a/big "$WORK/mine"
	same /mnt/b/big "$REF/big"
	container_down a
	thin_open a
	drr_new a
	fs_mount "$1" a
	same /mnt/a/big "$WORK/mine"
	expect "pages dropped" "$(thinned b c)" 1..
}

# read_over_and_over TIMES: all of it, as fast as it goes; what a reads is changed meanwhile.
read_over_and_over() {
	local time name
	for ((time = 0; time < 4 * $1; time++)); do
		for name in "${NAMES[@]}"; do
			cat "/mnt/$name/big" >/dev/null
		done
	done
}

# A group that isn't short of memory keeps what it has, whoever else has it.
other_groups_keep_theirs() {
	siblings_up ext4
	same /mnt/a/big "$REF/big"
	group_new small $(((MIB + 8) << 20))
	(in_group small read_in_turn 3)
	expect "pages of it dropped" "$(thinned a)" 0
	expect "others" "$(thinned b c)" 1..
}

# service_reads: for a while, a service whose group is at its limit re-reads what is hot, 4 MiB, and now and then
# scans what isn't, 16 MiB. Leaves in $missed how many KiB of what is hot were not in its page cache, and in
# $evicted how many pages have left it. LEAVES: a sibling, which has all of it, loses it before that turn.
service_reads() {
	local turn hits disk thinned=0
	missed=0
	for ((turn = 1; turn <= 4; turn++)); do
		(in_group service cat /mnt/service/hot >/dev/null)
	done
	for ((turn = 1; turn <= 20; turn++)); do
		(in_group service cat /mnt/service/scan >/dev/null)
		sleep 0.1
		[ "$turn" != "${LEAVES:-}" ] || evict /mnt/other/hot /mnt/other/scan
		hits=$(hits_of service) disk=$(disk_sectors_read)
		(in_group service cat /mnt/service/hot >/dev/null)
		missed=$((missed + ($(hits_of service) - hits + $(disk_sectors_read) - disk) / 2))
		(in_group service cat /mnt/service/hot >/dev/null)
	done
	[ "$DRR" = none ] || thinned=$(stat_of service thinned_pages)
	evicted=$(($(awk '$1 == "pgsteal" { print $2 }' $GROUPS_DIR/service/memory.stat) + thinned))
	say "of 81920 KiB that are hot $missed were not cached; evicted $evicted pages, $thinned of them thinned;" \
		"cached at last: $(awk '$1 == "file" { print $2 / 1024 }' $GROUPS_DIR/service/memory.stat) KiB"
	same /mnt/service/hot "$REF/hot"
	container_gone service
	group_end service
}

hits_of() {
	case $DRR in
	none) echo 0 ;;
	*) stat_of "$1" hit_sectors ;;
	esac
}

# What is hot stays as it does without drr, and no more goes than where there is nobody else to have it from. Reclaim
# itself gives up what is hot in one of twenty attempts, with no page thinned; so the best of three counts. Multi-gen LRU
# gives it up in all of them.
hot_stays() {
	local missed evicted usual usually_missed
	container_up ext4 other base-ext4
	on_exit "container_gone other"
	cat /mnt/other/hot /mnt/other/scan >/dev/null
	DRR=none container_up ext4 service base-ext4
	group_new service $((12 << 20))
	DRR=none service_reads
	usual=$evicted usually_missed=$missed
	for _ in 1 2 3; do
		cat /mnt/other/hot /mnt/other/scan >/dev/null
		container_up ext4 service base-ext4
		group_new service $((12 << 20))
		service_reads
		[ "$missed" -gt $((usually_missed + 4096)) ] || break
	done
	expect "KiB of what is hot that were not cached" "$missed" ..$((usually_missed + 4096))
	expect "pages evicted" "$evicted" ..$((usual * 11 / 10))
}

# Module and devices go right when copies do.
gone_in_the_midst() {
	local reader
	siblings_up ext4
	(in_group small read_in_turn 100) 2>/dev/null &
	reader=$!
	wait_for 60 some_thinned
	kill $reader
	wait $reader || true
	all_down
	modprobe -r dm-drr
}

some_thinned() {
	[ "$(thinned "${NAMES[@]}")" -gt 0 ]
}

[ "$DRR" = drr ] || { say "these are about drr"; finish; exit; }
pool_up 512
random_file big $((MIB << 20))
random_file hot 4M
random_file scan 16M
for fs in ext4 xfs; do
	image_new $fs base-$fs $((2 * MIB + 80))
done
modprobe dm-drr
for fs in ext4 xfs; do
	run_case "$fs: extra copies go" extra_copies_go $fs
	run_case "$fs: what is modified stays" modified_stays $fs
done
run_case "kept where that is asked for" kept_where_asked
run_case "nothing without need" nothing_without_need
run_case "what is mapped stays" mapped_stays
run_case "other groups keep theirs" other_groups_keep_theirs
run_case "what is hot stays" hot_stays
LEAVES=10 run_case "what is hot stays when a sibling leaves" hot_stays
run_case "unloaded in the midst" gone_in_the_midst
finish
