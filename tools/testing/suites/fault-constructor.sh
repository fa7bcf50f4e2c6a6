#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# KERNEL: debug
# VM: --append kunit.autorun=0 --allow page.allocation.failure
#
# Memory runs out at every step: of loading the module, of the constructor and the other
# calls of device-mapper, of a read and its record. Each allocation is made to fail in turn;
# then, at random, those that the module's own code asks for, under load. What fails says so
# and leaves nothing behind; reads go on, without a record. For kernels with fault injection.

# shellcheck source=tools/testing/lib.sh
. "${0%/*}/../lib.sh"
# shellcheck source=tools/testing/faults/faults.sh
. "${0%/*}/../faults/faults.sh"

NTH=${0%/*}/../bin/fault-nth
DEBUG=/sys/kernel/debug
MODULE=$(modinfo -n dm-drr)

# footprint: devices, who has the thin device open, and who uses the modules.
footprint() {
	dmsetup info -c --noheadings -o name,open | sort
	grep -E '^(dm_drr|dm_thin_pool) ' /proc/modules | cut -d' ' -f1-4
}

# every_allocation OPERATION ARGUMENT...: nothing stays of it.
every_allocation() {
	local before
	before=$(footprint)
	"$NTH" "$@" || flunk "$1: see above"
	[ "$(footprint)" = "$before" ] || flunk "left behind: $(footprint), was: $before"
}

drr_parameters() { echo "/dev/mapper/t-a $*"; }

constructor() {
	local sectors
	sectors=$(thin_sectors a)
	every_allocation load new "$sectors" drr "$(drr_parameters 2 paranoid no_donate)"
	# The same table twice on one thin device.
	drr_new a
	on_exit "dm_remove a"
	every_allocation reload a "$sectors" drr "$(drr_parameters)"
}

other_calls() {
	drr_new a
	on_exit "dm_remove a"
	every_allocation resume a
	every_allocation status a
	every_allocation message a reset_stats
}

module() {
	rmmod dm_drr
	"$NTH" insmod "$MODULE" dm_drr
	! grep -q '^dm_drr ' /proc/modules || flunk "dm_drr is still loaded"
	"$NTH" rmmod "$MODULE" dm_drr
	modprobe dm-drr
}

# The donor's read, whose record may not come about, then the receiver's.
reads() {
	local name
	siblings_up ext4
	for name in a b c; do
		"$NTH" read "/mnt/$name/one" "$REF/one"
		same "/mnt/$name/one" "$REF/one"
	done
	stats_sane
	siblings_end
}

# inject WHICH PROBABILITY TIMES: failslab or fail_page_alloc, only for calls from the module.
inject() {
	local dir=$DEBUG/$1 start end
	# Where the module's code begins, and an end that lies behind all of it.
	start=$((16#$(awk '$1 == "dm_drr" { print substr($6, 3) }' /proc/modules)))
	end=$((start + $(awk '$1 == "dm_drr" { print $2 }' /proc/modules)))
	printf '0x%x' $start >"$dir/require-start"
	printf '0x%x' $end >"$dir/require-end"
	echo 32 >"$dir/stacktrace-depth"
	echo 1 >"$dir/interval"
	echo "$3" >"$dir/times"
	echo "$2" >"$dir/probability"
}

inject_end() {
	echo 0 >"$DEBUG/$1/probability"
	echo 0 >"$DEBUG/$1/require-start"
	echo 0 >"$DEBUG/$1/require-end"
}

# under_load WHICH PROBABILITY
under_load() {
	[ -e "$DEBUG/$1/require-start" ] || skip "the kernel can't tell whose allocation it is"
	siblings_up ext4
	on_exit "inject_end $1"
	load_start
	inject "$1" "$2" -1
	sleep $((3 * ${DRR_SLOW:-1}))
	inject_end "$1"
	sleep 1
	load_end
	check_siblings ext4
	siblings_end
}

if [ ! -e /proc/self/fail-nth ] || [ ! -d $DEBUG/failslab ]; then
	run_case "allocations fail" skip "the kernel has no fault injection: use KERNEL=debug"
	finish
	exit
fi
for dir in $DEBUG/failslab $DEBUG/fail_page_alloc; do
	echo N >"$dir/ignore-gfp-wait"
	echo 0 >"$dir/verbose"
done
echo 0 >$DEBUG/fail_page_alloc/min-order
echo N >$DEBUG/fail_page_alloc/ignore-gfp-highmem

random_file one 1M
random_file two 512K
pool_up 512
modprobe dm-drr
image_new ext4 base 320
thin_snap a base
run_case "constructor" constructor
run_case "resume, status, message" other_calls
run_case "loading and unloading the module" module
dm_remove t-a
rm "$THINS/a"
run_case "reads and their records" reads
run_case "slab allocations under load" under_load failslab 20
run_case "page allocations under load" under_load fail_page_alloc 20
run_case "nothing is remembered after unmount" all_down
finish
