#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# Which blocks are shared with whom: snapshots of running containers, of snapshots, and
# images grown from one base. Records are by data block, so siblings need not be brothers.

# shellcheck source=tools/testing/lib.sh
. "${0%/*}/../lib.sh"

# of a file of 1 MiB, but for data blocks that it shares with neighbours that were changed
MOST=1800..2048

# A container that is the first of its line has nothing shared. From its snapshot on, its
# blocks are; what it had read before is not recorded, what it reads again is.
snapshot_of_a_running_container() {
	local fs=$1 pid
	thin_new run 320
	fs_make "$fs" /dev/mapper/t-run
	drr_new run paranoid
	fs_mount "$fs" run
	cp "$REF/old" "$REF/shared" /mnt/run/
	sync -f /mnt/run
	evict /mnt/run/shared /mnt/run/old
	same /mnt/run/shared "$REF/shared"
	expect_drr "pages to donate before the snapshot" "$(tracked)" 0

	# The container goes on writing while it is being snapshotted.
	(for _ in 1 2 3 4 5 6; do
		head -c 512K /dev/urandom >/mnt/run/noise
		sync -f /mnt/run/noise
	done) &
	pid=$!
	container_up "$fs" snap run paranoid
	wait $pid
	same /mnt/snap/old "$REF/old"
	evict /mnt/snap/old

	receive snap shared any
	evict /mnt/snap/shared /mnt/run/shared
	donate run shared
	receive snap shared $MOST
	expect_drr "sectors from the origin" "$(sectors_from snap run)" 1800..

	# The origin goes its own way: its new blocks are not the snapshot's.
	cp "$REF/other" /mnt/run/shared
	sync -f /mnt/run
	evict /mnt/run/shared /mnt/snap/shared
	same /mnt/run/shared "$REF/other"
	receive snap shared 0

	# And back: the snapshot donates to its origin.
	evict /mnt/run/old /mnt/snap/old
	donate snap old
	receive run old $MOST
	container_down snap
	container_down run
}

# A snapshot for which nobody has suspended the device: its blocks are shared from then on, whatever
# was known of them.
snapshot_without_suspending() {
	local fs=$1 tracked
	container_up "$fs" busy base paranoid
	cp "$REF/red" /mnt/busy/
	sync -f /mnt/busy
	for _ in 1 2; do
		evict /mnt/busy/red
		tracked=$(tracked)
		same /mnt/busy/red "$REF/red"
		expect_drr "more pages to donate before it" $(($(tracked) - tracked)) 0
	done
	thin_remember late "$(thin_sectors busy)"
	dmsetup message pool 0 "create_snap $(thin_id late) $(thin_id busy)"
	evict /mnt/busy/red
	donate busy red
	expect_drr "more pages to donate after it" $(($(tracked) - tracked)) 200..256
	container_down busy
	dmsetup message pool 0 "delete $(thin_id late)"
}

# Two images made by adding to one base; containers of each.
two_images() {
	local fs=$1 name before
	for name in red blue; do
		thin_snap $name base
		fs_mount "$fs" $name /dev/mapper/t-$name
		cp "$REF/$name" "/mnt/$name/added"
		umount "/mnt/$name"
		container_up "$fs" ${name}1 $name paranoid
		container_up "$fs" ${name}2 $name paranoid
	done
	# The base's blocks serve across images.
	donate red1 shared
	receive blue1 shared $MOST
	expect_drr "sectors that blue1 got from red1" "$(sectors_from blue1 red1)" 1800..
	# What was added serves within its image only, though file and place have one name.
	same /mnt/red1/added "$REF/red"
	settle /mnt/blue2/added
	before=$(stat_of blue2 hit_sectors)
	same /mnt/blue2/added "$REF/blue"
	expect_drr "sectors that blue2 got of red's file" \
		$(($(stat_of blue2 hit_sectors) - before)) 0
	same /mnt/red2/added "$REF/red"
	expect_drr "sectors that red2 got" "$(sectors_from red2 red1)" 1800..
	same /mnt/blue1/added "$REF/blue"
	expect_drr "sectors that blue1 got from blue2" "$(sectors_from blue1 blue2)" 1800..
	for name in red1 red2 blue1 blue2; do
		container_down $name
	done
	records_gone_after_a_look
}

# Five snapshots deep, each with a file of its own: every level sees the levels above it.
five_deep() {
	local fs=$1 level parent=base other
	for level in 1 2 3 4 5; do
		thin_snap "deep$level" $parent
		drr_new "deep$level" paranoid
		fs_mount "$fs" "deep$level"
		cp "$REF/deep$level" "/mnt/deep$level/deep$level"
		cp "$REF/deep$level" "/mnt/deep$level/same-name"
		sync -f "/mnt/deep$level"
		evict "/mnt/deep$level/deep$level" "/mnt/deep$level/same-name"
		parent=deep$level
	done
	# The deepest reads the base's file, then everyone else gets it.
	donate deep5 shared
	for level in 4 3 2 1; do
		receive "deep$level" shared $MOST
	done
	# A file of level 2 is there from 2 on; it serves those that have it.
	same /mnt/deep2/deep2 "$REF/deep2"
	for level in 3 4 5; do
		receive "deep$level" deep2 272..512
	done
	[ ! -e /mnt/deep1/deep2 ] || flunk "level 1 has a file of level 2"
	# Everyone rewrote this one: nobody may get another level's.
	for level in 1 2 3 4 5; do
		same "/mnt/deep$level/same-name" "$REF/deep$level"
	done
	for other in 5 4 3 2 1; do
		container_down "deep$other"
	done
	records_gone_after_a_look
}

# The base goes while its containers run; theirs stay shared with one another.
base_deleted() {
	local fs=$1
	container_up "$fs" left base paranoid
	container_up "$fs" right base paranoid
	donate left old
	thin_delete base
	receive right old $MOST
	evict /mnt/right/old
	# The donor's thin device goes; its blocks live on in the other.
	container_down left
	dmsetup message pool 0 "delete $(thin_id left)"
	receive right old 0
	container_down right
}

# Only existing drr devices have a status to look at.
records_gone_after_a_look() {
	[ "$DRR" = none ] && return
	drr_new base
	records_gone
	dm_remove base
}

for name in shared old other red blue; do
	random_file $name 1M
done
for level in 1 2 3 4 5; do
	random_file deep$level 256K
done

for fs in ext4 xfs; do
	pool_up 512
	image_new $fs base 320 shared old
	run_case "$fs: snapshot of a running container" snapshot_of_a_running_container $fs
	run_case "$fs: snapshot without suspending" snapshot_without_suspending $fs
	run_case "$fs: two images of one base" two_images $fs
	run_case "$fs: snapshots five deep" five_deep $fs
	run_case "$fs: base deleted under its containers" base_deleted $fs
	run_case "$fs: nothing is remembered after unmount" all_down
done
finish
