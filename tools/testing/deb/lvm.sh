#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# Disks of machines that have LVM, RAID or a file system of their own on them, attached on a Debian with
# lvm2, mdadm, multipath-tools, udev and systemd: the host's tools see each of them once, as without DRR.
# Run by boot.sh.

# shellcheck source=tools/testing/lib.sh
. "${0%/*}/../lib.sh"
# shellcheck source=tools/testing/attaching.sh
. "${0%/*}/../attaching.sh"

CONFIG=/etc/drrctl/drrctl.toml
LVM_CONFIG=/etc/lvm/lvmlocal.conf
DEVICES_FILE=/etc/lvm/devices/system.devices

watch_starts() {
	sed -i -e 's/^pools = .*/pools = ["pool"]/' -e 's/^exclude = .*/exclude = ["*-plain"]/' $CONFIG
	systemctl enable --now drrctl-watch
	pool_up 768
	# the pool's first block is the first of its data device, too: no disk's label is to be in it
	thin_new first-plain 1
	dd if=/dev/zero of=/dev/mapper/t-first-plain bs=64K count=1 oflag=direct
}

# quiet COMMAND...: succeeds, and warns of nothing.
quiet() {
	say "running: $*"
	"$@" >"$WORK/out" 2>"$WORK/err" || flunk "$*: $(<"$WORK/err")"
	! grep -iE 'warning|duplicate' "$WORK/out" "$WORK/err" || flunk "$* warns"
	cat "$WORK/out"
}

# is WHAT VALUE WANTED: as expect, of words.
is() { [ "$2" = "$3" ] || flunk "$1: '$2', should be '$3'"; }

# lvm_is_set NAME: how LVM finds devices: by default, by a devices file, or with udev's help.
lvm_is_set() {
	rm -f $DEVICES_FILE
	case $1 in
	default) rm -f $LVM_CONFIG ;;
	file) echo 'devices { use_devicesfile = 1 }' >$LVM_CONFIG ;;
	udev)
		printf 'devices { obtain_device_list_from_udev = 1 external_device_info_source = "udev" }\n' \
			>$LVM_CONFIG
		;;
	esac
}

# made NAME: a disk that `watch` attaches, unless its name ends in -plain.
made() {
	thin_new "$1" 96
	[[ $1 = *-plain ]] || wait_for 60 is_attached "t-$1"
	udevadm settle
}

unmade() {
	wait_for 20 dmsetup remove "t-$1"
	thin_delete "$1"
}

# A group on the disk, from its physical volume to its end.
group_lives() {
	local group=vg-$1 disk=/dev/mapper/t-$1
	quiet pvcreate -y "$disk"
	quiet pvs
	expect "physical volumes" "$(pvs --noheadings -o pv_name | wc -l)" 1
	quiet vgcreate "$group" "$disk"
	quiet lvcreate -y -n inside -L 32M "$group"
	quiet vgchange -an "$group"
	quiet vgchange -ay "$group"
	quiet pvs -a
	is "where the group is" "$(pvs --noheadings -o pv_name | tr -d ' ')" "$disk"
	mkfs.ext4 -q -b 4096 "/dev/$group/inside"
	quiet lvextend -L +16M "$group/inside"
	quiet pvck "$disk"
	quiet vgchange -an "$group"
	quiet vgremove -y "$group"
	quiet pvremove "$disk"
}

lvm_works() {
	local name=$1-$2
	lvm_is_set "$1"
	made "$name"
	on_exit "lvm_is_set default"
	if [ "$1" = file ]; then
		quiet lvm lvmdevices -y --adddev "/dev/mapper/t-$name"
	fi
	group_lives "$name"
	if [ "$1" = file ]; then
		quiet lvm lvmdevices --check
		! grep -q 'drr-' $DEVICES_FILE || flunk "$(<$DEVICES_FILE)"
	fi
	unmade "$name"
}

# The group was there before, and is in use when drr comes and goes.
group_in_use() {
	made used-plain
	quiet pvcreate -y /dev/mapper/t-used-plain
	quiet vgcreate vg-used /dev/mapper/t-used-plain
	quiet lvcreate -y -n inside -L 32M vg-used
	drrctl attach t-used-plain
	udevadm settle
	quiet pvs
	quiet lvcreate -y -n more -L 16M vg-used
	drrctl detach t-used-plain
	udevadm settle
	quiet pvs
	drrctl attach t-used-plain
	udevadm settle
	quiet vgremove -y vg-used
	unmade used-plain
}

