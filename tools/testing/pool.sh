#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# Devices of the guest suites, sourced by lib.sh:
#
#   container NAME:   /mnt/NAME           ext4 or xfs
#                     /dev/mapper/NAME    drr (dm-linear when DRR=none)
#                     /dev/mapper/t-NAME  thin
#                     /dev/mapper/pool    thin-pool
#                     /dev/mapper/data    dm-linear; other targets take its place in some cases
#                     $DATA_DISK          a RAM-backed null_blk disk: reads are counted here
#
# The metadata is on a disk of its own, so that it does not disturb the counting.

DATA_DISK=nullb0
META_DISK=nullb1
BLOCK_SECTORS=128
# What the pool's thin devices are, in files, since cases run in subshells: THINS/NAME
# holds id and sectors, THINS/next the next free id.
THINS=/tmp/drr/thins
GROUPS_DIR=/sys/fs/cgroup

# ram_disk NAME MIB [MS]: a null_blk disk whose memory is taken as it is written, with sectors of
# $RAM_DISK_SECTOR_SIZE bytes, 512 if that isn't set, and whose requests have no more than $RAM_DISK_SECTORS, if set.
# With MS, the disk transfers the data of a request at once, and completes the request MS milliseconds
# later.
ram_disk() {
	local dir=/sys/kernel/config/nullb/$1
	mkdir "$dir"
	echo "$2" >"$dir/size"
	echo 1 >"$dir/memory_backed"
	echo 1 >"$dir/discard"
	echo "${RAM_DISK_SECTOR_SIZE:-512}" >"$dir/blocksize"
	[ -z "${RAM_DISK_SECTORS:-}" ] || echo "$RAM_DISK_SECTORS" >"$dir/max_sectors"
	if [ $# -gt 2 ]; then
		echo 2 >"$dir/irqmode"
		echo $(($3 * 1000000)) >"$dir/completion_nsec"
	fi
	echo 1 >"$dir/power"
}

# meta_table TABLE: puts a table under the pool's metadata. The first time, with no thin device
# active, the pool moves from the disk itself to the device `meta`.
meta_table() {
	if [ ! -e /dev/mapper/meta ]; then
		dm_remove pool
		dmsetup create meta --table "$1"
		pool_create /dev/mapper/meta
	else
		dmsetup suspend --nolockfs --noflush meta
		dmsetup load meta <<<"$1"
		dmsetup resume meta
	fi
}

# pool_create METADATA_DEVICE
pool_create() {
	dmsetup create pool --table "0 $(sectors /dev/$DATA_DISK) thin-pool \
$1 /dev/mapper/data $BLOCK_SECTORS 0 1 skip_block_zeroing"
}

# sectors DEVICE
sectors() { blockdev --getsz "$1"; }

# pool_up MIB: if $FILL_METADATA is set, the metadata's disk has all of its memory at once, so that
# the pool's worker, which everybody waits for, needs none to write there.
pool_up() {
	rm -rf "$THINS"
	mkdir -p "$THINS"
	echo 0 >"$THINS/next"
	modprobe -q null_blk nr_devices=0 || true
	modprobe dm-thin-pool
	ram_disk "$DATA_DISK" "$1"
	ram_disk "$META_DISK" 16
	[ -z "${FILL_METADATA:-}" ] || head -c 16M /dev/zero >/dev/$META_DISK
	dmsetup create data --table "0 $(sectors /dev/$DATA_DISK) linear /dev/$DATA_DISK 0"
	pool_create /dev/$META_DISK
}

# table_swap NAME TABLE: gives a device another table, which may be long.
table_swap() {
	dmsetup suspend --nolockfs "$1"
	dmsetup load "$1" <<<"$2"
	dmsetup resume "$1"
}

# data_table TABLE: puts another table under the pool's data device.
data_table() { table_swap data "$1"; }

# data_healthy: the ordinary table again.
data_healthy() {
	data_table "0 $(sectors /dev/$DATA_DISK) linear /dev/$DATA_DISK 0"
}

# thin_remember NAME SECTORS: gives NAME the next id.
thin_remember() {
	local id
	id=$(<"$THINS/next")
	echo $((id + 1)) >"$THINS/next"
	echo "$id $2" >"$THINS/$1"
}

# thin_id NAME, thin_sectors NAME
thin_id() { local it; read -r -a it <"$THINS/$1"; echo "${it[0]}"; }
thin_sectors() { local it; read -r -a it <"$THINS/$1"; echo "${it[1]}"; }

# thin_new NAME MIB: a new, empty thin device.
thin_new() {
	thin_remember "$1" $(($2 * 2048))
	dmsetup message pool 0 "create_thin $(thin_id "$1")"
	thin_open "$1"
}

# thin_open NAME: activates a thin device that the pool has.
thin_open() {
	dmsetup create "t-$1" \
		--table "0 $(thin_sectors "$1") thin /dev/mapper/pool $(thin_id "$1")"
}

# top_of NAME: the topmost active device of NAME, if any.
top_of() {
	if [ -e "/dev/mapper/$1" ]; then
		echo "$1"
	elif [ -e "/dev/mapper/t-$1" ]; then
		echo "t-$1"
	fi
}

# thin_snap NAME ORIGIN: a snapshot, also of a running container.
thin_snap() {
	local top
	top=$(top_of "$2")
	thin_remember "$1" "$(thin_sectors "$2")"
	[ -z "$top" ] || dmsetup suspend "$top"
	dmsetup message pool 0 "create_snap $(thin_id "$1") $(thin_id "$2")"
	[ -z "$top" ] || dmsetup resume "$top"
	thin_open "$1"
}

# thin_delete NAME: deactivates a thin device and deletes it from the pool.
thin_delete() {
	[ ! -e "/dev/mapper/t-$1" ] || dm_remove "t-$1"
	dmsetup message pool 0 "delete $(thin_id "$1")"
}

# drr_table NAME [FEATURE...]: the table line of NAME's drr device.
drr_table() {
	local name=$1
	shift
	if [ "$DRR" = none ]; then
		echo "0 $(thin_sectors "$name") $LINEAR /dev/mapper/t-$name 0"
	elif [ $# -gt 0 ]; then
		echo "0 $(thin_sectors "$name") drr /dev/mapper/t-$name $# $*"
	else
		echo "0 $(thin_sectors "$name") drr /dev/mapper/t-$name"
	fi
}

# drr_new NAME [FEATURE...]: puts drr on top of t-NAME.
drr_new() {
	dmsetup create "$1" --table "$(drr_table "$@")"
}

# dm_remove NAME: the last closer of a device may be slow to let go of it.
dm_remove() {
	dmsetup remove --retry "$1"
}

# fs_make KIND[-VARIANT] DEVICE: small journals and inode tables, for speed. mkfs.ext4 would
# pick 1 KiB blocks for a small device, and mkfs.xfs refuses one unless told it is a test.
fs_make() {
	local args=() block=4096
	case $1 in
	*-1k) block=1024 ;;
	*-crypt) args=(-O encrypt) ;;
	esac
	case $1 in
	ext4*) mkfs.ext4 -q -F -b $block -N 1024 -m 0 -J size=4 "${args[@]}" \
		-E lazy_itable_init=0,lazy_journal_init=1,nodiscard "$2" ;;
	xfs*) TEST_DIR=1 TEST_DEV=1 QA_CHECK_FS=1 mkfs.xfs -q -f -K -b size=$block \
		-l size=13m "$2" ;;
	btrfs) mkfs.btrfs -q -f -K "$2" ;;
	f2fs) mkfs.f2fs -q -f -t 0 "$2" ;;
	*) flunk "fs_make: unknown file system $1" ;;
	esac
}

