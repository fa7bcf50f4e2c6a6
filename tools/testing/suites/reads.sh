#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# Reads: what is served is right, and the disk is left alone. Disk reads are counted at
# the disk. Devices are without `paranoid` here where that counting is the point, since
# paranoid reads the disk for every hit.

# shellcheck source=tools/testing/lib.sh
. "${0%/*}/../lib.sh"

FILE_SECTORS=$((4 << 11))

# A reads, B is served, then C: each receiver is the newest donor, and the disk is idle.
serves_siblings() {
	local disk
	settle /mnt/b/big
	settle /mnt/c/big
	settle /mnt/d/big
	disk=$(disk_sectors_read)
	donate a big
	expect "sectors read from disk by a" $(($(disk_sectors_read) - disk)) "$FILE_SECTORS.."

	[ "$DRR" = none ] && return
	disk=$(disk_sectors_read)
	receive b big "$FILE_SECTORS"
	receive c big "$FILE_SECTORS"
	expect "sectors read from disk by b and c" $(($(disk_sectors_read) - disk)) 0
	expect "sectors that b got from a" "$(sectors_from b a)" "$FILE_SECTORS.."
	expect "sectors that c got from b" "$(sectors_from c b)" "$FILE_SECTORS.."

	# With all but the newest gone, the newest still serves.
	evict /mnt/a/big /mnt/b/big
	disk=$(disk_sectors_read)
	receive d big "$FILE_SECTORS"
	expect "sectors read from disk by d" $(($(disk_sectors_read) - disk)) 0
	expect "sectors that d got from c" "$(sectors_from d c)" "$FILE_SECTORS.."
}

# With no donor left, the disk is read: what is not in memory is not served.
nothing_after_eviction() {
	local disk
	donate a evicted
	evict /mnt/a/evicted
	settle /mnt/b/evicted
	disk=$(disk_sectors_read)
	receive b evicted 0
	expect_drr "sectors read from disk" $(($(disk_sectors_read) - disk)) 2048..
}

# The last page is served like any other.
unaligned_size() {
	local pages=$((($(stat -c %s "$REF/tail") + 4095) / 4096))
	donate a tail
	receive b tail $((pages * 8 - 240))..
	same_last_page
}

# same_last_page: b's is in memory by now, with what is behind the file's end.
same_last_page() {
	local last=$(($(stat -c %s "$REF/tail") / 4096 * 4096))
	xfs_io -r -c "mmap -r $last 4k" -c "mread -v $last 4k" /mnt/b/tail >"$WORK/b"
	xfs_io -r -c "mmap -r $last 4k" -c "mread -v $last 4k" /mnt/nr/tail >"$WORK/nr"
	same "$WORK/b" "$WORK/nr"
}

# Many files in one data block, one read after the other and in another order.
small_files() {
	local i before
	for ((i = 0; i < 12; i++)); do
		same "/mnt/a/small/$i" "$REF/small/$i"
	done
	before=$(stat_of b hit_sectors)
	for ((i = 11; i >= 0; i--)); do
		same "/mnt/b/small/$i" "$REF/small/$i"
	done
	# 12 files, of two pages on average: all of it can be served.
	expect_drr "sectors served" $(($(stat_of b hit_sectors) - before)) 192..
}

# read_parts NAME FILE STEP SIZE [FIRST]: reads SIZE KiB in each STEP KiB of a file, from FIRST on, and
# no more.
read_parts() {
	local offset args=()
	for ((offset = ${5:-0}; offset < 1024; offset += $3)); do
		args+=(-c "pread -q ${offset}k ${4}k")
	done
	xfs_io -r -c "fadvise -r" "${args[@]}" "/mnt/$1/$2"
}

# direct_read NAME FILE SIZE SECTORS: in requests of SIZE; so many sectors come from the disk.
direct_read() {
	local before
	settle "/mnt/$1/$2"
	before=$(disk_sectors_read)
	dd if="/mnt/$1/$2" of="$WORK/direct" bs="$3" iflag=direct status=none
	expect_drr "sectors from the disk for a direct reader" $(($(disk_sectors_read) - before)) "$4"
	same "$WORK/direct" "$REF/$2"
}

# The donor has every other 16 KiB only; the receivers ask in their own way. Each gets from the disk
# what the donor hasn't, and nothing else, however large its requests are.
partly_cached_donor() {
	local before
	settle /mnt/b/partly
	read_parts a partly 32 16
	direct_read c partly 1M 1024
	before=$(disk_sectors_read)
	receive b partly 1024
	expect_drr "sectors from the disk with readahead" $(($(disk_sectors_read) - before)) 1024
	# now a and b have all of it together
	before=$(disk_sectors_read)
	receive c partly 2048
	expect_drr "sectors from the disk with two donors" $(($(disk_sectors_read) - before)) 0
}

# Fewer pages than four are served where a request begins or ends. In its midst they go to the disk
# with the rest, as two requests would cost more; but for those between which a data block begins.
scattered_donor() {
	read_parts a scattered 16 12
	direct_read c scattered 16k 512
	read_parts a midst 16 8 4
	direct_read c midst 16k 1792..2048
}

