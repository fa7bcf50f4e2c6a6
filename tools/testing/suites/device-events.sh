#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# What ends a record from the device side, and who may be a donor at all: direct and raw
# writes, discard, read errors, unmount, removal, reload, claimed block devices, other
# targets stacked above. `a` is the donor, `b` the receiver, both paranoid.

# shellcheck source=tools/testing/lib.sh
. "${0%/*}/../lib.sh"

# of a whole file, but for what shares data blocks with neighbours that were changed
NEARLY_ALL=1800..2048

# The donor reads what it wrote into new pages, clean ones, where the old ones were.
o_direct_write() {
	donate a "$1"
	xfs_io -d -c "pwrite -q -S 0x11 0 1m" "/mnt/a/$1"
	cmp "/mnt/a/$1" <(head -c 1M /dev/zero | tr '\0' '\021')
	receive b "$1" 0
}

fstrim_donor() {
	donate a "$1"
	rm "/mnt/a/$1"
	sync -f /mnt/a
	fstrim /mnt/a
	receive b "$1" 0
}

mounted_with_discard() {
	mount -o remount,discard /mnt/a
	donate a "$1"
	rm "/mnt/a/$1"
	sync -f /mnt/a
	receive b "$1" 0
	mount -o remount,nodiscard /mnt/a
}

# disk_fails TABLE: until the case ends, or disk_heals. File systems must not write meanwhile:
# breaking the sharing of a block reads from the disk, too, so they are frozen.
disk_fails() {
	local name
	for name in /mnt/*/; do
		! mountpoint -q "$name" || fsfreeze -f "$name"
	done
	on_exit disk_heals
	data_table "$1"
}

disk_heals() {
	local name
	data_healthy
	for name in /mnt/*/; do
		! mountpoint -q "$name" || fsfreeze -u "$name" 2>/dev/null || true
	done
}

# every_read_fails: the table for it.
every_read_fails() {
	echo "0 $(sectors "/dev/$DATA_DISK") flakey /dev/$DATA_DISK 0 0 60 1 error_reads"
}

# The disk fails under the donor's read: what was read before counts, the rest does not.
read_error() {
	settle "/mnt/a/$1"
	settle "/mnt/b/$1"
	xfs_io -r -c "fadvise -r" -c "pread -q 0 512k" "/mnt/a/$1"
	disk_fails "$(every_read_fails)"
	expect_fail xfs_io -r -c "fadvise -r" -c "pread 512k 512k" "/mnt/a/$1"
	expect_fail dd if="/mnt/a/$1" of=/dev/null bs=64k skip=8 count=8 iflag=direct
	disk_heals
	receive b "$1" 0..1024
	same "/mnt/a/$1" "$REF/$1"
}

# Every other 64 KiB of the disk fails: requests fail in part, folios are read in part.
read_error_in_places() {
	local total=$(($(sectors "/dev/$DATA_DISK") / 256))
	settle "/mnt/a/$1"
	settle "/mnt/b/$1"
	disk_fails "$(awk -v n="$total" -v disk="/dev/$DATA_DISK" 'BEGIN {
		for (i = 0; i < n; i++) {
			print i * 256, 128, "linear", disk, i * 256
			print i * 256 + 128, 128, "error"
		}
	}')"
	expect_fail cat "/mnt/a/$1"
	disk_heals
	receive b "$1" any
	same "/mnt/a/$1" "$REF/$1"
	# Now that all of a's file was read without errors.
	evict "/mnt/b/$1"
	receive b "$1" any
}

# Neither may a failed read of the receiver's, as a receiver or as a donor, do harm.
read_error_of_a_miss() {
	settle "/mnt/b/$1"
	disk_fails "$(every_read_fails)"
	expect_fail cmp "/mnt/b/$1" "$REF/$1"
	disk_heals
	receive b "$1" 0
	receive a "$1" any
}

# The disk is gone, the donor's memory is not: reads are served as if nothing were.
# (Without paranoid, which would read the disk.)
served_without_a_disk() {
	[ "$DRR" = none ] && skip "no drr"
	container_up "$2" plain base
	on_exit "container_down plain"
	donate a "$1"
	settle "/mnt/plain/$1"
	disk_fails "$(every_read_fails)"
	receive plain "$1" $NEARLY_ALL
	disk_heals
}

remount_donor() {
	donate a "$1"
	umount /mnt/a
	receive b "$1" 0
	evict "/mnt/b/$1"
	fs_mount "$2" a
	# Another file first, for other pages at the same addresses.
	same /mnt/a/other "$REF/other"
	receive b "$1" 0
	evict "/mnt/b/$1"
	donate a "$1"
	receive b "$1" $NEARLY_ALL
}

# The donor's target goes for good, in order.
remove_donor() {
	container_up "$2" gone base paranoid
	donate gone "$1"
	container_down gone
	receive b "$1" 0
}