# fs_mount KIND NAME [DEVICE]: mounts NAME's drr device, or DEVICE, on /mnt/NAME. Both are
# kept from work in the background that would disturb the counting: reading of bitmaps, and
# the log's timers, whose writes make dm-thin copy (read) a block when sharing is broken. So are they from
# updates of access times, unless $ATIME says otherwise.
fs_mount() {
	local options=${ATIME:-noatime}
	if [[ $1 == ext4* ]]; then
		options+=,no_prefetch_block_bitmaps,commit=600
	elif [[ $1 == xfs* ]]; then
		options+=,nouuid
		modprobe -q xfs || true	# built in, in some kernels
		echo 720000 >/proc/sys/fs/xfs/xfssyncd_centisecs
	fi
	mkdir -p "/mnt/$2"
	mount -t "${1%-*}" -o "$options" "${3:-/dev/mapper/$2}" "/mnt/$2"
}

# container_up KIND NAME ORIGIN [FEATURE...]: snapshot, drr device and mount.
container_up() {
	local kind=$1 name=$2 origin=$3
	shift 3
	thin_snap "$name" "$origin"
	drr_new "$name" "$@"
	fs_mount "$kind" "$name"
}

# container_down NAME: unmounts and removes it; its thin device stays in the pool.
container_down() {
	! mountpoint -q "/mnt/$1" || umount "/mnt/$1"
	[ ! -e "/dev/mapper/$1" ] || dm_remove "$1"
	[ ! -e "/dev/mapper/t-$1" ] || dm_remove "t-$1"
}