# O_DIRECT readers are served, and their pages, which aren't page cache, are no donors.
direct_reader() {
	local tracked hits
	donate a direct
	hits=$(stat_of b hit_sectors)
	tracked=$(tracked)
	dd if=/mnt/b/direct of="$WORK/direct" iflag=direct bs=256k status=none
	same "$WORK/direct" "$REF/direct"
	expect_drr "sectors served" $(($(stat_of b hit_sectors) - hits)) 2048
	expect_drr "pages more to donate after the direct read" $(($(tracked) - tracked)) 0
	# A direct reader alone does not make its own pages donors either.
	dd if=/mnt/b/direct2 of="$WORK/direct" iflag=direct bs=256k status=none
	same "$WORK/direct" "$REF/direct2"
	receive c direct2 0
}

# Requests that span thin blocks and start inside one, straight from the device.
spanning_requests() {
	local range first count
	for range in "7 250" "15 17" "16 1" "1 640"; do
		read -r first count <<<"$range"
		dd if=/dev/mapper/b of="$WORK/drr" iflag=direct,skip_bytes,count_bytes bs=2M \
			skip=$((first << 12)) count=$((count << 12)) status=none
		dd if=/dev/mapper/t-b of="$WORK/thin" iflag=direct,skip_bytes,count_bytes bs=2M \
			skip=$((first << 12)) count=$((count << 12)) status=none
		same "$WORK/drr" "$WORK/thin"
	done
}

# A block that only its owner maps isn't shared: nobody could be served from it.
unshared_blocks() {
	local tracked before
	cp "$REF/big" /mnt/a/own
	sync -f /mnt/a/own
	evict /mnt/a/own
	tracked=$(tracked)
	before=$(stat_of a miss_unshared)
	same /mnt/a/own "$REF/big"
	expect_drr "pages more to donate" $(($(tracked) - tracked)) 0
	expect_drr "misses for want of sharing" $(($(stat_of a miss_unshared) - before)) 1..
}

# mmap readers fault pages in one by one or in fault-around batches.
mapped_reader() {
	local hits
	donate a mapped
	hits=$(stat_of b hit_sectors)
	xfs_io -r -c "mmap -r 0 1m" -c "mread -r 0 1m" /mnt/b/mapped
	receive b mapped any
	expect_drr "sectors served" $(($(stat_of b hit_sectors) - hits)) 2048
}

paranoid_reads_all() {
	local disk verified
	donate a paranoid
	settle /mnt/p/paranoid
	disk=$(disk_sectors_read)
	verified=$(stat_of p verified)
	receive p paranoid 2048
	expect_drr "sectors read from disk to compare" $(($(disk_sectors_read) - disk)) 2048..
	expect_drr "hits verified" $(($(stat_of p verified) - verified)) 1..
}

# no_donate: reads of nd are recorded for nobody. no_receive: nr never gets any.
features() {
	local tracked
	tracked=$(tracked)
	same /mnt/nd/features "$REF/features"
	expect_drr "pages that nd can donate" $(($(tracked) - tracked)) 0
	receive b features 0
	receive nr features 0
	expect_drr "hits of nr" "$(stat_of nr hits)" 0
	# but nd is served, and nr serves.
	evict /mnt/b/features /mnt/nd/features
	receive nd features 2048
}

# The status line: dm-thin's own two fields first; the table line: as loaded.
status_and_table() {
	local -a drr thin
	[ "$DRR" = none ] && skip "no drr"
	read -r -a drr < <(dmsetup status a)
	read -r -a thin < <(dmsetup status t-a)
	expect "mapped sectors" "${drr[3]}" "${thin[3]}"
	[ "${drr[4]}" = "${thin[4]}" ] || flunk "highest sector: ${drr[4]}, thin's ${thin[4]}"
	[ "${drr[5]}" = "thin=$(thin_id a)" ] || flunk "thin id: ${drr[5]}"
	[[ "$(dmsetup table p)" =~ ^0\ $(thin_sectors p)\ drr\ [0-9]+:[0-9]+\ 1\ paranoid$ ]] ||
		flunk "table: $(dmsetup table p)"
	[[ "$(dmsetup table a)" =~ ^0\ $(thin_sectors a)\ drr\ [0-9]+:[0-9]+$ ]] ||
		flunk "table: $(dmsetup table a)"
}

reset_stats() {
	[ "$DRR" = none ] && skip "no drr"
	dmsetup message a 0 reset_stats
	expect "reads" "$(stat_of a reads)" 0
	expect "hits" "$(stat_of a hits)" 0
	expect "donated" "$(stat_of a recorded_sectors)" 0
	[ "$(stat_of a from)" = - ] || flunk "from=$(stat_of a from) after a reset"
}

# A drr target that isn't at the start of its device, nor at the start of the thin device.
target_at_an_offset() {
	local len=8192
	[ "$DRR" = none ] && skip "no drr"
	dmsetup create odd --table "0 2048 zero
2048 $len drr /dev/mapper/t-d"
	on_exit "dmsetup remove --retry odd"
	dd if=/dev/mapper/odd of="$WORK/drr" bs=1M skip=1 count=4 status=none
	dd if=/dev/mapper/t-d of="$WORK/thin" bs=1M count=4 iflag=direct status=none
	same "$WORK/drr" "$WORK/thin"
}