# at_number NAME: what libvirt finds when it looks up by number what a virtual machine's disk is on. It gives access
# to devices, leaves alone what is none, and doesn't start the machine if there is nothing.
at_number() {
	stat -L -c %F "/dev/block/$(dmsetup info -c --noheadings --separator : -o major,minor "$1")"
}

# Events don't bring the node back; the number's next owner has one.
no_node_again() {
	local kernel second
	made node
	second=$(dmsetup ls | cut -f 1 | grep "^drr-t-node-")
	is "what is at its number" "$(at_number "$second")" directory
	kernel=$(dmsetup info -c --noheadings -o blkdevname "$second")
	udevadm trigger --settle --subsystem-match=block
	no_nodes
	is "what is at its number after events" "$(at_number "$second")" directory
	drrctl resize t-node 100M
	udevadm settle
	is "what is at its number when it has grown" "$(at_number "$second")" directory
	no_nodes
	[ ! -b "/dev/mapper/$second" ] || flunk "there is /dev/mapper/$second"
	unmade node
	wait_for 20 seconds_are 0
	[ ! -L "/dev/mapper/$second" ] || flunk "its link is left: $(ls -l /dev/mapper)"
	dmsetup create next --major "$(dmsetup info -c --noheadings -o major pool)" \
		--minor "${kernel#dm-}" --table "0 8 zero"
	[ -b "/dev/$kernel" ] || flunk "no /dev/$kernel"
	is "what is at its number" "$(at_number next)" "block special file"
	dmsetup remove next
}

file_system_is_seen_once() {
	local uuid
	made fs
	mkfs.ext4 -q -b 4096 -L inside /dev/mapper/t-fs
	udevadm settle
	uuid=$(blkid -p -o value -s UUID /dev/mapper/t-fs)
	# not what it remembers
	expect "devices with this file system" "$(blkid -c /dev/null | tee /dev/stderr | grep -c "$uuid")" 1
	is "who has its UUID" "$(blkid -c /dev/null -U "$uuid")" /dev/mapper/t-fs
	lsblk -o NAME,TYPE,FSTYPE,UUID
	is "who has its UUID by lsblk" \
		"$(lsblk -n -r -o NAME,UUID | grep " $uuid$" | sort -u | cut -d ' ' -f 1)" t-fs
	mkdir -p /mnt/inside
	mount LABEL=inside /mnt/inside
	is "what is mounted" "$(findmnt -n -o SOURCE /mnt/inside)" /dev/mapper/t-fs
	umount /mnt/inside
	unmade fs
}

# Every disk that has the array's superblock is a part of it.
array_is_assembled() {
	local line
	made md
	# udev is not to assemble it before it's asked for
	echo 'AUTO -all' >/etc/mdadm/mdadm.conf
	mdadm --create /dev/md/inside --run --metadata=1.2 --level=0 --force --raid-devices=1 /dev/mapper/t-md
	mdadm --stop /dev/md/inside
	udevadm settle
	line=$(mdadm --examine --scan)
	expect "arrays" "$(grep -c ^ARRAY <<<"$line")" 1
	mdadm --examine --scan --verbose
	echo "$line" >>/etc/mdadm/mdadm.conf
	quiet mdadm --assemble --scan
	cat /proc/mdstat
	is "what it is on" "$(lsblk -n -s -r -o NAME,TYPE /dev/md/inside | sed -n 2p)" "t-md dm"
	mdadm --stop /dev/md/inside
	udevadm settle
	mdadm --zero-superblock /dev/mapper/t-md
	unmade md
}

multipath_has_none() {
	made paths
	modprobe dm-multipath
	quiet multipath -ll
	quiet multipath -v2
	is "multipath's devices" "$(dmsetup ls --target multipath)" ""
	unmade paths
}

# udev is there, and whoever uses device-mapper is to wait for it
unset DM_DISABLE_UDEV
run_case "watch starts" watch_starts
for how in default file udev; do
	for kind in plain attached; do
		run_case "LVM on a disk: $how, $kind" lvm_works $how $kind
	done
done
run_case "a group that is in use when drr comes and goes" group_in_use
run_case "what is below has no node, its number's next owner has" no_node_again
run_case "blkid, lsblk and mount see a file system once" file_system_is_seen_once
run_case "mdadm assembles an array of the disk" array_is_assembled
run_case "multipath takes nothing" multipath_has_none
finish
