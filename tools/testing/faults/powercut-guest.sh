#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# The guest's part of scripts/powercut.sh. The pool is on disks that outlive the guest; each
# boot checks what the one before has left, and begins a new load that ends with its power.
#
# usage: powercut-guest.sh ROUND SEED LAST
#   ROUND 0 makes the pool; a ROUND of LAST only checks. Disks: the pool's data, its
#   metadata, and what the round before has said.

# shellcheck source=tools/testing/lib.sh
. "${0%/*}/../lib.sh"

ROUND=$1 SEED=$2 LAST=$3
DURABLE=${0%/*}/../bin/fault-durable
read -r DATA_DISK META_DISK CUT_LOG <<<"${DRR_DISKS//\/dev\//}"
KINDS=(ext4 xfs)
SECTORS=$((320 << 11))

# siblings_of ROUND: names, ids and kinds: two of each file system.
siblings_of() {
	local kind i id=$((10 + 10 * $1))
	NAMES=()
	for kind in "${KINDS[@]}"; do
		for i in 1 2; do
			NAMES+=("$kind-$i")
			echo "$((id++)) $SECTORS" >"$THINS/$kind-$i"
		done
	done
}

kind_of() { echo "${1%-*}"; }

# base_id NAME: of the image that it is a snapshot of.
base_id() { [[ $1 = ext4-* ]] && echo 0 || echo 1; }

pool_active() {
	mkdir -p "$THINS"
	modprobe dm-thin-pool
	dmsetup create data --table "0 $(sectors "/dev/$DATA_DISK") linear /dev/$DATA_DISK 0"
	pool_create "/dev/$META_DISK"
}

pool_inactive() {
	dm_remove pool
	dm_remove data
	thin_check -q "/dev/$META_DISK"
}

# metadata_sound: after a cut. Blocks may have leaked: dm-thin allocates a data block first and
# maps it later, and a commit may come in between. That is repaired; nothing else may be wrong.
metadata_sound() {
	thin_check "/dev/$META_DISK" >"$LOG" 2>&1 && return
	grep 'have leaked' "$LOG" || true
	thin_check --ignore-non-fatal-errors "/dev/$META_DISK" >"$LOG" 2>&1 &&
		thin_check --auto-repair "/dev/$META_DISK" >>"$LOG" 2>&1 &&
		thin_check -q "/dev/$META_DISK" && return
	cat "$LOG"
	flunk "the pool's metadata is damaged"
}

make_images() {
	local i=0 kind
	for kind in "${KINDS[@]}"; do
		echo "$i $SECTORS" >"$THINS/base-$kind"
		dmsetup message pool 0 "create_thin $((i++))"
		thin_open "base-$kind"
		fs_make "$kind" "/dev/mapper/t-base-$kind"
		fs_mount "$kind" "base-$kind" "/dev/mapper/t-base-$kind"
		"$DURABLE" image "/mnt/base-$kind"
		container_down "base-$kind"
	done
}

# Mounting replays the journals. Then everything that was durable is there, the file systems
# are clean, and so is the pool.
check_siblings() {
	local name
	for name in "${NAMES[@]}"; do
		thin_open "$name"
		drr_new "$name" paranoid
		fs_mount "$(kind_of "$name")" "$name"
	done
	"$DURABLE" verify $((SEED + ROUND - 1)) "/dev/$CUT_LOG" "${NAMES[@]/#//mnt/}" ||
		flunk "what was durable is lost"
	after_case
	[ "$DRR" = none ] || dmsetup status --target drr
	for name in "${NAMES[@]}"; do
		umount "/mnt/$name"
		case $(kind_of "$name") in
		ext4) e2fsck -fn "/dev/mapper/$name" ;;
		xfs) xfs_repair -n "/dev/mapper/$name" ;;
		esac >"$LOG" 2>&1 || { cat "$LOG"; flunk "$name is damaged"; }
	done
	[ "$DRR" = none ] || records_gone
	for name in "${NAMES[@]}"; do
		container_down "$name"
		thin_delete "$name"
	done
}

# The snapshots that the round before had no time to delete.
delete_leftovers() {
	local id
	dmsetup suspend pool
	dmsetup message pool 0 reserve_metadata_snap
	dmsetup resume pool
	for id in $(thin_ls --metadata-snap --no-headers --format DEV "/dev/$META_DISK"); do
		((id < 100000)) || dmsetup message pool 0 "delete $id"
	done
	dmsetup message pool 0 release_metadata_snap
}

# New siblings, under load until the end. One of them is snapshotted all the time.
begin_load() {
	local name load i=0
	for name in "${NAMES[@]}"; do
		dmsetup message pool 0 "create_snap $(thin_id "$name") $(base_id "$name")"
		thin_open "$name"
		drr_new "$name" paranoid
		fs_mount "$(kind_of "$name")" "$name"
	done
	"$DURABLE" run $((SEED + ROUND)) "${NAMES[@]/#//mnt/}" &
	load=$!
	echo "load begins"
	while kill -0 $load 2>/dev/null; do
		name=${NAMES[$((i % 4))]}
		dmsetup suspend "$name"
		dmsetup message pool 0 "create_snap $((100000 * (ROUND + 1) + i)) $(thin_id "$name")"
		dmsetup resume "$name"
		((i < 3)) || dmsetup message pool 0 "delete $((100000 * (ROUND + 1) + i - 3))"
		((++i))
		after_case
	done
	flunk "the load has ended"
}

if ((ROUND)); then
	metadata_sound
	pool_active
	siblings_of $((ROUND - 1))
	check_siblings
	delete_leftovers
else
	dd if=/dev/zero of="/dev/$META_DISK" bs=4k count=1 oflag=direct status=none
	pool_active
	make_images
fi
pool_inactive
echo "round $ROUND: all is there"
((ROUND < LAST)) || exit 0
pool_active
siblings_of "$ROUND"
begin_load