# A flush has no place: device-mapper sends it with the device's first sector, which is in front of a
# target that begins later. Writes of whole and of partial blocks through that target, with O_DSYNC and
# with fsync(), are where they belong on the thin device, and nothing else is changed.
flush_at_an_offset() {
	local len=8192
	[ "$DRR" = none ] && skip "no drr"
	thin_snap odd base
	dmsetup create odd --table "0 2048 zero
2048 $len drr /dev/mapper/t-odd"
	on_exit "dmsetup remove --retry odd; dmsetup remove --retry t-odd"
	dd if=/dev/mapper/t-odd of="$WORK/thin" bs=1M count=4 iflag=direct status=none
	xfs_io -d -c "pwrite -q -S 0x66 1m 64k" -c fsync /dev/mapper/odd
	xfs_io -d -s -c "pwrite -q -S 0x66 1208k 4k" /dev/mapper/odd
	xfs_io -c "pwrite -q -S 0x66 2m 100" -c fsync /dev/mapper/odd
	xfs_io -c "pwrite -q -S 0x66 0 64k" -c "pwrite -q -S 0x66 184k 4k" -c "pwrite -q -S 0x66 1m 100" \
		"$WORK/thin"
	dd if=/dev/mapper/t-odd of="$WORK/written" bs=1M count=4 iflag=direct status=none
	same "$WORK/written" "$WORK/thin"
	dd if=/dev/mapper/odd of="$WORK/drr" bs=1M skip=1 count=4 iflag=direct status=none
	same "$WORK/drr" "$WORK/thin"
}

# odd_length SECTORS: a device that ends with a part of a page, opened raw: all whole pages donate but those of its
# last request, which asks for the part as well. What ends there is right.
odd_length() {
	local sectors=$1 name
	[ "$DRR" = none ] && skip "no drr"
	for name in one two; do
		thin_snap "odd-$name" base
		dmsetup create "odd-$name" --table "0 $sectors drr /dev/mapper/t-odd-$name"
		on_exit "dmsetup remove --retry odd-$name; thin_delete odd-$name"
	done
	dd if=/dev/mapper/t-odd-one of="$WORK/thin" bs=512 count="$sectors" iflag=direct status=none
	exec 7</dev/mapper/odd-one 8</dev/mapper/odd-two
	on_exit "exec 7<&- 8<&-"
	cat <&7 | cmp - "$WORK/thin"
	cat <&8 | cmp - "$WORK/thin"
	expect "sectors served" "$(stat_of odd-two hit_sectors)" 1000..
	expect "requests that found nobody who has it" "$(stat_of odd-two miss_norecord)" ..1
}

random_file big 4M
for name in evicted partly scattered midst direct direct2 together mapped paranoid features; do
	random_file $name 1M
done
random_file tail 1049000
for ((i = 0; i < 12; i++)); do
	random_file small/$i $(((i % 3 + 1) * 4096 - i * 300))
done

# Larger data blocks than a request of the disk, whose limit is no whole number of pages.
large_blocks() {
	local BLOCK_SECTORS=256
	pool_up 512
	on_exit all_down
	image_new ext4 base 320
	container_up ext4 a base
	container_up ext4 b base
	donate a big
	receive b big "$(($(stat -c %s "$REF/big") * 9 / 5120)).."
}

run_case "blocks of 128 KiB" large_blocks
for fs in ext4 xfs; do
	pool_up 512
	image_new $fs base 320
	for name in a b c d; do
		container_up $fs $name base
	done
	container_up $fs p base paranoid
	container_up $fs nd base no_donate
	container_up $fs nr base no_receive

	run_case "$fs: siblings are served and the disk is not read" serves_siblings
	run_case "$fs: evicted pages are not served" nothing_after_eviction
	run_case "$fs: file size not a multiple of a page" unaligned_size
	run_case "$fs: small files sharing data blocks" small_files
	run_case "$fs: donor with parts of a file" partly_cached_donor
	run_case "$fs: donor with small parts of a file" scattered_donor
	run_case "$fs: O_DIRECT reader" direct_reader
	run_case "$fs: requests spanning thin blocks" spanning_requests
	run_case "$fs: unshared blocks are not recorded" unshared_blocks
	run_case "$fs: four cold readers at once" read_at_once together a b c d
	run_case "$fs: mmap reader" mapped_reader
	run_case "$fs: paranoid compares with the disk" paranoid_reads_all
	run_case "$fs: no_donate and no_receive" features
	run_case "$fs: status and table" status_and_table
	run_case "$fs: reset_stats" reset_stats
	run_case "$fs: target at an offset" target_at_an_offset
	run_case "$fs: flush at an offset" flush_at_an_offset
	run_case "$fs: device that ends within a page, 512-byte blocks" odd_length 8191
	run_case "$fs: device that ends within a page, 2 KiB blocks" odd_length 8188
	run_case "$fs: nothing is remembered after unmount" all_down
done
finish