# group_new NAME BYTES: a control group with that much memory, for pages and all else.
group_new() {
	mountpoint -q $GROUPS_DIR || mount -t cgroup2 cgroup2 $GROUPS_DIR
	echo +memory >$GROUPS_DIR/cgroup.subtree_control
	mkdir -p "$GROUPS_DIR/$1"
	echo "$2" >"$GROUPS_DIR/$1/memory.max"
}

# group_end NAME: once nobody is in it.
group_end() {
	rmdir "$GROUPS_DIR/$1"
}

# in_group NAME COMMAND...: in a subshell.
in_group() {
	echo "$BASHPID" >"$GROUPS_DIR/$1/cgroup.procs"
	"${@:2}"
}

# mib_read COMMAND...: MiB of the pool's data that are read from the disk meanwhile.
mib_read() {
	local before
	before=$(disk_sectors_read)
	"$@" >&2
	echo $((($(disk_sectors_read) - before) / 2048))
}

# random_file NAME SIZE: a reference file, kept in memory, outside of any pool.
random_file() {
	mkdir -p "$(dirname "$REF/$1")"
	head -c "$2" /dev/urandom >"$REF/$1"
}

# image_new KIND NAME MIB [FILE...]: a thin device with a file system that holds a copy of
# these reference files, or of all. Made without DRR, left unmounted.
image_new() {
	local kind=$1 name=$2
	thin_new "$name" "$3"
	fs_make "$kind" "/dev/mapper/t-$name"
	fs_mount "$kind" "$name" "/dev/mapper/t-$name"
	shift 3
	[ $# -gt 0 ] || set -- .
	(cd "$REF" && cp -a "$@" "/mnt/$name/")
	umount "/mnt/$name"
}

# all_down: everything that the functions above made.
all_down() {
	local name
	for name in /mnt/*/; do
		! mountpoint -q "$name" || umount "$name"
	done
	[ "$DRR" = none ] || records_gone
	while read -r name; do
		case $name in
		t-* | pool | data | meta | No*) ;;
		*) dm_remove "$name" ;;
		esac
	done < <(dmsetup ls | cut -f1)
	while read -r name; do
		dm_remove "$name"
	done < <(dmsetup ls | cut -f1 | grep '^t-' || true)
	! [ -e /dev/mapper/pool ] || dm_remove pool
	! [ -e /dev/mapper/data ] || dm_remove data
	! [ -e /dev/mapper/meta ] || dm_remove meta
	for name in "$DATA_DISK" "$META_DISK"; do
		if [ -d "/sys/kernel/config/nullb/$name" ]; then
			echo 0 >"/sys/kernel/config/nullb/$name/power"
			rmdir "/sys/kernel/config/nullb/$name"
		fi
	done
}
