#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# Debian's Docker with containerd's image store and the devmapper snapshotter: what ten containers
# read from the disk, and the sizes that Docker tells, without DRR and with `drrctl watch` beside it.
# With it Docker also builds, restarts and prunes. Run by scripts/managers.sh, which gives the size of
# what they read in MiB.

# shellcheck source=tools/testing/managers/containers.sh
. "${0%/*}/containers.sh"

docker() { in_root docker "$@"; }

# configure LIVE_RESTORE: true or false.
configure() {
	mkdir -p "$ROOT/etc/docker"
	cat >"$ROOT/etc/docker/daemon.json" <<-END
	{
	  "features": { "containerd-snapshotter": true },
	  "storage-driver": "devmapper",
	  "live-restore": $1,
	  "exec-opts": ["native.cgroupdriver=cgroupfs"],
	  "bridge": "none", "iptables": false, "ip6tables": false
	}
	END
}

dockerd_up() {
	daemon_up dockerd --containerd=/run/containerd/containerd.sock
	wait_for 120 docker_answers
}

docker_answers() { docker version >"$WORK/version" 2>&1; }

load() {
	local info
	docker load -i /srv/image.tar
	docker image ls
	info=$(docker info --format '{{.Driver}}: {{.DriverStatus}}')
	[ "$info" = "devmapper: [[driver-type io.containerd.snapshotter.v1]]" ] || flunk "the image store is $info"
	in_use >"$WORK/imported"
	cat "$WORK/imported"
}

# run_ten PREFIX: they start at once, read, and stay.
run_ten() {
	local i pids=()
	payload_sum
	for ((i = 0; i < CONTAINERS; i++)); do
		docker run -d --network none --stop-signal KILL --name "$1-$i" "$IMAGE" \
			sh -c 'sha256sum /srv/payload; exec sleep infinity' >"$WORK/$1-$i" 2>&1 &
		pids+=($!)
	done
	for ((i = 0; i < CONTAINERS; i++)); do
		wait "${pids[i]}" || flunk "container $i: $(<"$WORK/$1-$i")"
	done
	wait_for 300 all_said_it
}

# In Docker's own logs of them.
all_said_it() {
	[ "$(cat "$ROOT"/var/lib/docker/containers/*/*-json.log | grep -c "\"$(payload_sum) ")" = $CONTAINERS ]
}

# read_in_turn PREFIX: each container's file, when nobody has it in memory.
read_in_turn() {
	local pid pids
	echo 3 >/proc/sys/vm/drop_caches
	pids=$(pids_of "$1")
	expect "containers" "$(wc -w <<<"$pids")" $CONTAINERS
	for pid in $pids; do
		has_payload "$pid"
	done
}

# names PREFIX [FIRST], one a line.
names() { seq -f "$1-%g" "${2:-0}" $((CONTAINERS - 1)); }

# pids_of PREFIX
pids_of() {
	# shellcheck disable=SC2046 # words
	docker inspect --format '{{.State.Pid}}' $(names "$1")
}

# remove PREFIX [FIRST]
remove() {
	# shellcheck disable=SC2046 # words
	docker rm -f $(names "$@")
}

# reads PHASE: without or with; keeps the figures of both ways to read, and those of sizes.
reads() {
	local at_once in_turn
	echo 3 >/proc/sys/vm/drop_caches
	at_once=$(mib_read run_ten "$1")
	dmsetup status | grep ' drr ' >"$WORK/status" || true
	in_turn=$(mib_read read_in_turn "$1")
	echo "$at_once" >"$WORK/$1.at_once"
	echo "$in_turn" >"$WORK/$1.in_turn"
	docker ps -s --format '{{.Names}} {{.Size}}' | sed "s/^$1-//" | sort >"$WORK/$1.sizes"
	docker system df >"$WORK/$1.df"
	cat "$WORK/$1.sizes" "$WORK/$1.df"
	say "MiB from the disk $1 DRR: $at_once at once, $in_turn in turn" >&3
}

reads_without() {
	reads without
	expect "MiB from the disk at once" "$(<"$WORK/without.at_once")" $((CONTAINERS * MIB))..
	expect "MiB from the disk in turn" "$(<"$WORK/without.in_turn")" $((CONTAINERS * MIB))..
}

reads_with() {
	local way
	reads with
	say "$(figures)" >&3
	for way in at_once in_turn; do
		expect "MiB from the disk, $way: one container's, and what each has of its own" "$(<"$WORK/with.$way")" \
			"1..$(($(<"$WORK/without.$way") / CONTAINERS + CONTAINERS * OWN_MIB))"
	done
}

sizes_are_the_same() {
	diff "$WORK/without.sizes" "$WORK/with.sizes" || flunk "docker ps -s says otherwise"
	diff "$WORK/without.df" "$WORK/with.df" || flunk "docker system df says otherwise"
	say "each container's size: $(cut -d ' ' -f 2- "$WORK/with.sizes" | sort -u | tr '\n' ';')" >&3
}

# commits_running PHASE: containerd mounts the device a second time, read-only, which the kernel
# refuses while it is mounted for writing. What fails without DRR may fail with it.
commits_running() {
	docker exec "$1-0" sh -c 'head -c 4000000 /dev/zero | tr "\0" x >/srv/mine'
	if ! docker commit "$1-0" drr.test/committed >"$WORK/$1.commit" 2>&1; then
		[ "$1" = without ] || [ -e "$WORK/commit_fails" ] || flunk "only with DRR: $(<"$WORK/$1.commit")"
		touch "$WORK/commit_fails"
		skip "$(<"$WORK/$1.commit")"
	fi
	committed "$1"
}

