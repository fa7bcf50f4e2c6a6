#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# The installed packages in use: on Debian's own kernel, with the modules that DKMS has built
# and the drrctl of the package. Run by scripts/deb-test.sh, with a disk that has the Debian
# root they are installed in. Modules are loaded by that root's modprobe, from its folders.

# shellcheck source=tools/testing/lib.sh
. "${0%/*}/../lib.sh"

# shellcheck source=tools/testing/root.sh
. "${0%/*}/../root.sh"

# Both of them, beside the kernel's own dm-thin-pool.
loads_both() {
	local module
	modprobe dm-drr
	for module in dm-thin-hooks dm-drr; do
		[ -d "/sys/module/${module//-/_}" ] || flunk "$module is not loaded"
		[[ $(in_root modinfo -n "$module") == */updates/dkms/* ]] ||
			flunk "$module is from $(in_root modinfo -n "$module")"
	done
	[[ $(in_root modinfo -n dm-thin-pool) == */kernel/drivers/md/* ]] ||
		flunk "dm-thin-pool is from $(in_root modinfo -n dm-thin-pool)"
	dmsetup targets | grep '^drr '
}

serves_a_sibling() {
	donate a file
	receive b file "$((1 << 11))"
	expect "sectors that b got from a" "$(sectors_from b a)" "$((1 << 11)).."
}

shows_what_came_of_it() {
	local hits
	hits=$(in_root drrctl status b --json | jq '[.. | .hit_sectors? // empty] | add')
	expect "sectors served, by drrctl" "$hits" "$(stat_of b hit_sectors)"
	in_root drrctl list
	in_root drrctl heatmap | grep -q . || flunk "no heatmap"
}

# Devices that drrctl itself sets up and removes.
creates_and_removes() {
	thin_snap c base
	in_root drrctl create c1 t-c
	dmsetup mknodes
	[[ $(dmsetup table c1) == "0 $(thin_sectors c) drr "* ]] ||
		flunk "table: $(dmsetup table c1)"
	in_root drrctl remove c1
	expect_fail dmsetup info c1
}

unloads() {
	all_down
	rmmod dm-drr dm-thin-hooks dm-thin-pool
	[ ! -d /sys/module/dm_drr ] || flunk "dm-drr is still there"
}

root_up
use_its_modules
random_file file 1M
run_case "modprobe loads both modules of the package" loads_both
pool_up 256
image_new ext4 base 64
container_up ext4 a base
container_up ext4 b base
run_case "a sibling is served" serves_a_sibling
run_case "drrctl shows it" shows_what_came_of_it
run_case "drrctl creates and removes a device" creates_and_removes
run_case "everything is taken down and unloaded" unloads
finish
