#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# Boots the Debian root on the guest's disk, with its systemd as the first process, which runs one of
# the tests here. These are in /run, so the root is as it was installed. Run by scripts/deb-test.sh.
#
# usage: boot.sh TEST [thin]		as everyday.sh; thin: on a thin device, into which the root is copied, of a
#				pool on the guest's second disk

set -euo pipefail

test=$1 thin=${2:-}
root=/newroot
read -r -a disks <<<"$DRR_DISKS"
units=/run/systemd/system
read -r cmdline </proc/cmdline
tty=${cmdline##*drr.tty=}
tty=/dev/${tty%% *}

cp -r /drr /run/drr
mkdir -p $units/multi-user.target.wants
# systemd wants $ doubled
cat >$units/drr-test.service <<END
[Unit]
Description=Test of dm-drr
[Service]
Type=oneshot
Environment=HOME=/root LC_ALL=C
ExecStart=/bin/bash -c '/run/drr/deb/$test >$tty 2>&1; echo DRR-EXIT: \$\$? >$tty; sync'
ExecStopPost=/usr/bin/systemctl poweroff --force --force
END
ln -s ../drr-test.service $units/multi-user.target.wants/
# the serial lines are taken
ln -s /dev/null $units/serial-getty@ttyS0.service

# thin_root DISK: makes a pool on it, with a thin device, and copies the root there.
thin_root() {
	local metadata=32768 all size
	all=$(blockdev --getsz "$1")
	size=$(blockdev --getsz "${disks[0]}")
	modprobe dm-thin-pool
	dmsetup create pool_tmeta --table "0 $metadata linear $1 0"
	dmsetup create pool_tdata --table "0 $((all - metadata)) linear $1 $metadata"
	dmsetup create pool --table "0 $((all - metadata)) thin-pool /dev/mapper/pool_tmeta /dev/mapper/pool_tdata 128 0"
	dmsetup message pool 0 "create_thin 0"
	dmsetup create root --table "0 $size thin /dev/mapper/pool 0"
	dmsetup mknodes
	dd if="${disks[0]}" of=/dev/mapper/root bs=1M conv=sparse oflag=direct status=none
	disks[0]=/dev/mapper/root
}

mkdir $root
[[ ! $thin ]] || thin_root "${disks[1]}"
mount -o noatime "${disks[0]}" $root
rm -f $root/etc/systemd/system/*.wants/drrctl-*	# what an earlier test has enabled
cat >/run/next-init <<END
#!/bin/bash
for dir in dev proc sys run; do
	mount --move /\$dir $root/\$dir
done
exec busybox switch_root $root /sbin/init
END
chmod +x /run/next-init
