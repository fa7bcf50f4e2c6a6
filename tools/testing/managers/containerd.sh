#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# Debian's containerd with its devmapper snapshotter, and `drrctl watch` beside it: ten containers of
# an image read the same, with DRR and without. Run by scripts/managers.sh, which gives the size of what
# they read in MiB.

# shellcheck source=tools/testing/managers/containers.sh
. "${0%/*}/containers.sh"

import() {
	ctr image import --snapshotter devmapper /srv/image.tar
	ctr image ls | grep -F "$IMAGE"
	in_use >"$WORK/imported"
	cat "$WORK/imported"
}

# run_ten PREFIX: they start at once, and all have the right sum.
run_ten() {
	local i pids=() sum
	sum=$(payload_sum)
	for ((i = 0; i < CONTAINERS; i++)); do
		ctr run --snapshotter devmapper "$IMAGE" "$1-$i" sha256sum /srv/payload \
			>"$WORK/$1-$i" 2>&1 &
		pids+=($!)
	done
	for ((i = 0; i < CONTAINERS; i++)); do
		wait "${pids[i]}" || flunk "container $i: $(<"$WORK/$1-$i")"
		[ "$(cut -d ' ' -f 1 <"$WORK/$1-$i")" = "$sum" ] || flunk "$i has $(<"$WORK/$1-$i")"
	done
	dmsetup status | grep ' drr ' >"$WORK/status" || true
	for ((i = 0; i < CONTAINERS; i++)); do
		ctr container delete "$1-$i"
	done
}

without() {
	local without
	echo 3 >/proc/sys/vm/drop_caches
	without=$(mib_read run_ten without)
	echo "$without" >"$WORK/without"
	nothing_left
	expect "MiB from the disk" "$without" $((CONTAINERS * MIB))..
}

with() {
	local without with
	without=$(<"$WORK/without")
	echo 3 >/proc/sys/vm/drop_caches
	with=$(mib_read run_ten with)
	say "MiB from the disk: $with with DRR, $without without" >&3
	say "$(figures)" >&3
	nothing_left
	expect "MiB from the disk: one container's, and what each has of its own" "$with" \
		"1..$((without / CONTAINERS + CONTAINERS * OWN_MIB))"
}

# What a container runs on is drr all the while.
under_drr() {
	local pid
	ctr run -d --snapshotter devmapper "$IMAGE" long sleep 1000
	on_exit "gone long"
	wait_for 60 some_attached
	dmsetup table | grep ' drr '
	dmsetup status | grep ' drr .*thin=' || flunk "$(dmsetup table)"
	pid=$(ctr task ls | awk '$1 == "long" { print $2 }')
	has_payload "$pid"
	"$CTL" list
}

# gone CONTAINER
gone() {
	ctr task kill -s KILL "$1" || true
	ctr task delete -f "$1" || true
	ctr container delete "$1" || true
}

# What a container has written is in a commit of it, and in a container of that; the figures of usage are
# those that the pool has.
commits() {
	local key usage
	ctr run --snapshotter devmapper "$IMAGE" writer \
		sh -c 'head -c 4000000 /dev/zero | tr "\0" x >/srv/mine; sync'
	usage=$(ctr snapshot --snapshotter devmapper usage writer | awk 'END { print $2 }')
	say "usage of what has written 4 MB: $usage" >&3
	# in this order: what no container has may be collected at any time, and a commit is a root
	ctr snapshot --snapshotter devmapper commit written writer
	ctr container delete --keep-snapshot writer
	ctr snapshot --snapshotter devmapper prepare reader written >"$WORK/mounts"
	key=$(dmsetup ls | cut -f 1 | grep -- '-snap-' | tail -n 1)
	say "newest device: $key" >&3
	wait_for 20 is_drr "$key"
	mkdir -p /mnt/reader
	on_exit "umount -q /mnt/reader"
	mount "/dev/mapper/$key" /mnt/reader
	expect "bytes of the committed file" "$(stat -c %s /mnt/reader/srv/mine)" 4000000
	expect "x in it" "$(tr -cd x </mnt/reader/srv/mine | wc -c)" 4000000
	umount /mnt/reader
	ctr snapshot --snapshotter devmapper remove reader
	ctr snapshot --snapshotter devmapper remove written
	nothing_left
}

# The image goes, and with it all of its layers.
prunes() {
	ctr image rm --sync "$IMAGE"
	ctr content prune references || true
	wait_for 120 pool_is_empty
}

takes_down() {
	daemon_down containerd
	watch_down
	# of slow machines it has more to say
	! grep -iE 'level=(error|fatal).*(devmapper|dmsetup|snapshot)' "$WORK/containerd.log" ||
		flunk "containerd complains of its snapshotter"
	all_down
	modprobe -r dm-drr
}

# udev is there, and whoever uses device-mapper is to wait for it
unset DM_DISABLE_UDEV
mount -t cgroup2 cgroup2 $GROUPS_DIR
root_up
udev_up
exec 3>&1
pool_up 2048
containerd_up
run_case "an image is imported" import
run_case "ten containers without DRR" without
watch_up
run_case "ten containers with drrctl watch" with
run_case "a container runs on drr" under_drr
run_case "commit and usage" commits
run_case "an image is removed" prunes
run_case "all is taken down" takes_down
finish
