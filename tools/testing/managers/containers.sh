# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=bash disable=SC2034 # for the suites
#
# What the suites of containerd and of Docker share: Debian's containerd with its devmapper
# snapshotter in the Debian root, `drrctl watch` beside it, and what the ten containers read and leave.
# To be sourced, with the size of what each reads in MiB.

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
	daemon_up containerd
	wait_for 60 ctr version
	ctr plugins ls >"$WORK/plugins"
	grep -E 'devmapper .*ok *$' "$WORK/plugins" ||
		flunk "$(cat "$WORK/plugins"; grep devmapper "$WORK/containerd.log")"
}

# daemon_up PROGRAM [ARGUMENT...]: cases run in subshells, so what it is is in a file.
daemon_up() {
	"${ENTER[@]}" "$@" >>"$WORK/$1.log" 2>&1 &
	echo $! >"$WORK/$1.pid"
}

# daemon_down PROGRAM
daemon_down() {
	kill "$(<"$WORK/$1.pid")"
	wait_for 60 ended "$(<"$WORK/$1.pid")"
}

watch_up() {
	modprobe dm-drr
	printf 'pools = ["pool"]\n' >"$WORK/drrctl.toml"
	"$CTL" watch --config "$WORK/drrctl.toml" >"$WORK/watch.log" 2>&1 &
	echo $! >"$WORK/watch.pid"
	wait_for 60 watching
}

watching() { grep -q . "$WORK/watch.log" || [ -e /run/drrctl ]; }

watch_down() { daemon_down watch; }

# ended PROCESS: of a case's parent, which doesn't wait for it.
ended() { ! grep -q '^State:	[^Z]' "/proc/$1/status" 2>/dev/null; }

# in_use: device-mapper's devices but the pool's own, and what the pool holds.
in_use() {
	local words
	dmsetup ls | cut -f 1 | sed -E '/^(pool|data)$/d' | sort
	read -r -a words < <(dmsetup status pool)
	echo "data ${words[5]%/*}"
}

# The sum of what all read, as sha256sum prints it first.
payload_sum() {
	[ -e "$WORK/sum" ] ||
		tar -xOf "$ROOT/srv/image.tar" payload.tar | tar -xO srv/payload | sha256sum >"$WORK/sum"
	cut -d ' ' -f 1 "$WORK/sum"
}

# has_payload PROCESS: it is in a container that has the right file.
has_payload() {
	[ "$(sha256sum <"/proc/$1/root/srv/payload" | cut -d ' ' -f 1)" = "$(payload_sum)" ] ||
		flunk "a wrong sum of process $1"
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

some_attached() { dmsetup table | grep -q ' drr '; }

is_drr() { [[ $(dmsetup table "$1") = *" drr "* ]]; }

pool_is_empty() {
	! dmsetup ls | cut -f 1 | grep -q -- '-snap-' && [[ "$(in_use)" == "data 0" ]]
}
