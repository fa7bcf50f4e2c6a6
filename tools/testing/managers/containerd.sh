#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# Debian's containerd with its devmapper snapshotter, and `drrctl watch` beside it: ten containers of
# an image read the same, with DRR and without. Run by scripts/managers.sh, which gives the size of what
# they read in MiB.

# shellcheck source=tools/testing/lib.sh
. "${0%/*}/../lib.sh"
# shellcheck source=tools/testing/root.sh
. "${0%/*}/../root.sh"

IMAGE=drr.test/debian:payload
CONTAINERS=10
MIB=$1
CTL=${0%/*}/../bin/drrctl
# What each reads for itself: its file system's own data, which is in nobody's file.
OWN_MIB=6

ctr() { in_root ctr -n drr "$@"; }

udev_up() {
	mkdir -p /run/udev
	mkdir -p "$ROOT/run/udev"
	in_root /usr/lib/systemd/systemd-udevd --daemon
	in_root udevadm settle
	mount --bind "$ROOT/run/udev" /run/udev
}

containerd_up() {
	mkdir -p "$ROOT/etc/containerd" "$ROOT/var/lib/containerd"
	cat >"$ROOT/etc/containerd/config.toml" <<-END
	version = 2
	disabled_plugins = ["io.containerd.grpc.v1.cri"]
	[plugins."io.containerd.snapshotter.v1.devmapper"]
	  root_path = "/var/lib/containerd/devmapper"
	  pool_name = "pool"
	  base_image_size = "512MB"
	  discard_blocks = true
	END
	in_root containerd >"$WORK/containerd.log" 2>&1 &
	CONTAINERD=$!
	wait_for 60 ctr version
	ctr plugins ls >"$WORK/plugins"
	grep -E 'devmapper .*ok *$' "$WORK/plugins" ||
		flunk "$(cat "$WORK/plugins"; grep devmapper "$WORK/containerd.log")"
}

# No container runs, and nothing is left open.
containerd_down() {
	kill "$CONTAINERD"
	wait_for 60 ended "$CONTAINERD"
}

watch_up() {
	modprobe dm-drr
	printf 'pools = ["pool"]\n' >"$WORK/drrctl.toml"
	"$CTL" watch --config "$WORK/drrctl.toml" >"$WORK/watch.log" 2>&1 &
	WATCH=$!
	wait_for 60 watching
}

watching() { grep -q . "$WORK/watch.log" || [ -e /run/drrctl ]; }

watch_down() {
	kill "$WATCH"
	wait_for 20 ended "$WATCH"
}

# ended PROCESS: of a case's parent, which doesn't wait for it.
ended() { ! grep -q '^State:	[^Z]' "/proc/$1/status" 2>/dev/null; }

# in_use: device-mapper's devices but the pool's own, and what the pool holds.
in_use() {
	local words
	dmsetup ls | cut -f 1 | sed -E '/^(pool|data)$/d' | sort
	read -r -a words < <(dmsetup status pool)
	echo "data ${words[5]%/*}"
}

import() {
	ctr image import --snapshotter devmapper /srv/image.tar
	ctr image ls | grep -F "$IMAGE"
	in_use >"$WORK/imported"
	cat "$WORK/imported"
}

payload_sum() {
	tar -xOf "$ROOT/srv/image.tar" payload.tar | tar -xO srv/payload | sha256sum
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
		[ "$(cut -d ' ' -f 1 <"$WORK/$1-$i")" = "${sum%% *}" ] || flunk "$i has $(<"$WORK/$1-$i")"
	done
	dmsetup status | grep ' drr ' >"$WORK/status" || true
	for ((i = 0; i < CONTAINERS; i++)); do
		ctr container delete "$1-$i"
	done
}

# What the ten devices' figures come to.
figures() {
	tr ' ' '\n' <"$WORK/status" | awk -F = '
		/^(reads|read_sectors|hits|hit_sectors|miss_.*|followed_sectors|whole_writes)=/ {
			if (!($1 in sum)) name[n++] = $1
			sum[$1] += $2
		}
		END { for (i = 0; i < n; i++) printf "%s=%d ", name[i], sum[name[i]] }'
}

# What is left is what was there after the import; a removal may take containerd a moment.
nothing_left() {
	(wait_for 60 as_imported) || flunk "left (>), or gone (<): $(diff "$WORK/imported" <(in_use))"
}

as_imported() { diff "$WORK/imported" <(in_use) >/dev/null; }

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
	[ "$(sha256sum <"/proc/$pid/root/srv/payload")" = "$(payload_sum)" ] || flunk "a wrong sum"
	"$CTL" list
}

some_attached() { dmsetup table | grep -q ' drr '; }

# gone CONTAINER
gone() {
	ctr task kill -s KILL "$1" || true
	ctr task delete -f "$1" || true
	ctr container delete "$1" || true
}

is_drr() { [[ $(dmsetup table "$1") = *" drr "* ]]; }

# What a container has written is in a commit of it, and in a container of that; the figures of usage are
# those that the pool has.
commits() {
	local key usage
	ctr run --snapshotter devmapper "$IMAGE" writer \
		sh -c 'head -c 4000000 /dev/zero | tr "\0" x >/srv/mine; sync'
	usage=$(ctr snapshot --snapshotter devmapper usage writer | awk 'END { print $2 }')
	say "usage of what has written 4 MB: $usage" >&3
	ctr container delete --keep-snapshot writer
	ctr snapshot --snapshotter devmapper commit written writer
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
	"$CTL" tree || true
}

pool_is_empty() {
	! dmsetup ls | cut -f 1 | grep -q -- '-snap-' && [[ "$(in_use)" == "data 0" ]]
}

takes_down() {
	containerd_down
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
