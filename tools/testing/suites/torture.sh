#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# VM: --mem 2G
#
# A short run of the torture on each kind of file system, with a pool that doesn't fail;
# `make torture` is the long one.

# shellcheck source=tools/testing/lib.sh
. "${0%/*}/../lib.sh"

TORTURE=${0%/*}/../bin/drr-torture
SEED=${SEED:-1}

# torture FILE_SYSTEM
torture() {
	local target=drr json=$WORK/$1.json
	[ "$FAILED" -eq 0 ] || skip "the one that failed has left its devices, to be looked at"
	[ "$DRR" = drr ] || target=linear
	"$TORTURE" --fs "$1" --time 25 --round 60 --seed "$SEED" --target $target --no-faults \
		--output "$json" || {
		dmesg | tail -n 20
		flunk "the torture failed; see above, SEED=$SEED"
	}
	expect "wrong" "$(jq .wrong "$json")" 0
	expect "pages verified" "$(jq .verified "$json")" 1000..
	expect_drr "pages served by drr" "$(jq .served_by_drr "$json")" 1..
}

for fs in ext4-4k-ordered xfs-4k ext4-1k-ordered; do
	run_case "$fs: every byte is right" torture $fs
	[ ! -e "$WORK/$fs.json" ] || say "$fs: $(jq -r '"pages verified: \(.verified), served by drr: \(.served_by_drr), wrong: \(.wrong)"' "$WORK/$fs.json")"
done
finish
