# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=bash
#
# What the suites of pages that change without an event have in common. Sourced after lib.sh.

# shellcheck disable=SC2034 # the suites use it
PAGES=${0%/*}/../bin/drr-pages

late_disk_gone() {
	[ -d /sys/kernel/config/nullb/nullb2 ] || return 0
	echo 0 >/sys/kernel/config/nullb/nullb2/power
	rmdir /sys/kernel/config/nullb/nullb2
}

# completions_late MS: from now on the pool's data are those of a copy of its disk that is MS
# milliseconds late to say that they are there. data_healthy() ends it, and what was written
# meanwhile is lost then.
completions_late() {
	local mib=$(($(sectors "/dev/$DATA_DISK") / 2048))
	ram_disk nullb2 $mib "$1"
	dd if="/dev/$DATA_DISK" of=/dev/nullb2 bs=${mib}M iflag=fullblock oflag=direct status=none
	data_table "0 $((mib * 2048)) linear /dev/nullb2 0"
}

# up MIB: a pool that goes when the case ends.
up() {
	on_exit late_disk_gone
	on_exit all_down
	pool_up "$1"
}

# siblings FS [FEATURE...]: a and b on the image of the running pool, mounted.
siblings() {
	local kind=$1
	shift
	on_exit "gone a b"
	container_up "$kind" a base "$@"
	container_up "$kind" b base "$@"
}

# raw_siblings: the same, not mounted; a's page cache is kept.
raw_siblings() {
	on_exit "gone a b"
	raw a
	raw b
	keep_open
}

# gone NAME...: devices that are deleted, too.
gone() {
	local name
	for name; do
		container_down "$name"
		dmsetup message pool 0 "delete $(thin_id "$name")"
	done
}

# raw NAME [ORIGIN]: drr on a snapshot, not mounted.
raw() {
	thin_snap "$1" "${2:-base}"
	drr_new "$1"
}

# keep_open: a's page cache stays when nobody else has the device open.
keep_open() {
	on_exit "exec 7<&-"
	exec 7</dev/mapper/a
}

# keep WORD COMMAND...: starts a command that prints WORD and ends with the case.
keep() {
	local word=$1
	shift
	"$@" >"$WORK/kept" &
	KEPT=$!
	on_exit "kill $KEPT; wait $KEPT"
	wait_for 20 grep -q "$word" "$WORK/kept"
}

# read_all DEVICE: into its page cache.
read_all() {
	dd if="/dev/mapper/$1" of=/dev/null bs=1M status=none
}

# agrees NAME [OFFSET LENGTH]: drr gives of NAME what its thin device has.
agrees() {
	local part=(skip="${2:-0}")
	[ $# -lt 3 ] || part+=(count="$3")
	dd if="/dev/mapper/t-$1" of="$WORK/thin" iflag=direct,skip_bytes,count_bytes bs=64k \
		"${part[@]}" status=none
	dd if="/dev/mapper/$1" of="$WORK/drr" iflag=direct,skip_bytes,count_bytes bs=4k \
		"${part[@]}" status=none
	same "$WORK/drr" "$WORK/thin"
}

# right NAME FILE: a mounted file is the reference.
right() {
	dd if="/mnt/$1/$2" of="$WORK/file" iflag=direct bs=4k status=none
	same "$WORK/file" "$REF/$2"
}

# place_of FILE: byte address on its device of the file's first extent.
place_of() {
	xfs_io -r -c "fiemap" "$1" |
		awk '$1 == "0:" { split($3, at, /\.\./); print at[1] * 512; exit }'
}

# numbered_file NAME PAGES: a reference file in which each KiB begins with its place in the file.
numbered_file() {
	awk -v name="${1:0:1}" -v pages="$2" 'BEGIN {
		for (i = 0; i < pages * 4; i++)
			printf "%s-PAGE-%06d.%d-%1008s", name, int(i / 4), i % 4, ""
	}' >"$REF/$1"
}

# on_data NAME PAGE [KIB]: byte address on the pool's data device of a page of a numbered file, or of a
# KiB of it. Its blocks are still the image's alone.
on_data() {
	LC_ALL=C grep -abo -m 1 "$(printf '%s-PAGE-%06d\.%d-' "${1:0:1}" "$2" "${3:-0}")" \
		/dev/mapper/data | head -n 1 | cut -d: -f1
}

# part_fails OFFSET LENGTH: reads and writes of that part of the data device, in bytes.
part_fails() {
	local at=$(($1 / 512)) count=$(($2 / 512)) total
	total=$(sectors "/dev/$DATA_DISK")
	data_table "0 $at linear /dev/$DATA_DISK 0
$at $count error
$((at + count)) $((total - at - count)) linear /dev/$DATA_DISK $((at + count))"
}

data_slow() { data_table "0 $(sectors "/dev/$DATA_DISK") delay /dev/$DATA_DISK 0 $1"; }

data_fails() { data_table "0 $(sectors "/dev/$DATA_DISK") flakey /dev/$DATA_DISK 0 0 60 1 $1"; }

# few_bytes FILE: in every fourth page.
few_bytes() {
	local at args=()
	for ((at = 100; at < 262144; at += 16384)); do
		args+=(-c "pwrite -q -S 0x66 $at 10")
	done
	xfs_io "${args[@]}" "$1"
}
