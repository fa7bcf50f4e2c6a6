#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# Virtual machines whose disks are snapshots of one image, opened as block devices by QEMU, as it does:
# buffered, and not exclusively. What one has read serves the others. Run by scripts/managers.sh, which
# gives the size of what they read in MiB, under
# User-mode Linux: an emulator in an emulated machine would take minutes to boot.

# shellcheck source=tools/testing/lib.sh
. "${0%/*}/../lib.sh"
# shellcheck source=tools/testing/root.sh
. "${0%/*}/../root.sh"

MIB=$1

# vm NAME DEVICE WORDS...: a machine runs to its end; what it says is in $WORK/NAME. $CACHE is QEMU's
# mode.
vm() {
	local name=$1 device=$2
	shift 2
	timeout 300 chroot "$ROOT" qemu-system-x86_64 -accel tcg -m 192M -nodefaults -display none \
		-no-reboot -kernel /srv/vm/vmlinuz -initrd /srv/vm/initrd \
		-append "console=ttyS0 panic=-1 quiet no_timer_check mitigations=off $*" -serial stdio \
		-drive "file=$device,format=raw,if=virtio,cache=${CACHE:-writeback}" \
		</dev/null >"$WORK/$name" 2>&1 || flunk "$name: $(tail -n 20 "$WORK/$name")"
	tr -d '\r' <"$WORK/$name" | grep '^VM-' >"$WORK/$name.said" || true
	grep -q "VM-END: good" "$WORK/$name.said" || flunk "$name: $(tail -n 20 "$WORK/$name")"
}

# saw_all NAME TIMES: it has read the image's file so often, and right each time.
saw_all() {
	local sum
	sum=$(sha256sum <"$REF/payload")
	expect "right sums in $1" "$(grep -c "^VM-SUM: ${sum%% *}$" "$WORK/$1.said")" "$2"
	expect "sums in $1" "$(grep -c "^VM-SUM: " "$WORK/$1.said")" "$2"
}

# snap_up NAME [FEATURE...], snap_gone NAME: a snapshot with drr on it, opened by nobody.
snap_up() {
	thin_snap "$1" base
	drr_new "$@"
	on_exit "snap_gone $1"
}

snap_gone() {
	container_down "$1"
	thin_delete "$1"
}

# The second finds in memory what the first has read.
one_after_the_other() {
	local first second
	snap_up a
	snap_up b
	first=$(mib_read vm a /dev/mapper/a vm.do=read)
	# the first's device is closed by now, and its page cache with it, if nobody else has it open
	saw_all a 1
	exec 5</dev/mapper/a
	on_exit "exec 5<&-"
	vm a /dev/mapper/a vm.do=read
	second=$(mib_read vm b /dev/mapper/b vm.do=read)
	saw_all b 1
	say "MiB from the disk: the first $first, the second $second" >&3
	expect "MiB that the first read" "$first" "$MIB.."
	expect "MiB that the second read" "$second" 0..$((MIB / 10))
	expect "MiB it was served" "$(($(stat_of b hit_sectors) / 2048))" $((MIB * 9 / 10))..
	expect "MiB of them from the first" "$(($(sectors_from b a) / 2048))" $((MIB * 9 / 10))..
}

# Two boot at the same moment: together they read the disk once.
at_the_same_time() {
	local read
	snap_up a
	snap_up b
	read=$(mib_read both)
	saw_all a 1
	saw_all b 1
	say "MiB from the disk: $read, with two machines" >&3
	expect "MiB from the disk" "$read" "$MIB..$((MIB * 5 / 4))"
}

both() {
	local first
	vm a /dev/mapper/a vm.do=read &
	first=$!
	vm b /dev/mapper/b vm.do=read
	wait $first
}

# Past the host's page cache a machine is served from what others have there, and serves nobody.
direct_only_receives() {
	local served alone
	snap_up a
	snap_up b
	snap_up c
	exec 5</dev/mapper/a
	on_exit "exec 5<&-"
	vm a /dev/mapper/a vm.do=read
	exec 6</dev/mapper/b
	on_exit "exec 6<&-"
	served=$(CACHE=none mib_read vm b /dev/mapper/b vm.do=read)
	saw_all b 1
	expect "MiB it was served" "$(($(stat_of b hit_sectors) / 2048))" $((MIB * 9 / 10))..
	exec 5<&-
	alone=$(CACHE=none mib_read vm c /dev/mapper/c vm.do=read)
	saw_all c 1
	say "MiB from the disk without the host's page cache: $served beside a buffered one, $alone beside a direct one" >&3
	expect "MiB from the disk beside a buffered one" "$served" 0..$((MIB / 10))
	expect "MiB from the disk beside a direct one" "$alone" "$MIB.."
	expect "sectors from the direct one" "$(sectors_from c b)" 0
}

# What a machine writes is its own.
writes_are_its_own() {
	snap_up a
	snap_up b
	vm a /dev/mapper/a vm.do=write:of-a
	vm b /dev/mapper/b vm.do=write:of-b
	vm a /dev/mapper/a vm.do=read
	vm b /dev/mapper/b vm.do=read
	grep -qx "VM-NOTE: of-a" "$WORK/a.said" || flunk "a: $(<"$WORK/a.said")"
	grep -qx "VM-NOTE: of-b" "$WORK/b.said" || flunk "b: $(<"$WORK/b.said")"
	saw_all a 1
	saw_all b 1
}

# While machines read over and over, a sibling that donates, too, is mounted and changed, and let go.
mounts_come_and_go() {
	local vms=() name
	local -i rounds=0
	snap_up a paranoid
	snap_up b paranoid
	snap_up c
	for name in a b; do
		vm $name /dev/mapper/$name vm.do=loop:40 &
		vms+=($!)
	done
	while kill -0 "${vms[0]}" 2>/dev/null; do
		dd if=/dev/mapper/c of=/dev/null bs=1M status=none
		fs_mount ext4 c
		head -c 100000 /dev/urandom >"/mnt/c/new$((rounds % 7))"
		rm -f "/mnt/c/new$(((rounds + 3) % 7))"
		sync -f /mnt/c
		umount /mnt/c
		rounds+=1
	done
	for name in "${vms[@]}"; do
		wait "$name" || flunk "a machine failed"
	done
	say "mounted $rounds times, sums: $(grep -c SUM "$WORK/a.said") and $(grep -c SUM "$WORK/b.said")" >&3
	expect "mounts" "$rounds" 5..
	saw_all a "$(grep -c SUM "$WORK/a.said")"
	saw_all b "$(grep -c SUM "$WORK/b.said")"
	for name in a b; do
		expect "hits compared with the disk" "$(stat_of $name verified)" 1..
		expect "that differed" "$(stat_of $name mismatches)" 0
	done
}

root_up
exec 3>&1
pool_up 1024
random_file payload $((MIB << 20))
image_new ext4 base $((MIB * 2))
modprobe dm-drr
run_case "two machines, one after the other" one_after_the_other
run_case "two machines at the same time" at_the_same_time
run_case "machines without the host's page cache" direct_only_receives
run_case "what a machine writes is its own" writes_are_its_own
run_case "a sibling is mounted meanwhile" mounts_come_and_go
run_case "nothing is remembered afterwards" all_down
finish
