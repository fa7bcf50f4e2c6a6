#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# What the benchmark's parts share, sourced by bench.sh in the guest: a pool on a RAM disk that can
# be made as slow as a disk; containers of one image, through drr (d1, d2...) and on dm-thin alone
# (p1, p2...); two more whose pool is on a buffered loop device (l1, l2); and measuring. Figures go to
# /out/facts.tsv, as lines of tab-separated words:
#
#   fact	NAME VALUE
#   sample	WHAT VARIANT TURN VALUE		samples of the same turn are compared

DRR=drr
FACTS=/out/facts.tsv
FILE_BYTES=$((200 << 20))
# Of files that only one container reads.
ONLY_BYTES=$((25 << 20))

# shellcheck source=tools/testing/pool.sh
. /drr/pool.sh
# shellcheck source=tools/testing/slow-disk.sh
. /drr/slow-disk.sh
# shellcheck source=tools/testing/bench/measure.sh
. /drr/bench/measure.sh

# RAM disks: of the pool's data and its metadata, of the file system that needs neither, and of the
# file system below the loop device and its pool's metadata. One more is the launches'.
DATA_DISK=ram0
META_DISK=ram1
PLAIN_DISK=ram2
LOOP_DISK=ram3
LOOP_META_DISK=ram4
RAM_DISK_MIB=2000

flunk() {
	echo "dm-drr: bench: $* : see build/out/bench" >&2
	exit 1
}

trap '((BASH_SUBSHELL)) || flunk "failed in line $LINENO, $BASH_COMMAND"' ERR

# --- figures -------------------------------------------------------------------------

# note WORD...: one line for the report.
note() { (IFS=$'\t'; printf '%s\n' "$*") >>"$FACTS"; }

# sample WHAT VARIANT VALUE: in this round, or this turn of it.
sample() {
	[ -n "$3" ] || flunk "no value for $1 of $2"
	note sample "$1" "$2" "${TURN:-$ROUND}" "$3"
	printf '  %-22s %-10s %s\n' "$1" "$2" "$3"
}

now_us() { echo "${EPOCHREALTIME/./}"; }

# seconds_of COMMAND...
seconds_of() {
	local start
	start=$(now_us)
	"$@" >/dev/null
	awk -v us=$(($(now_us) - start)) 'BEGIN { printf "%.6f\n", us / 1e6 }'
}

# Nothing ever comes from it: to wait without a process, which would be something to do itself.
exec {NOTHING}<> <(:)

# quiet: waits until the guest has nothing to do, for a while at most.
quiet() {
	local before now try
	sync
	for ((try = 0; try < 50; try++)); do
		before=$(cpu_ticks)
		read -r -t 0.1 -u "$NOTHING" || :
		now=$(cpu_ticks)
		((now - before > 1)) || break
	done
}

# data_bytes read|written: by the pool, from and to its data disk.
data_bytes() {
	local fields device
	device=$(dmsetup info -c --noheadings -o blkdevname data)
	read -r -a fields <"/sys/block/$device/stat"
	if [ "$1" = read ]; then
		echo $((fields[2] * 512))
	else
		echo $((fields[6] * 512))
	fi
}

# --- measuring -----------------------------------------------------------------------

# throughput OPTION...: what fio reads and writes, all its jobs together, in MiB/s.
throughput() {
	fio --output-format=json --group_reporting --gtod_reduce=1 --thread "$@" >/tmp/fio.json ||
		flunk "fio $*: $(head -c 300 /tmp/fio.json)"
	jq -r '.jobs[0] | (.read.bw_bytes + .write.bw_bytes) / 1048576' /tmp/fio.json
}

# jobs_of FILE...: fio's options, a job for each of them.
jobs_of() {
	local file
	for file; do
		printf -- '--name=%s\n--filename=%s\n' "job" "$file"
	done
}

# sequential FILE...: reads them, cold, each as a whole, all at the same time.
sequential() {
	local jobs
	mapfile -t jobs < <(jobs_of "$@")
	throughput --rw=read --bs=1M "${jobs[@]}"
}

# reading_time FILE...: in seconds, for the same; fio's own beginning and end are not in it.
reading_time() {
	sequential "$@" |
		awk -v mib=$(($# * FILE_BYTES / 1048576)) '{ printf "%.6f\n", mib / $1 }'
}

# cached FILE: reads it again.
cached() { throughput --rw=read --bs=1M --invalidate=0 --name=job --filename="$1"; }

# random_reads MIB buffered|direct FILE...: that much of each, in random pages, cold.
random_reads() {
	local mib=$1 direct=0 jobs
	[ "$2" = buffered ] || direct=1
	shift 2
	mapfile -t jobs < <(jobs_of "$@")
	throughput --rw=randread --bs=4k --io_size="${mib}M" --direct=$direct \
		--randseed="$ROUND" "${jobs[@]}"
}

# files PREFIX FIRST LAST: of these containers
files() {
	local i
	for ((i = $2; i <= $3; i++)); do
		echo "/mnt/$1$i/big"
	done
}

# readers VARIANT COUNT: files that so many read, none of which is d1's.
readers() {
	case $1 in
	thin) files p 1 "$2" ;;
	drr) files d 2 $(($2 + 1)) ;;
	loop) files l 2 2 ;;
	ramdisk) echo /mnt/plain/big ;;
	esac
}

# prefix VARIANT: of its containers' names.
prefix() { if [ "$1" = drr ]; then echo d; else echo p; fi; }

