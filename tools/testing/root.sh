#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# A Debian root on the guest's disk, for programs that the guest's own image hasn't got. To be sourced.

ROOT=/run/root
# What runs a program in it; as a simple command in the background it becomes the program.
ENTER=(chroot "$ROOT")

root_up() {
	local dir
	mkdir -p "$ROOT"
	# shellcheck disable=SC2086,SC2154 # one disk
	mount -o noatime ${DRR_DISKS} "$ROOT"
	for dir in dev proc sys; do
		mount --rbind "/$dir" "$ROOT/$dir"
	done
}

in_root() {
	"${ENTER[@]}" "$@"
}

# What is entered from now on has the root as the root of a mount namespace, as on a machine. From a
# chroot runc can't pivot into a container's root, and then `docker exec` enters the guest's.
root_of_its_own() {
	# shellcheck disable=SC2016 # expanded by the inner shell
	unshare --mount bash -c 'cd "$1" && mount --move . / && exec chroot . sleep infinity' - "$ROOT" &
	ENTER=(nsenter --mount --target $!)
	wait_for 20 in_root test -e /etc/debian_version
}

# Whoever wants a module gets that of the Debian root.
use_its_modules() {
	mkdir -p /run/bin
	printf '#!/bin/sh\nexec /usr/sbin/chroot %s /usr/sbin/modprobe "$@"\n' "$ROOT" \
		>/run/bin/modprobe
	chmod +x /run/bin/modprobe
	echo /run/bin/modprobe >/proc/sys/kernel/modprobe
	export PATH=/run/bin:$PATH
}
