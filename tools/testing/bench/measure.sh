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
