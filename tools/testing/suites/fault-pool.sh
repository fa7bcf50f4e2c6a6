#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# The pool itself fails under load: its metadata can't be written, or not be read either, it
# is out of room for data or for metadata. It turns read-only, queues, or fails, and rolls
# back what it had not committed: records that rest on it must go. Repaired and back in
# service, the pool must have everything that was synced.

# shellcheck source=tools/testing/lib.sh
. "${0%/*}/../lib.sh"
# shellcheck source=tools/testing/faults/faults.sh
. "${0%/*}/../faults/faults.sh"

META=/dev/$META_DISK

# pool_with KIND MIB [META_SECTORS]: a pool of this size with its metadata on the device
# `meta`, and three siblings.
pool_with() {
	on_exit extra_gone
	pool_up "$2"
	on_exit all_gone
	dm_remove pool
	dd if=/dev/zero of="$META" bs=4k count=1 oflag=direct status=none
	dmsetup create meta --table "0 ${3:-$(sectors "$META")} linear $META 0"
	pool_create /dev/mapper/meta
	image_new "$1" base 320
	siblings_up "$1"
}

# all_gone: as all_down, of a case that may have failed halfway.
all_gone() {
	load_stop
	[ ! -e /dev/mapper/meta ] || meta_healthy
	all_down
}

# extra_disk MIB: one more disk.
extra_disk() { ram_disk nullb2 "$1"; }

extra_gone() {
	[ -d /sys/kernel/config/nullb/nullb2 ] || return 0
	echo 0 >/sys/kernel/config/nullb/nullb2/power
	rmdir /sys/kernel/config/nullb/nullb2
}

meta_healthy() { meta_table "0 $(sectors "$META") linear $META 0"; }

# pool_mode: rw, ro, out_of_data_space, or Fail.
pool_mode() {
	local fields
	read -r -a fields < <(dmsetup status pool)
	[ "${fields[3]}" = Fail ] && echo Fail || echo "${fields[7]}"
}

pool_is() {
	[[ " $* " == *" $(pool_mode) "* ]]
}

# out_of_service: the metadata is legible again, and everything above it goes.
out_of_service() {
	local name
	meta_healthy
	for name in "${SIBLINGS[@]}"; do
		unmount "$name"
		container_down "$name"
	done
	[ ! -e /dev/mapper/t-base ] || dm_remove t-base
	dm_remove pool
}

# needs_check: the pool refuses to write until it is repaired.
needs_check() {
	pool_create /dev/mapper/meta
	[[ $(dmsetup status pool) == *" ro "*" needs_check "* ]] ||
		flunk "no need for a check: $(dmsetup status pool)"
	dm_remove pool
}

# repair HOW: with the flag cleared after a check, or written anew from what is legible.
repair() {
	case $1 in
	check)
		needs_check
		thin_check --clear-needs-check-flag /dev/mapper/meta
		;;
	repair)
		extra_disk 16
		thin_repair -i /dev/mapper/meta -o /dev/nullb2
		dd if=/dev/nullb2 of=/dev/mapper/meta bs=1M oflag=direct status=none
		;;
	esac
	thin_check /dev/mapper/meta
}

# in_service KIND: and comes again.
in_service() {
	local name
	pool_create /dev/mapper/meta
	pool_is rw || flunk "the pool is not back in service: $(dmsetup status pool)"
	for name in "${SIBLINGS[@]}"; do
		thin_open "$name"
		drr_new "$name" paranoid
		fs_mount "$1" "$name"
	done
}

# back KIND HOW: the way back for a pool that needs repair; everything has to be there.
back() {
	stats_sane
	out_of_service
	repair "$2"
	in_service "$1"
	check_content "$1"
}

# The metadata can be read and not written: the pool turns read-only under load, and takes
# back what it had not committed. dm-thin forgets which devices that has hit when it is the
# commit that fails (__write_changed_details()), and lets their next flush succeed.
metadata_writes_fail() {
	pool_with "$1" 256
	load_start
	sleep 0.5
	load_promises_nothing
	meta_table "0 $(sectors "$META") flakey $META 0 0 60 1 error_writes"
	load_until write_errors
	wait_for 30 pool_is ro Fail
	echo "$(pool_mode): $(dmsetup status pool)"
	sleep 0.5
	load_end
	back "$1" "$2"
}

# Neither: it fails altogether, and with it every read that has to ask where a block is.
metadata_gone() {
	pool_with "$1" 256
	load_start
	sleep 0.5
	load_promises_nothing
	meta_table "0 $(sectors "$META") error"
	load_until write_errors read_errors
	wait_for 30 pool_is Fail
	[[ $DRR = none || $(dmsetup status a) == *" drr - - "* ]] || flunk "$(dmsetup status a)"
	load_end
	back "$1" "$2"
}

