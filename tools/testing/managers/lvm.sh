#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# DRR on top of LVM's thin volumes: LVM wants its own target in its volumes' tables, so drr is a device
# of its own above each. Run by scripts/managers.sh, which gives the size of what
# is read in MiB.

# shellcheck source=tools/testing/lib.sh
. "${0%/*}/../lib.sh"
# shellcheck source=tools/testing/root.sh
. "${0%/*}/../root.sh"

CTL=${0%/*}/../bin/drrctl
MIB=$1
CONTAINERS=10

lvm() { LVM_SUPPRESS_FD_WARNINGS=1 in_root lvm "$@"; }

group_up() {
	modprobe -q null_blk nr_devices=0 || true
	modprobe dm-thin-pool
	# lvcreate asks for it, whatever kind of snapshot it makes
	modprobe dm-snapshot
	ram_disk "$DATA_DISK" 1024
	printf 'devices { dir = "/dev" scan = [ "/dev" ] use_devicesfile = 0 types = [ "nullb", 16 ] }\n%s\n' \
		'activation { udev_sync = 0 udev_rules = 0 monitoring = 0 }' >"$ROOT/etc/lvm/lvmlocal.conf"
	lvm pvcreate -q /dev/$DATA_DISK
	lvm vgcreate -q vg /dev/$DATA_DISK
	lvm lvcreate -q --type thin-pool -L 800M --chunksize 64k --poolmetadatasize 16M --zero n -n pool vg
	lvm lvcreate -q -V 256M --thinpool vg/pool -n base
}

image_up() {
	fs_make ext4 /dev/vg/base
	fs_mount ext4 base /dev/vg/base
	random_file payload $((MIB << 20))
	cp "$REF/payload" /mnt/base/
	umount /mnt/base
}

# read_all DEVICE_PREFIX: ten snapshots, one after the other.
read_all() {
	local i
	for ((i = 0; i < CONTAINERS; i++)); do
		fs_mount ext4 "c$i" "/dev/$1$i"
		same "/mnt/c$i/payload" "$REF/payload"
	done
}

unmount_all() {
	local i
	for ((i = 0; i < CONTAINERS; i++)); do
		umount "/mnt/c$i"
	done
}

snapshots_up() {
	local i
	for ((i = 0; i < CONTAINERS; i++)); do
		lvm lvcreate -q -kn -s -n "s$i" vg/base
	done
}

reads_without() {
	local read
	read=$(mib_read read_all vg/s)
	unmount_all
	expect "MiB from the disk" "$read" $((CONTAINERS * MIB))..
}

reads_with() {
	local i read
	modprobe dm-drr
	for ((i = 0; i < CONTAINERS; i++)); do
		"$CTL" create "drr-s$i" "vg-s$i"
	done
	read=$(mib_read read_all mapper/drr-s)
	say "MiB from the disk: $read with DRR" >&3
	expect "MiB from the disk" "$read" "$MIB..$((MIB * 3 / 2))"
	"$CTL" list
}

# What LVM says of its volumes is what it says without.
lvm_is_undisturbed() {
	local used
	used=$(lvm lvs --noheadings -o data_percent vg/s0)
	[ "${used//[ .]/}" -gt 0 ] || flunk "lvs: $used"
	lvm lvs -o name,segtype,data_percent vg
	[ "$(lvm lvs --noheadings -o segtype vg/s0 | tr -d ' ')" = thin ] || flunk "not thin any more"
	# what is in use isn't removed; what is not, is
	expect_fail lvm lvremove -q -f vg/s0
	umount /mnt/c0
	"$CTL" remove drr-s0
	lvm lvremove -q -f vg/s0
	# snapshot of a volume that drr is on, in use
	lvm lvcreate -q -kn -s -n later vg/s1
	"$CTL" create drr-later vg-later
	fs_mount ext4 later /dev/mapper/drr-later
	same /mnt/later/payload "$REF/payload"
	expect "sectors served" "$(stat_of drr-later hit_sectors)" $((MIB << 10))..
	umount /mnt/later
	"$CTL" remove drr-later
	lvm lvextend -q -L +64M vg/pool
	same /mnt/c1/payload "$REF/payload"
}

takes_down() {
	local i
	for ((i = 1; i < CONTAINERS; i++)); do
		umount "/mnt/c$i"
		"$CTL" remove "drr-s$i"
	done
	lvm vgremove -q -f vg
	[ "$(dmsetup ls | grep -c .)" = 1 ] || [ "$(dmsetup ls)" = "No devices found" ] ||
		flunk "left: $(dmsetup ls)"
	modprobe -r dm-drr dm-thin-pool
}

root_up
exec 3>&1
run_case "volume group, thin pool, volume" group_up
run_case "an image" image_up
run_case "snapshots" snapshots_up
run_case "ten read without DRR" reads_without
run_case "ten read through drr on top of volumes" reads_with
run_case "LVM is undisturbed" lvm_is_undisturbed
run_case "all is taken down" takes_down
finish
