#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# What all measurements in a guest share, whatever they measure on.

# cpu_ticks: that the guest's CPUs were busy for.
cpu_ticks() {
	local name user nice system idle waiting interrupts softirqs rest
	# shellcheck disable=SC2034 # all have to be named
	read -r name user nice system idle waiting interrupts softirqs rest </proc/stat
	echo $((user + nice + system + interrupts + softirqs))
}

# evict FILE...: drops the clean pages of these files.
evict() {
	local file
	for file; do
		xfs_io -r -c "fadvise -d 0 0" "$file"
	done
}

# cached_bytes: that all page caches take.
cached_bytes() { awk '/^(Buffers|Cached):/ { sum += $2 } END { print sum * 1024 }' /proc/meminfo; }

# touch_memory: all that is free, once: where the guest's memory is the host's, the first access to a
# page costs more than anything that is measured here.
touch_memory() {
	local kib
	kib=$(awk '/^MemFree:/ { print $2 }' /proc/meminfo)
	mount -t tmpfs -o size=100% none /mnt
	head -c $(((kib - 300000) * 1024)) /dev/zero >/mnt/touched
	umount /mnt
}