# A failed commit takes back what was mapped since the last: no record outlives that, and
# what is read afterwards is what the disk has.
rolled_back() {
	local name hits
	pool_with "$1" 256
	for name in a b; do
		same "/mnt/$name/one" "$REF/one"
		settle "/mnt/$name/two"
	done
	expect_drr "records" "$(stat_of a records)" 16..
	meta_table "0 $(sectors "$META") flakey $META 0 0 60 1 error_writes"
	# fails, too, if the pool has tried to commit meanwhile
	xfs_io -d -c "pwrite -q -b 64k -S 0xee 4m 1m" /dev/mapper/t-base || true
	sync /dev/mapper/t-base || true
	wait_for 30 pool_is ro
	# Nothing is found by a name of this activation any more.
	hits=$(stat_of b hit_sectors)
	for name in a b; do
		same "/mnt/$name/two" "$REF/two"
		evict "/mnt/$name/one"
		same "/mnt/$name/one" "$REF/one"
	done
	expect_drr "sectors served afterwards" $(($(stat_of b hit_sectors) - hits)) 0
	out_of_service
	repair "$2"
	in_service "$1"
	for name in a b c; do
		same "/mnt/$name/one" "$REF/one"
	done
}

# more_room [FEATURE...]: another disk joins the data device, and the pool grows.
more_room() {
	local old new
	extra_disk 128
	old=$(sectors "/dev/$DATA_DISK")
	new=$(sectors /dev/nullb2)
	data_table "0 $old linear /dev/$DATA_DISK 0
$old $new linear /dev/nullb2 0"
	pool_table $((old + new)) "$@"
}

# pool_table SECTORS [FEATURE...]
pool_table() {
	local length=$1
	shift
	dmsetup load pool --table "0 $length thin-pool /dev/mapper/meta /dev/mapper/data \
$BLOCK_SECTORS 0 $(($# + 1)) skip_block_zeroing $*"
	dmsetup suspend --noflush --nolockfs pool
	dmsetup resume pool
}

# no_data_space KIND TIMEOUT [FEATURE]: full. Writers wait, or get errors at once, or after
# TIMEOUT seconds; readers do neither. Then there is room again.
no_data_space() {
	local kind=$1 timeout=$2 before
	shift 2
	pool_with "$kind" 64
	thin_new filler 128
	on_exit writers_fail
	fill 0 $(($(free_blocks) - 160))
	[ $# = 0 ] || pool_table "$(sectors "/dev/$DATA_DISK")" "$@"
	echo "$timeout" >/sys/module/dm_thin_pool/parameters/no_space_timeout
	load_start
	fill 64 160 &
	wait_for 60 pool_is out_of_data_space
	if [[ $timeout = 0 ]]; then
		before=$(stat_of a reads)
		[ "$DRR" = none ] || wait_for 60 reads_since "$before"
	else
		load_until write_errors
	fi
	more_room "$@"
	wait_for 60 pool_is rw
	sleep 0.5
	load_end
	check_siblings "$kind"
}

# A read takes no write along to the block that it shares: not when the pool can't give the
# write one of its own either.
shared_blocks_stay() {
	local mode=$1
	pool_with ext4 64
	thin_new origin 1
	head -c 256K /dev/urandom >"$WORK/shared"
	dd if="$WORK/shared" of=/dev/mapper/t-origin bs=64k oflag=direct status=none
	dm_remove t-origin
	thin_snap copy origin
	thin_snap other origin
	if [ "$mode" = full ]; then
		pool_table "$(sectors "/dev/$DATA_DISK")" error_if_no_space
		thin_new filler 128
		fill 0 2000
		wait_for 60 pool_is out_of_data_space
	else
		pool_table "$(sectors "/dev/$DATA_DISK")" read_only
	fi
	"$HELPER" refused /dev/mapper/t-copy "$WORK/shared" 10
	dd if=/dev/mapper/t-other of="$WORK/other" bs=64k count=4 iflag=direct status=none
	same "$WORK/other" "$WORK/shared"
}

# free_blocks: that the pool has left.
free_blocks() {
	local fields
	read -r -a fields < <(dmsetup status pool)
	echo $((${fields[5]#*/} - ${fields[5]%/*}))
}

# fill MIB BLOCKS: writes so many blocks, from there on. Large requests: each is many blocks.
fill() {
	xfs_io -d -c "pwrite -q -b 1m -S 0xff ${1}m $(($2 * 64))k" /dev/mapper/t-filler || true
}

# Of a case that has failed: or it could not even be unmounted.
writers_fail() {
	[[ $(pool_mode) != out_of_data_space ]] ||
		pool_table "$(dmsetup table pool | cut -d' ' -f2)" error_if_no_space
}

reads_since() { (($(stat_of a reads) > $1 + 20)); }

random_file one 1M
random_file two 512K
random_file odd 333333

for fs in ext4 xfs; do
	run_case "$fs: metadata can't be written" metadata_writes_fail $fs check
	run_case "$fs: metadata is gone" metadata_gone $fs repair
	run_case "$fs: out of data space, writers wait" no_data_space $fs 0
	[ $fs = ext4 ] || continue	# what needs no second file system
	run_case "$fs: mappings are rolled back" rolled_back $fs repair
	run_case "$fs: out of data space, writers wait in vain" no_data_space $fs 2
	run_case "read-only: shared blocks stay as they are" shared_blocks_stay read_only
	run_case "out of data space: shared blocks stay as they are" shared_blocks_stay full
	run_case "$fs: out of data space, writers fail" no_data_space $fs 60 error_if_no_space
done
finish