# It goes while still mounted: its pages stay in memory, its records may not.
remove_donor_by_force() {
	container_up "$2" gone base paranoid
	donate gone "$1"
	dmsetup remove --force gone 2>/dev/null || true
	receive b "$1" 0
	umount /mnt/gone
	container_down gone
}

# I/O goes on while tables are reloaded, devices suspended and resumed.
under_io() {
	local i name pids=()
	on_exit "touch $WORK/stop; wait; rm $WORK/stop"
	for name in a b; do
		(while [ ! -e "$WORK/stop" ]; do
			evict "/mnt/$name/$1"
			cmp "/mnt/$name/$1" "$REF/$1" || exit 1
		done) &
		pids+=($!)
	done
	for ((i = 0; i < 4; i++)); do
		for name in a b; do
			dmsetup suspend $name
			dmsetup resume $name
			dmsetup load $name --table "$(drr_table $name paranoid)"
			dmsetup suspend --nolockfs $name
			dmsetup resume $name
		done
	done
	touch "$WORK/stop"
	for i in "${pids[@]}"; do
		wait "$i" || flunk "a reader failed"
	done
}

# A reload with other features takes effect, and nothing of the old table serves.
reload_features() {
	donate a "$1"
	dmsetup load a --table "$(drr_table a no_donate)"
	dmsetup suspend a
	dmsetup resume a
	receive b "$1" 0
	evict "/mnt/a/$1" "/mnt/b/$1"
	same "/mnt/a/$1" "$REF/$1"
	receive b "$1" 0
	dmsetup load a --table "$(drr_table a paranoid)"
	dmsetup suspend a
	dmsetup resume a
}

# A donor that is suspended holds no one else up, and serves from memory all the same.
suspended_donor() {
	donate a "$1"
	dmsetup suspend --nolockfs a
	on_exit "dmsetup resume a"
	receive b "$1" $NEARLY_ALL
}

# raw_sum DEVICE: the first 16 MiB of a device, past any cache of ours.
raw_copy() {
	dd if="/dev/mapper/$1" of="$2" bs=1M count=16 iflag=direct status=none
}

# A device that nobody has claimed: its own pages are donors, as with VM disks.
raw_donor() {
	raw_up
	exec 7</dev/mapper/raw1
	raw_copy t-raw1 "$WORK/thin"
	dd if=/dev/mapper/raw1 of="$WORK/raw" bs=1M count=16 status=none
	same "$WORK/raw" "$WORK/thin"
	dd if=/dev/mapper/raw2 of="$WORK/raw" bs=1M count=16 status=none
	same "$WORK/raw" "$WORK/thin"
	expect_drr "sectors served" "$(stat_of raw2 hit_sectors)" 3000..
	raw_down
}

# The same, then written to through its own page cache, and written back: read-ahead and all.
raw_donor_written() {
	raw_up
	exec 7<>/dev/mapper/raw1
	raw_copy t-raw1 "$WORK/thin"
	dd if=/dev/mapper/raw1 of=/dev/null bs=1M count=16 status=none
	xfs_io -c "pwrite -q -S 0x77 0 17m" -c fsync /dev/mapper/raw1
	dd if=/dev/mapper/raw2 of="$WORK/raw" bs=1M count=16 status=none
	same "$WORK/raw" "$WORK/thin"
	expect_drr "sectors served" "$(sectors_from raw2 raw1)" 0
	raw_down
}

raw_donor_discarded() {
	raw_up
	exec 7<>/dev/mapper/raw1
	raw_copy t-raw1 "$WORK/thin"
	dd if=/dev/mapper/raw1 of=/dev/null bs=1M count=16 status=none
	blkdiscard -f /dev/mapper/raw1
	dd if=/dev/mapper/raw2 of="$WORK/raw" bs=1M count=16 status=none
	same "$WORK/raw" "$WORK/thin"
	expect_drr "sectors served" "$(sectors_from raw2 raw1)" 0
	raw_down
}

# A mounted file system changes its device's pages without the folio lock and without
# telling. Those that it has changed aren't given to anybody, the others are.
mount_after_raw_reads() {
	local i
	raw_up
	raw_copy t-raw2 "$WORK/thin"
	exec 7</dev/mapper/raw1
	dd if=/dev/mapper/raw1 of=/dev/null bs=1M count=16 status=none
	fs_mount "$1" raw1
	for ((i = 0; i < 50; i++)); do
		mkdir "/mnt/raw1/dir$i"
		: >"/mnt/raw1/dir$i/file"
	done
	dd if=/dev/mapper/raw2 of="$WORK/raw" bs=1M count=16 status=none
	same "$WORK/raw" "$WORK/thin"
	sync -f /mnt/raw1
	xfs_io -r -c "fadvise -d 0 0" /dev/mapper/raw2
	dd if=/dev/mapper/raw3 of="$WORK/raw" bs=1M count=16 status=none
	same "$WORK/raw" "$WORK/thin"
	umount /mnt/raw1
	exec 7<&-
	exec 7</dev/mapper/raw1
	dd if=/dev/mapper/raw1 of=/dev/null bs=1M count=16 status=none
	dd if=/dev/mapper/raw3 of="$WORK/raw" bs=1M count=16 iflag=direct status=none
	same "$WORK/raw" "$WORK/thin"
	raw_down
}

