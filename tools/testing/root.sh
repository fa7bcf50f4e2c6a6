#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# A Debian root on the guest's disk, for programs that the guest's own image hasn't got. To be sourced.

ROOT=/run/root

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
	chroot "$ROOT" "$@"
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
