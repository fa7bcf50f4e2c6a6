#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# Boots the Debian root on the guest's disk, with its systemd as the first process, which runs one of
# the tests here. These are in /run, so the root is as it was installed. Run by scripts/deb-test.sh.
#
# usage: boot.sh TEST		as everyday.sh

set -euo pipefail

test=$1
root=/newroot
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

mkdir $root
# shellcheck disable=SC2086,SC2154 # one disk
mount -o noatime $DRR_DISKS $root
cat >/run/next-init <<END
#!/bin/bash
for dir in dev proc sys run; do
	mount --move /\$dir $root/\$dir
done
exec busybox switch_root $root /sbin/init
END
chmod +x /run/next-init
