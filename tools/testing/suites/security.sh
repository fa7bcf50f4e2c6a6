#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# What Documentation/security.md promises, as far as no other suite shows it already: what
# one container can learn of another through DRR, what it can take from it, and who may ask.

# shellcheck source=tools/testing/lib.sh
. "${0%/*}/../lib.sh"

NOBODY=65534

# as_nobody COMMAND...: without any privilege, but allowed to open the control device.
as_nobody() {
	setpriv --reuid $NOBODY --regid $NOBODY --clear-groups --bounding-set=-all \
		--inh-caps=-all "$@"
}

# Device-mapper asks for CAP_SYS_ADMIN, whoever may open its device.
only_root_asks() {
	local mode
	mode=$(stat -c %a /dev/mapper/control)
	on_exit "chmod $mode /dev/mapper/control"
	chmod 666 /dev/mapper/control
	dmsetup status a >/dev/null
	expect_fail as_nobody dmsetup status a
	expect_fail as_nobody dmsetup table a
	expect_fail as_nobody dmsetup message a 0 reset_stats
	expect_fail as_nobody dmsetup load a --table "$(drr_table a no_receive)"
	expect_fail as_nobody dmsetup create mine --table "$(drr_table b)"
	[ "$(dmsetup table --inactive a)" = "" ] || flunk "a table was loaded"
}

# There is no other place that tells of it: no file of ours in proc, sysfs or debugfs, and
# the device node is root's.
nothing_to_read_elsewhere() {
	local found
	found=$(find /proc /sys/kernel/debug /sys/fs /sys/module/dm_drr/parameters -maxdepth 2 \
		\( -iname '*drr*' -o -path '*/parameters/*' \) 2>/dev/null || true)
	[ -z "$found" ] || flunk "found $found"
	expect_fail as_nobody head -c 1 /dev/mapper/a
}

# Of what the donor wrote itself, a sibling gets nothing, through the file system or past it.
private_blocks_stay_private() {
	local at before
	cp "$REF/secret" /mnt/a/secret
	sync -f /mnt/a
	evict /mnt/a/secret
	same /mnt/a/secret "$REF/secret"
	at=$(xfs_io -r -c fiemap /mnt/a/secret |
		awk '$1 == "0:" { split($3, at, /\.\./); print at[1] * 512; exit }')
	((at > 0)) || flunk "no place of the secret: $at"
	before=$(stat_of b hits)
	dd if=/dev/mapper/t-b of="$WORK/below" iflag=direct,skip_bytes skip="$at" bs=64k count=4 \
		status=none
	dd if=/dev/mapper/b of="$WORK/above" iflag=direct,skip_bytes skip="$at" bs=64k count=4 \
		status=none
	cmp "$WORK/below" "$WORK/above"
	expect "hits" $(($(stat_of b hits) - before)) 0
	expect_fail cmp -n 65536 "$WORK/above" "$REF/secret"
}

# A layer of the same pool that shares nothing is served nothing, mapped or not.
strangers_get_nothing() {
	same /mnt/a/file "$REF/file"
	thin_new stranger 64
	drr_new stranger
	on_exit "container_down stranger; thin_delete stranger"
	xfs_io -d -c "pwrite -q -b 1m -S 0x5a 0 8m" /dev/mapper/stranger
	cmp -n 8388608 /dev/mapper/stranger <(head -c 8M /dev/zero | tr '\0' Z)
	cmp -n 16777216 <(dd if=/dev/mapper/stranger iflag=direct bs=1M skip=16 count=16 \
		status=none) /dev/zero
	expect "hits" "$(stat_of stranger hits)" 0
	expect "sectors recorded" "$(stat_of stranger recorded_sectors)" 0
}

# With no_donate nobody can tell by the speed of a read what the container has read.
nothing_told_of_no_donate() {
	container_up ext4 quiet base no_donate
	on_exit "container_down quiet"
	same /mnt/quiet/hidden "$REF/hidden"
	expect "sectors recorded" "$(stat_of quiet recorded_sectors)" 0
	receive b hidden 0
}

# With no_receive the container can't tell, whatever its siblings do.
nothing_told_to_no_receive() {
	donate a watched
	container_up ext4 deaf base no_receive
	on_exit "container_down deaf"
	receive deaf watched 0
	expect "hits" "$(stat_of deaf hits)" 0
}

# What the module remembers is bounded by what is cached, at 288 bytes a page at most: if it is the only one of
# its data block. Metadata that a mounted file system holds on to stays in the cache, and on record.
memory_is_bounded_by_the_cache() {
	local at empty records bytes pages reads=()
	settle /mnt/a/file
	echo 1 >/proc/sys/vm/drop_caches
	evict /mnt/a/file
	empty=$(stat_of a table_bytes)
	pages=$(tracked)
	records=$(stat_of a records)
	# one page of each data block: as many records as there are pages
	for ((at = 0; at < 8 << 20; at += 64 << 10)); do
		reads+=(-c "pread -q $at 4k")
	done
	xfs_io -r -c "fadvise -r" "${reads[@]}" /mnt/a/file
	pages=$(($(tracked) - pages))
	bytes=$(($(stat_of a table_bytes) - empty))
	records=$(($(stat_of a records) - records))
	expect "pages that are tracked" "$pages" 100..
	expect "records" "$records" 100..
	expect "bytes for them" "$bytes" "1..$((pages * 288))"
	evict /mnt/a/file
	expect "bytes when the cache is empty" "$(stat_of a table_bytes)" "..$((empty + 4 * 288))"
}

# A container that floods the table, writes all the time and evicts what it reads takes
# nothing from others but time: they are still served.
neighbours_are_still_served() {
	local pid i
	container_up ext4 noisy base
	: >"$WORK/noise"
	on_exit "rm -f $WORK/noise; wait; container_down noisy"
	(
		while [ -e "$WORK/noise" ]; do
			for ((i = 0; i < 100; i++)); do
				echo $i >"/mnt/noisy/f$i"
			done
			sync -f /mnt/noisy
			evict /mnt/noisy/f*
			cat /mnt/noisy/f* /mnt/noisy/file >/dev/null
			rm -f /mnt/noisy/f[0-9]*
		done
	) &
	pid=$!
	for ((i = 0; i < 3; i++)); do
		evict /mnt/a/file /mnt/b/file
		same /mnt/a/file "$REF/file"
		receive b file 10000..
	done
	rm "$WORK/noise"
	wait $pid || flunk "the noisy container failed"
}

random_file file 8M
for name in secret hidden watched; do
	random_file $name 512K
done
pool_up 512
mkdir "$WORK/aside"
mv "$REF/secret" "$WORK/aside/"
image_new ext4 base 320
mv "$WORK/aside/secret" "$REF/"
container_up ext4 a base paranoid
container_up ext4 b base
run_case "only root may ask" only_root_asks
run_case "nothing to read elsewhere" nothing_to_read_elsewhere
run_case "private blocks stay private" private_blocks_stay_private
run_case "strangers get nothing" strangers_get_nothing
run_case "nothing is told of no_donate" nothing_told_of_no_donate
run_case "nothing is told to no_receive" nothing_told_to_no_receive
run_case "memory is bounded by the cache" memory_is_bounded_by_the_cache
run_case "neighbours are still served" neighbours_are_still_served
run_case "nothing is remembered after unmount" all_down
finish
