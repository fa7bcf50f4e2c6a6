#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# The packages are installed, used and purged on a Debian that is at work: pools are active, snapshots mounted,
# and a program writes all the time, which notices nothing. DKMS builds the modules meanwhile. Run by boot.sh.

# shellcheck source=tools/testing/lib.sh
. "${0%/*}/../lib.sh"
# shellcheck source=tools/testing/attaching.sh
. "${0%/*}/../attaching.sh"

POOL_MODULE=/sys/module/dm_thin_pool
export DEBIAN_FRONTEND=noninteractive

# Writes files with their checksums, and reads them all back, until it is told to end.
writer() {
	local turn=0 i
	trap 'exit 0' TERM
	while :; do
		i=$((turn++ % 8))
		head -c 1M /dev/urandom >"$WORK/next"
		cp "$WORK/next" "/mnt/t-a/$i"
		(cd "$WORK" && sha256sum next) | sed "s/next/$i/" >"$WORK/sum.$i"
		sync -f "/mnt/t-a/$i"
		echo 1 >/proc/sys/vm/drop_caches
		(cd /mnt/t-a && cat "$WORK"/sum.? | sha256sum --quiet -c -)
		echo "$turn" >"$WORK/turns"
	done
}

# A module that is loaded again has another folder.
pool_module() { stat -c %i $POOL_MODULE; }

# all_well: the writer goes on, and dm-thin-pool has never been gone.
all_well() {
	local turns
	turns=$(<"$WORK/turns")
	kill -0 "$WRITER" || flunk "the writer has ended: $(<"$WORK/writer.log")"
	wait_for 120 further "$turns"
	expect "inode of dm-thin-pool's folder" "$(pool_module)" "$MODULE"
	[[ $(modinfo -n dm-thin-pool) == */kernel/drivers/md/* ]] || flunk "dm-thin-pool is $(modinfo -n dm-thin-pool)"
}

further() { (($(<"$WORK/turns") > $1 + 1)); }

installs() {
	apt-get -y --no-install-recommends install /srv/*.deb
	dkms status
	[ ! -e /sys/module/dm_drr ] || flunk "dm-drr is loaded by its installation"
	for module in dm-drr dm-thin-hooks; do
		[[ $(modinfo -n $module) == */updates/dkms/* ]] || flunk "$module is $(modinfo -n $module)"
	done
	all_well
}

attaches() {
	local name
	for name in t-a t-b t-c; do
		drrctl attach $name
	done
	mkdir -p /mnt/t-c
	mount -o ro /dev/mapper/t-c /mnt/t-c
	all_well
}

# What b has read before the snapshots were attached is no record; what it reads now is.
reads() {
	echo 1 >/proc/sys/vm/drop_caches
	cmp /mnt/t-b/file "$REF/file"
	cmp /mnt/t-c/file "$REF/file"
	expect "sectors served to c" "$(stat_of t-c hit_sectors)" 1..
	all_well
}

detaches() {
	local name
	for name in t-a t-b t-c; do
		drrctl detach $name
		[ "$(target_of $name)" = thin ] || flunk "$(dmsetup table $name)"
	done
	wait_for 60 seconds_are 0
	all_well
}

purges() {
	local module
	apt-get -y purge dm-drr-dkms drrctl
	for module in dm_drr dm_thin_hooks; do
		[ ! -e /sys/module/$module ] || flunk "$module is still loaded"
	done
	expect_fail modinfo dm-drr
	[ ! -e "/lib/modules/$(uname -r)/updates/dkms" ] || [ ! "$(ls -A "/lib/modules/$(uname -r)/updates/dkms")" ] ||
		flunk "$(ls -l "/lib/modules/$(uname -r)/updates/dkms")"
	! grep dm_thin_pool /sys/kernel/tracing/enabled_functions || flunk "hooks are left"
	all_well
}

# udev is there, and whoever uses device-mapper is to wait for it
unset DM_DISABLE_UDEV
mkdir -p /mnt/t-a /mnt/t-b
random_file file 4M
pool_up 512
thin_new base 128
mkfs.ext4 -q -b 4096 /dev/mapper/t-base
mount /dev/mapper/t-base /mnt/t-a
cp "$REF/file" /mnt/t-a/
umount /mnt/t-a
for name in a b c; do
	thin_snap $name base
done
mount /dev/mapper/t-a /mnt/t-a
mount -o ro /dev/mapper/t-b /mnt/t-b
MODULE=$(pool_module)
echo 0 >"$WORK/turns"
writer >"$WORK/writer.log" 2>&1 &
WRITER=$!
run_case "packages are installed while a writer is busy" installs
run_case "DRR is attached to devices in use" attaches
run_case "a sibling is served" reads
run_case "DRR is detached" detaches
run_case "packages are purged" purges
kill $WRITER
wait $WRITER
finish
