#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# Secure Boot on a machine that doesn't know the key of the installed modules: they are rejected, and
# all else is as without DRR. Run by scripts/deb-test.sh, like guest.sh.

# shellcheck source=tools/testing/lib.sh
. "${0%/*}/../lib.sh"
# shellcheck source=tools/testing/root.sh
. "${0%/*}/../root.sh"

secure_boot() {
	dmesg | grep -i 'secure boot enabled'
	dmesg | grep 'Kernel is locked down'
}

rejects() {
	local module
	for module in dm-drr dm-thin-hooks; do
		expect_fail modprobe "$module" 2>"$WORK/err"
		grep -q 'Key was rejected' "$WORK/err" || flunk "$(<"$WORK/err")"
	done
	[ ! -e /sys/module/dm_drr ] || flunk "dm-drr is loaded"
}

# Made, snapshotted, written and read.
pools_work() {
	pool_up 256
	image_new ext4 base 64
	thin_snap a base
	fs_mount ext4 a /dev/mapper/t-a
	cmp /mnt/a/file "$REF/file"
	cp "$REF/file" /mnt/a/own
	sync
	evict /mnt/a/own
	cmp /mnt/a/own "$REF/file"
}

tables_are_refused() {
	thin_snap b base
	expect_fail dmsetup create b --table "0 $(thin_sectors b) drr /dev/mapper/t-b"
	expect_fail in_root drrctl attach t-b
	[[ $(dmsetup table t-b) == *" thin "* ]] || flunk "$(dmsetup table t-b)"
	all_down
}

doctor_says_why() {
	mount -t securityfs securityfs /sys/kernel/security
	expect_fail in_root drrctl doctor >"$WORK/doctor"
	cat "$WORK/doctor"
	grep -q "^fail *signature .*DKMS module signing key.*the key isn't enrolled : mokutil --import" "$WORK/doctor" ||
		flunk "not a word of the key"
}

root_up
use_its_modules
random_file file 1M
run_case "Secure Boot is on" secure_boot
run_case "modules with an unknown key are rejected" rejects
run_case "drrctl doctor says why" doctor_says_why
run_case "pools work" pools_work
run_case "DRR is refused, and changes nothing" tables_are_refused
finish