# raw_up: three unmounted siblings. raw_down: and away with them.
raw_up() {
	local i
	for i in 1 2 3; do
		thin_snap raw$i base
		drr_new raw$i paranoid
	done
	on_exit "exec 7<&-; raw_down 2>/dev/null"
}

raw_down() {
	local i
	exec 7<&-
	for i in 1 2 3; do
		container_down raw$i
	done
}

# The file system is on another target above drr: its pages hold what the blocks hold.
stacked_above() {
	local before
	thin_snap under base
	drr_new under paranoid
	dmsetup create above --table "0 $(thin_sectors under) linear /dev/mapper/under 0"
	fs_mount "$2" under /dev/mapper/above
	on_exit "umount /mnt/under; dmsetup remove --retry above; container_down under"
	donate under "$1"
	receive b "$1" 1024..
	evict "/mnt/under/$1"
	before=$(stat_of under hit_sectors)
	same "/mnt/under/$1" "$REF/$1"
	expect_drr "sectors served to it" $(($(stat_of under hit_sectors) - before)) 1024..
}

# dm-crypt reads into the pages of its own reader and decrypts them in place: page-cache
# pages that hold something else than the block that was read into them.
crypt_above() {
	local key=00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff name
	modprobe -q dm-crypt || skip "no dm-crypt"
	thin_new secret 64
	crypt_up secret t-secret
	fs_make ext4 /dev/mapper/crypt-secret
	fs_mount ext4 secret /dev/mapper/crypt-secret
	cp "$REF/$1" /mnt/secret/
	umount /mnt/secret
	dm_remove crypt-secret
	for name in secret1 secret2; do
		thin_snap $name secret
		drr_new $name paranoid
		crypt_up $name $name
		fs_mount ext4 $name /dev/mapper/crypt-$name
		on_exit "umount /mnt/$name; dmsetup remove --retry crypt-$name; container_down $name"
	done
	same "/mnt/secret1/$1" "$REF/$1"
	receive secret2 "$1" 0
	# What secret1 has on record was found out, page by page.
	expect_drr "copies that were in vain" "$(stat_of secret2 unproven_pages)" 1..
}

# crypt_up NAME DEVICE
crypt_up() {
	dmsetup create "crypt-$1" --table \
		"0 $(thin_sectors "$1") crypt aes-xts-plain64 $key 0 /dev/mapper/$2 0"
}

for name in odirect trim discard error errors errormiss nodisk remount other remove force \
	underio reload suspended stacked crypt; do
	random_file $name 1M
done

for fs in ext4 xfs; do
	pool_up 512
	image_new $fs base 320
	container_up $fs a base paranoid
	container_up $fs b base paranoid

	run_case "$fs: O_DIRECT write" o_direct_write odirect
	run_case "$fs: unlink and fstrim" fstrim_donor trim
	run_case "$fs: unlink with -o discard" mounted_with_discard discard
	run_case "$fs: donor unmounted and mounted again" remount_donor remount $fs
	run_case "$fs: donor removed" remove_donor remove $fs
	run_case "$fs: donor removed by force, still mounted" remove_donor_by_force force $fs
	run_case "$fs: reload, suspend and resume under I/O" under_io underio
	run_case "$fs: reload with other features" reload_features reload
	run_case "$fs: donor suspended" suspended_donor suspended
	run_case "$fs: raw block device as donor" raw_donor
	run_case "$fs: raw donor written" raw_donor_written
	run_case "$fs: raw donor discarded" raw_donor_discarded
	run_case "$fs: mount after raw reads" mount_after_raw_reads $fs
	run_case "$fs: dm-linear above drr" stacked_above stacked $fs
	[ $fs = xfs ] || run_case "$fs: dm-crypt above drr" crypt_above crypt
	# last, as large folios that couldn't be read as a whole donate less from then on
	run_case "$fs: read error of the donor" read_error error
	run_case "$fs: read errors in places" read_error_in_places errors
	run_case "$fs: read error of a miss" read_error_of_a_miss errormiss
	run_case "$fs: served while the disk is failing" served_without_a_disk nodisk $fs
	run_case "$fs: nothing is remembered after unmount" all_down
	! lsmod | grep -q '^dm_drr ' || modprobe -r dm-drr	# it forgets them
done
finish
