#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# A Debian whose root file system is on a thin device: it has booted without DRR, and DRR is put below the root and
# taken out again, also when memory is so short that programs are read again and again. Run by boot.sh.

# shellcheck source=tools/testing/lib.sh
. "${0%/*}/../lib.sh"
# shellcheck source=tools/testing/attaching.sh
. "${0%/*}/../attaching.sh"

CONFIG=/etc/drrctl/drrctl.toml

boots_without() {
	expect "lines of root that are a thin's" "$(target_of root | grep -c '^thin$')" 1
	[ "$(findmnt -n -o SOURCE /)" = /dev/mapper/root ] || flunk "root is on $(findmnt -n -o SOURCE /)"
	[ ! -e /sys/module/dm_drr ] || flunk "dm-drr is loaded"
}

# in_use: programs are read from the root, and files are written to it.
in_use() {
	head -c 1M /dev/urandom >/root/next
	sync -f /root/next
	cp /root/next "$WORK/copy"
	echo 1 >/proc/sys/vm/drop_caches
	cmp /root/next "$WORK/copy"
	ls -R /usr/bin >/dev/null
}

comes_and_goes() {
	local i
	for ((i = 0; i < $1; i++)); do
		drrctl attach root
		[ "$(target_of root)" = drr ] || flunk "$(dmsetup table root)"
		in_use
		drrctl detach root
		[ "$(target_of root)" = thin ] || flunk "$(dmsetup table root)"
		in_use
	done
	wait_for 60 seconds_are 0
}

# A program takes nearly all memory and goes on touching it, so that files' pages don't stay.
when_memory_is_short() {
	local free hog
	free=$(awk '/^MemAvailable:/ { print int($2 / 1024) }' /proc/meminfo)
	python3 -c "
import time
memory = bytearray($((free - 60)) << 20)
print('taken', flush=True)
while True:
    for at in range(0, len(memory), 4096):
        memory[at] = 1
    time.sleep(0.1)
" >"$WORK/hog" &
	hog=$!
	on_exit "kill $hog"
	wait_for 120 grep -q taken "$WORK/hog"
	comes_and_goes 5
	awk '/^(pgmajfault|workingset_refault_file|allocstall_normal)/' /proc/vmstat
}

# A snapshot of the running system, as containers have of their image.
siblings_are_served() {
	local file=/usr/bin/bash
	drrctl attach root
	dmsetup suspend --nolockfs root
	dmsetup message pool 0 "create_snap 1 0"
	dmsetup resume root
	dmsetup create copy --table "0 $(blockdev --getsz /dev/mapper/root) thin /dev/mapper/pool 1"
	drrctl attach copy
	echo 1 >/proc/sys/vm/drop_caches
	cat $file >/dev/null
	mkdir -p "$WORK/copy.d"
	mount -o ro,noload /dev/mapper/copy "$WORK/copy.d"
	cmp $file "$WORK/copy.d$file"
	expect "sectors served" "$(stat_of copy hit_sectors)" 8..
	umount "$WORK/copy.d"
	drrctl detach root
	dmsetup remove --retry copy
	dmsetup message pool 0 "delete 1"
}

# The daemon attaches the root as any other device of its pool.
watch_takes_it() {
	sed -i 's/^pools = .*/pools = ["pool"]/' $CONFIG
	systemctl start drrctl-watch
	wait_for 60 is_attached root
	in_use
	systemctl stop drrctl-watch
	drrctl detach root
	in_use
}

# udev is there, and whoever uses device-mapper is to wait for it
unset DM_DISABLE_UDEV
run_case "the root is on a thin device, without DRR" boots_without
# before anybody detaches it, which watch respects
run_case "watch attaches the root" watch_takes_it
run_case "DRR comes and goes below the root" comes_and_goes 2
run_case "the same when memory is short" when_memory_is_short
run_case "a snapshot of the root is served" siblings_are_served
finish
