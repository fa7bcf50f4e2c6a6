#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# The demo's part in the guest. Four containers of one image read a big file, one after
# the other: with DRR, and then without. Says what it does on stdout; the figures go to
# /out/facts.tsv, for tools/demo/report.py, as lines of tab-separated words:
#
#   fact	NAME VALUE
#   row	CONTAINER WITH_DRR NANOSECONDS DISK_BYTES DRR_BYTES DONORS CHECKSUM_OK SETUP_BYTES
#   status	CONTAINER STATUS_LINE
#
# The disk is RAM, throttled by the block layer for the containers' control group alone,
# so that making the image takes no longer than it must.

set -eEuo pipefail

DRR=drr
DISK_MIB=400
FILE=model.bin
FILE_BYTES=$((200 * 1024 * 1024))
# A hard disk's share of a cached read: 120 MB/s of 2.5 GB/s.
DISK_PER_MILLE=48
CONTAINERS=(C1 C2 C3 C4)
FACTS=/out/facts.tsv
GROUP=/sys/fs/cgroup/containers
UNCHECKED=()

NOISE=/drr/bin/noise

# shellcheck source=tools/testing/pool.sh
. /drr/pool.sh

flunk() {
	echo "dm-drr: demo: $* : see build/out/demo" >&2
	exit 1
}

trap '((BASH_SUBSHELL)) || flunk "failed in line $LINENO, $BASH_COMMAND"' ERR

# --- figures -------------------------------------------------------------------------

# note WORD...: one line for the report.
note() { (IFS=$'\t'; printf '%s\n' "$*") >>"$FACTS"; }

# rate BYTES NANOSECONDS: in MiB/s.
rate() { awk -v b="$1" -v ns="$2" 'BEGIN { printf "%.1f", b / 1048576 / (ns / 1e9) }'; }

# seconds NANOSECONDS
seconds() { awk -v ns="$1" 'BEGIN { printf "%.2f", ns / 1e9 }'; }

# nanoseconds_of COMMAND...: what dd says that a copy took. It is dd's own clock, so that
# starting dd does not count.
nanoseconds_of() {
	"$@" 2>&1 >/dev/null | awk '/copied,/ { sub(/.*copied, /, ""); printf "%.0f", $1 * 1e9 }'
}

# disk_bytes: read from the pool's data disk since it was made.
disk_bytes() {
	local fields
	read -r -a fields <"/sys/block/$DATA_DISK/stat"
	echo $((fields[2] * 512))
}

# drr_status NAME WORD: a value of a drr device's status line.
drr_status() { dmsetup status "$1" | grep -o " $2=[^ ]*" | cut -d= -f2; }

# donors_of NAME: who served it, as NAME:BYTES,...
donors_of() {
	local entry id name list=()
	for entry in $(drr_status "$1" from | tr , ' '); do
		id=${entry%%:*}
		for name in "${CONTAINERS[@]}"; do
			[ "$id" != "$(thin_id "$name")" ] || id=$name
		done
		[ "$entry" = - ] || list+=("$id:$((${entry#*:} * 512))")
	done
	(IFS=,; echo "${list[*]:--}")
}

# --- the stage -----------------------------------------------------------------------

# image_with_file: the thin device "base", with the file; its checksum is in $CHECKSUM.
image_with_file() {
	thin_new base $((DISK_MIB - 50))
	fs_make ext4 /dev/mapper/t-base
	fs_mount ext4 base /dev/mapper/t-base
	CHECKSUM=$("$NOISE" "$FILE_BYTES" | tee "/mnt/base/$FILE" | md5sum | cut -d' ' -f1)
	sync
}

# cached_rate_ns: nanoseconds for reading the file from the page cache, at best.
cached_rate_ns() {
	local best=0 ns
	for _ in 1 2 3 4; do
		ns=$(nanoseconds_of dd if="/mnt/base/$FILE" of=/dev/null bs=1M)
		if ((best == 0 || ns < best)); then
			best=$ns
		fi
	done
	echo "$best"
}

# throttle BYTES_PER_SECOND: what the containers, together, may read from the disk.
throttle() {
	mountpoint -q /sys/fs/cgroup || mount -t cgroup2 cgroup2 /sys/fs/cgroup
	echo +io >/sys/fs/cgroup/cgroup.subtree_control
	mkdir "$GROUP"
	echo "$(<"/sys/block/$DATA_DISK/dev") rbps=$1" >"$GROUP/io.max"
}

# in_container COMMAND...: in the containers' control group.
in_container() { (echo "$BASHPID" >"$GROUP/cgroup.procs" && exec "$@"); }

# Files only: the pool's metadata stays in memory, as on any machine that is in use.
forget_files() {
	sync
	echo 1 >/proc/sys/vm/drop_caches
}

# --- the play ------------------------------------------------------------------------