# commits PHASE: of a container that doesn't run, and does so again. Docker tells an image's size by
# the blocks that its file system has, of which two copies may differ a little.
commits() {
	local size
	docker stop "$1-0"
	docker commit "$1-0" drr.test/committed
	docker start "$1-0"
	committed "$1"
	docker ps -s --filter "name=$1-0" --format '{{.Size}}' >"$WORK/$1.written"
	say "sizes $1 DRR: container $(<"$WORK/$1.written"), image $(<"$WORK/$1.committed")" >&3
	[ "$1" = with ] || return 0
	diff "$WORK/without.written" "$WORK/with.written" || flunk "the container hasn't the size without DRR"
	size=$(sed 's/MB$//' "$WORK/without.committed")
	expect "MB of the image" "$(sed 's/MB$//' "$WORK/with.committed")" "$((size - 1))..$((size + 1))"
}

# committed PHASE: the image has what the container has written. It goes.
committed() {
	local sum
	sum=$(docker run --rm --network none drr.test/committed sha256sum /srv/mine)
	[ "${sum%% *}" = "$(head -c 4000000 /dev/zero | tr '\0' x | sha256sum | cut -d ' ' -f 1)" ] ||
		flunk "the image has $sum"
	docker image ls --format '{{.Size}}' drr.test/committed >"$WORK/$1.committed"
	docker rmi drr.test/committed
}

removes() {
	remove without
	nothing_left
}

# By BuildKit, which is in dockerd.
builds() {
	mkdir -p "$ROOT/srv/build"
	echo "of the build" >"$ROOT/srv/build/new"
	printf 'FROM %s\nCOPY new /srv/new\nRUN cp /srv/new /srv/copied\n' $IMAGE >"$ROOT/srv/build/Dockerfile"
	build || fails_without_it
	[ "$(docker run --rm --network none drr.test/built cat /srv/copied)" = "of the build" ] ||
		flunk "the image hasn't what was built"
	docker rmi drr.test/built
	docker builder prune -a -f
}

build() { docker build --network none -t drr.test/built /srv/build >"$WORK/build" 2>&1; }

# A build that fails without DRR, too, is Docker's own affair.
fails_without_it() {
	cat "$WORK/build"
	watch_down
	! build || flunk "docker build fails only with DRR"
	watch_up
	skip "docker build fails, without DRR, too: $(grep -m 1 ERROR "$WORK/build")"
}

# Running containers are the same processes, can be entered, have their file, and are on drr.
run_on() {
	local devices
	diff "$WORK/pids" <(pids_of with) || flunk "other processes"
	[ "$(docker exec with-1 sha256sum /srv/payload)" = "$(payload_sum)  /srv/payload" ] || flunk "a wrong file"
	devices=$(dmsetup table --target drr | grep -c '^pool-snap-')
	expect "devices with drr" "$devices" $CONTAINERS..
}

# With live-restore no container notices that the daemons restart.
restarts_live() {
	pids_of with >"$WORK/pids"
	daemon_down dockerd
	dockerd_up
	run_on
	daemon_down containerd
	containerd_up
	wait_for 60 docker_answers
	run_on
	docker run --rm --network none "$IMAGE" | grep -q "^$(payload_sum) " || flunk "a new container fails"
}

# Without live-restore dockerd ends its containers, and they can be started again.
restarts_dead() {
	remove with 2
	configure false
	kill -HUP "$(<"$WORK/dockerd.pid")"
	wait_for 20 ends_containers
	daemon_down dockerd
	configure true
	dockerd_up
	docker ps -a --format '{{.Names}} {{.State}}' | sort >"$WORK/states"
	diff "$WORK/states" <(printf '%s exited\n' with-0 with-1) || flunk "not what Docker is to do"
	docker start with-0 with-1
	[ "$(docker exec with-0 sha256sum /srv/payload)" = "$(payload_sum)  /srv/payload" ] || flunk "a wrong file"
	expect "bytes of what it wrote" "$(docker exec with-0 stat -c %s /srv/mine)" 4000000
	docker rm -f with-0 with-1
	nothing_left
}

ends_containers() { [ "$(docker info --format '{{.LiveRestoreEnabled}}')" = false ]; }

prunes() {
	docker system prune -a -f
	docker system df
	wait_for 120 pool_is_empty
}

takes_down() {
	daemon_down dockerd
	daemon_down containerd
	watch_down
	! grep -iE 'level=(error|fatal).*(devmapper|dmsetup|snapshot)' "$WORK/containerd.log" "$WORK/dockerd.log" ||
		flunk "Docker complains of its snapshotter"
	all_down
	modprobe -r dm-drr
}

# udev is there, and whoever uses device-mapper is to wait for it
unset DM_DISABLE_UDEV
mount -t cgroup2 cgroup2 $GROUPS_DIR
root_up
udev_up
root_of_its_own
exec 3>&1
pool_up 2048
containerd_up
configure true
dockerd_up
run_case "an image is loaded" load
run_case "ten containers without DRR" reads_without
run_case "commit of a running container, without DRR" commits_running without
run_case "commit, without DRR" commits without
run_case "ten containers are removed" removes
watch_up
run_case "ten containers with drrctl watch" reads_with
run_case "sizes are those without DRR" sizes_are_the_same
run_case "commit of a running container, with DRR" commits_running with
run_case "commit, with DRR" commits with
run_case "build" builds
run_case "dockerd and containerd restart under running containers" restarts_live
run_case "dockerd restarts, and ends its containers" restarts_dead
run_case "all is pruned" prunes
run_case "all is taken down" takes_down
finish