# in_order NUMBER WORD...: in this order, or in the other one if the number is even.
in_order() {
	local i
	if (($1 % 2)); then
		printf '%s\n' "${@:2}"
	else
		for ((i = $#; i > 1; i--)); do
			echo "${!i}"
		done
	fi
}

# in_turn VARIANT...: in this order, and in the other one in every other round.
in_turn() { in_order "$ROUND" "$@"; }

# all_cold: nobody has the file in memory.
all_cold() {
	# shellcheck disable=SC2046 # paths without spaces
	evict $(files d 1 "$CONTAINERS") $(files p 1 "$CONTAINERS") $(files l 1 2)
}

# warm: nobody but d1 has it, and the loop device's page cache.
warm() {
	all_cold
	cat /mnt/d1/big /mnt/l1/big >/dev/null
	evict /mnt/l1/big
}

# --- the stage -----------------------------------------------------------------------

# disk PROFILE: what the pool's data is on from now on: ram, unthrottled; ssd or hdd.
disk() {
	data_table "$(disk_table "$1" /dev/$DATA_DISK)"
	[ ! -e /dev/mapper/loopdisk ] || table_swap loopdisk "$(disk_table "$1" /dev/$LOOP_DISK)"
}

# set_up_pool: an empty one.
set_up_pool() {
	touch_memory
	modprobe brd rd_nr=6 rd_size=$((RAM_DISK_MIB << 10))
	modprobe dm-thin-pool
	modprobe dm-drr
	modprobe drr-disk
	rm -rf "$THINS"
	mkdir -p "$THINS"
	echo 0 >"$THINS/next"
	dmsetup create data --table "0 $(sectors /dev/$DATA_DISK) linear /dev/$DATA_DISK 0"
	pool_create /dev/$META_DISK
}

# set_up CONTAINERS: a pool, an image, and that number of containers of each kind.
set_up() {
	local i
	CONTAINERS=$1
	set_up_pool
	fs_make ext4 /dev/$PLAIN_DISK
	fs_mount ext4 plain /dev/$PLAIN_DISK
	head -c $FILE_BYTES /dev/urandom >/mnt/plain/big

	thin_new base 420
	fs_make ext4 /dev/mapper/t-base
	fs_mount ext4 base /dev/mapper/t-base
	cp /mnt/plain/big /mnt/base/big
	for i in 1 2 3 4; do
		head -c $ONLY_BYTES /dev/urandom >"/mnt/base/only$i"
	done
	umount /mnt/base
	for ((i = 1; i <= CONTAINERS; i++)); do
		container "p$i" thin
		container "d$i" drr
	done
	loop_set_up
	sync
}

# loop_set_up: the same image, in a pool on a loop device that goes through the page cache.
loop_set_up() {
	local i size=$((640 * 2048)) loop
	dmsetup create loopdisk --table "$(disk_table ram /dev/$LOOP_DISK)"
	fs_make ext4 /dev/mapper/loopdisk
	fs_mount ext4 loopdisk /dev/mapper/loopdisk
	truncate -s 700M /mnt/loopdisk/pool
	modprobe -q loop || true	# built in, in some kernels
	loop=$(losetup --find --show /mnt/loopdisk/pool)
	dmsetup create looppool --table "0 $(sectors "$loop") thin-pool \
/dev/$LOOP_META_DISK $loop $BLOCK_SECTORS 0 1 skip_block_zeroing"
	dmsetup message looppool 0 "create_thin 0"
	dmsetup create loopbase --table "0 $size thin /dev/mapper/looppool 0"
	fs_make ext4 /dev/mapper/loopbase
	fs_mount ext4 loopbase /dev/mapper/loopbase
	cp /mnt/plain/big /mnt/loopbase/big
	umount /mnt/loopbase
	for i in 1 2; do
		dmsetup message looppool 0 "create_snap $i 0"
		dmsetup create "loop$i" --table "0 $size thin /dev/mapper/looppool $i"
		fs_mount ext4 "l$i" "/dev/mapper/loop$i"
	done
}

loop_take_down() {
	local i
	for i in 1 2; do
		umount "/mnt/l$i"
		dm_remove "loop$i"
	done
	dm_remove loopbase
	dm_remove looppool
	losetup -D
	umount /mnt/loopdisk
	dm_remove loopdisk
}

# container NAME VARIANT: a snapshot of the image, mounted.
container() {
	thin_snap "$1" base
	container_mount "$1" "$2"
}

# container_mount NAME thin|linear|passthrough|drr [FILE]: mounts its thin device, directly or through such a
# target. The extents of its big file, or of FILE, are in memory.
container_mount() {
	case $2 in
	thin) fs_mount ext4 "$1" "/dev/mapper/t-$1" ;;
	linear | passthrough)
		dmsetup create "$1" --table "0 $(sectors "/dev/mapper/t-$1") $2 /dev/mapper/t-$1 0"
		fs_mount ext4 "$1"
		;;
	drr)
		drr_new "$1"
		fs_mount ext4 "$1"
		;;
	esac
	xfs_io -r -c fiemap "/mnt/$1/${3:-big}" >/dev/null
}

container_unmount() {
	umount "/mnt/$1"
	[ ! -e "/dev/mapper/$1" ] || dm_remove "$1"
}

# container_end NAME: and its data.
container_end() {
	container_unmount "$1"
	thin_delete "$1"
}

# take_down: all but the plain file system.
take_down() {
	local i
	loop_take_down
	for ((i = 1; i <= CONTAINERS; i++)); do
		container_end "p$i"
		container_end "d$i"
	done
	thin_delete base
	take_down_pool
}

take_down_pool() {
	dm_remove pool
	dm_remove data
}