# stage_container NAME WITH_DRR: mounts its snapshot, with all that reading the file needs but
# the file's data: inode, extents, and what mounting makes ext4 write.
stage_container() {
	local device=/dev/mapper/$1
	[ "$2" = 1 ] || device=/dev/mapper/t-$1
	fs_mount ext4 "$1" "$device"
	in_container xfs_io -r -c fiemap "/mnt/$1/$FILE" >/dev/null
	sync -f "/mnt/$1"
}

# container_reads NAME WITH_DRR: reads the file.
container_reads() {
	local name=$1 with_drr=$2 file=/mnt/$1/$FILE setup start ns disk drr=0 donors=-
	setup=$(disk_bytes)
	stage_container "$name" "$with_drr"
	[ "$with_drr" = 0 ] || dmsetup message "$name" 0 reset_stats

	start=$(disk_bytes)
	ns=$(nanoseconds_of in_container dd if="$file" of=/dev/null bs=1M)
	disk=$(($(disk_bytes) - start))
	if [ "$with_drr" = 1 ]; then
		drr=$(($(drr_status "$name" hit_sectors) * 512))
		donors=$(donors_of "$name")
	fi
	printf '    %s %8s s %9s MiB/s\n' "$name" "$(seconds "$ns")" "$(rate "$FILE_BYTES" "$ns")"
	UNCHECKED+=("$name $with_drr $ns $disk $drr $donors $((start - setup))")
}

# check_in_background: the containers that have read and weren't checked yet.
check_in_background() {
	local row
	for row in "${UNCHECKED[@]}"; do
		# shellcheck disable=SC2086 # words of a row
		check $row &
	done
	UNCHECKED=()
}

# check NAME WITH_DRR NANOSECONDS DISK_BYTES DRR_BYTES DONORS SETUP_BYTES: sums up what the
# container has got, and notes the row.
check() {
	local ok=1
	[ "$(in_container md5sum "/mnt/$1/$FILE" | cut -d' ' -f1)" = "$CHECKSUM" ] || ok=0
	note row "$1" "$2" "$3" "$4" "$5" "$6" "$ok" "$7"
}

# read_ahead NAME: in sectors
read_ahead() { blockdev --getra "/dev/mapper/$1"; }

with_drr() {
	local name
	for name in "${CONTAINERS[@]}"; do
		drr_new "$name"
		[ "$(read_ahead "$name")" = "$(read_ahead "t-$name")" ] ||
			flunk "read-ahead of $name differs with DRR and without"
	done
	forget_files
	for name in "${CONTAINERS[@]}"; do
		container_reads "$name" 1
	done
	check_in_background
	wait
	for name in "${CONTAINERS[@]}"; do
		note status "$name" "$(dmsetup status "$name")"
	done
	for name in "${CONTAINERS[@]}"; do
		umount "/mnt/$name"
		dm_remove "$name"
	done
}

without_drr() {
	local name
	forget_files
	for name in "${CONTAINERS[@]}"; do
		container_reads "$name" 0
		# The next one's read leaves the CPUs idle; with DRR it wouldn't.
		check_in_background
	done
	wait
	for name in "${CONTAINERS[@]}"; do
		umount "/mnt/$name"
	done
}

# measure_machine: how fast the page cache is, and from that how fast the disk may be.
measure_machine() {
	local ns wanted count
	ns=$(cached_rate_ns)
	note fact pagecache_mib_per_s "$(rate "$FILE_BYTES" "$ns")"
	echo "  page cache $(rate "$FILE_BYTES" "$ns") MiB/s, the best of 4 reads of that file"
	wanted=$(awk -v b=$FILE_BYTES -v ns="$ns" -v share=$DISK_PER_MILLE \
		'BEGIN { printf "%.0f", b / (ns / 1e9) * share / 1000 }')
	throttle "$wanted"
	count=$((wanted * 3 / 1048576))
	ns=$(nanoseconds_of in_container dd if="/dev/$DATA_DISK" of=/dev/null bs=1M count=$count)
	note fact disk_mib_per_s "$(rate $((count * 1048576)) "$ns")"
	echo "  disk $(rate $((count * 1048576)) "$ns") MiB/s, throttled"
}

main() {
	local name
	note fact kernel "$(uname -r)"
	note fact emulated "$(grep -c 'model name.*TCG' /proc/cpuinfo || true)"
	note fact file_bytes "$FILE_BYTES"
	modprobe dm-drr
	pool_up "$DISK_MIB"
	echo "  writing the image: ext4 on a thin device, with a file of $((FILE_BYTES >> 20)) MiB"
	image_with_file
	measure_machine
	umount /mnt/base
	for name in "${CONTAINERS[@]}"; do
		thin_snap "$name" base
	done
	echo "  ${#CONTAINERS[@]} snapshots of it, each read with DRR:"
	with_drr
	echo "  and without:"
	without_drr
}

main
