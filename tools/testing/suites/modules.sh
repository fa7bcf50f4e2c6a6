#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# Loading and unloading: at any moment, with other devices in use, and in the wrong company.

# shellcheck source=tools/testing/lib.sh
. "${0%/*}/../lib.sh"

# Without the patches in dm-thin-pool the constructor says so, and the module stays usable.
stock_dm_thin() {
	local before
	modprobe -q null_blk nr_devices=0 || true
	modprobe -a dm-persistent-data dm-bio-prison dm-bufio
	! modprobe -n -q dm-thin-hooks || skip "dm-thin-hooks makes the stock dm-thin-pool do"
	insmod /lib/modules/stock/dm-thin-pool.ko
	on_exit "all_down; rmmod dm_drr dm_thin_pool"
	pool_up 128
	thin_new stock 64
	modprobe dm-drr
	before=$(dmsetup ls | sort)
	dmesg -C
	expect_fail dmsetup create bad --table "0 131072 drr /dev/mapper/t-stock"
	dmesg | grep -q "dm-thin-pool without stacking support" || flunk "no text: $(dmesg)"
	[ "$(dmsetup ls | sort)" = "$before" ] || flunk "left behind: $(dmsetup ls)"
}

# The hooks are only for the build of dm-thin-pool that they were made for.
hooks_for_another_build() {
	local id
	modprobe -n -q dm-thin-hooks || skip "the patched dm-thin-pool needs no hooks"
	modprobe -a dm-thin-pool dm-drr
	id=$(od -An -v -tx1 -j16 /sys/module/dm_thin_pool/notes/.note.gnu.build-id | tr -d ' \n')
	rmmod dm_drr dm_thin_hooks
	sed "s/$id/${id//?/0}/" "$(modinfo -n dm-thin-hooks)" >"$WORK/other.ko"
	expect_fail cmp -s "$WORK/other.ko" "$(modinfo -n dm-thin-hooks)"
	expect_fail insmod "$WORK/other.ko"
	dmesg | grep -q "dm_thin_pool is another build" || flunk "no text: $(dmesg | tail)"
	grep -q "^dm_thin_pool " /proc/modules || flunk "dm-thin-pool is gone"
	[ "$(wc -l </sys/kernel/tracing/enabled_functions)" = 0 ] || flunk "hooks are left"
	modprobe dm-drr
}

# The hooks go and come with dm-thin-pool, which they don't keep from being unloaded; and without it.
hooks_come_and_go() {
	local i
	modprobe -n -q dm-thin-hooks || skip "the patched dm-thin-pool needs no hooks"
	for i in 1 2 3; do
		modprobe dm-drr
		rmmod dm_thin_pool
		[ "$(wc -l </sys/kernel/tracing/enabled_functions)" = 0 ] || flunk "hooks are left"
		modprobe dm-thin-pool
		pool_up 128
		thin_new hooked 64
		drr_new hooked
		dm_remove hooked
		rmmod dm_drr
		rmmod dm_thin_hooks	# while a pool is active
		thin_new other 64
		modprobe dm-drr
		drr_new hooked
		dd if=/dev/mapper/hooked of=/dev/null bs=1M count=1 status=none
		all_down
		rmmod dm_drr
	done
}

# Functions that are hooked are traced, too, in both ways, before the hooks and after them.
hooks_beside_tracers() {
	local tracer
	modprobe -n -q dm-thin-hooks || skip "the patched dm-thin-pool needs no hooks"
	cd /sys/kernel/tracing
	[ -w set_ftrace_filter ] || skip "the kernel has no function tracer"
	modprobe -a dm-thin-pool dm-drr
	for tracer in function function_graph; do
		rmmod dm_drr dm_thin_hooks
		printf '%s\n' dm_thin_insert_block dm_thin_remove_range thin_preresume >set_ftrace_filter
		echo $tracer >current_tracer
		on_exit "cd /sys/kernel/tracing; echo nop >current_tracer; echo >set_ftrace_filter"
		modprobe dm-drr
		image_new ext4 traced 32 some
		thin_snap again traced
		drr_new again
		fs_mount ext4 again
		same /mnt/again/some "$REF/some"
		cp "$REF/some" /mnt/again/own
		sync
		# the hooks go and come while the functions are traced
		container_down again
		rmmod dm_drr dm_thin_hooks
		modprobe dm-drr
		thin_delete again
		thin_delete traced
		grep -q dm_thin_insert_block trace || flunk "nothing was traced: $(tail trace)"
		echo nop >current_tracer
	done
}

# A table with a drr target loads the module, as device-mapper asks for dm-drr.
loaded_by_a_table() {
	! grep -q '^dm_drr ' /proc/modules || rmmod dm_drr
	thin_new auto 64
	drr_new auto
	grep -q '^dm_drr ' /proc/modules || flunk "no dm_drr"
	expect_fail rmmod dm_drr
	dm_remove auto
	rmmod dm_drr
	dm_remove t-auto
}

# The module comes and goes while files are read, written and reclaimed elsewhere: its
# page-cache hooks are put in and taken out under load.
under_io_elsewhere() {
	local i load
	thin_new busy 128
	fs_make ext4 /dev/mapper/t-busy
	fs_mount ext4 busy /dev/mapper/t-busy
	on_exit "umount /mnt/busy; dm_remove t-busy"
	(while :; do
		cp "$REF/some" /mnt/busy/copy
		sync -f /mnt/busy
		evict /mnt/busy/copy
		cmp /mnt/busy/copy "$REF/some" || exit 1
		rm /mnt/busy/copy
	done) &
	load=$!
	for ((i = 0; i < 15; i++)); do
		modprobe dm-drr
		rmmod dm_drr
	done
	kill $load 2>/dev/null || flunk "the load ended on its own"
	wait $load 2>/dev/null || true
}

# The last targets go, and the module with them, while the pages that they recorded are
# still cached by mounted file systems.
with_records() {
	local i name
	for ((i = 0; i < 3; i++)); do
		container_up ext4 a base
		container_up ext4 b base
		same /mnt/a/some "$REF/some"
		same /mnt/b/some "$REF/some"
		expect "sectors served" "$(stat_of b hit_sectors)" 1024..
		for name in a b; do
			dmsetup suspend --noflush --nolockfs $name
			dmsetup load $name \
				--table "0 $(thin_sectors $name) linear /dev/mapper/t-$name 0"
			dmsetup resume $name
		done
		rmmod dm_drr
		same /mnt/a/some "$REF/some"
		same /mnt/b/some "$REF/some"
		for name in a b; do
			container_down $name
			thin_delete $name
		done
	done
}

[ "$DRR" = drr ] || { say "these are about drr"; finish; exit; }
random_file some 2M
run_case "stock dm-thin-pool" stock_dm_thin
run_case "hooks for another build" hooks_for_another_build
run_case "hooks come and go" hooks_come_and_go
pool_up 512
image_new ext4 base 128
run_case "hooks beside function tracers" hooks_beside_tracers
run_case "loaded by a table" loaded_by_a_table
run_case "under I/O elsewhere" under_io_elsewhere
run_case "unloaded with pages on record" with_records
run_case "nothing is remembered after unmount" all_down
finish
