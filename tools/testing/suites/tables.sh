#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# Tables of any shape: drr on parts of a device, several times in one, beside other targets, replaced
# before they are active and refused, with I/O at all of their edges. SEED= repeats a run, COUNT= is the
# number of tables.
# SHORT: uml

# shellcheck source=tools/testing/lib.sh
. "${0%/*}/../lib.sh"

TORTURE=${0%/*}/../bin/drr-torture
SEED=${SEED:-$((SRANDOM))}
COUNT=${COUNT:-100}

# tables MIB: on two thin devices of that size, which share what a third has in its page cache.
tables() {
	local donor name before
	pool_up 256
	on_exit all_down
	random_file image "$1M"
	thin_new base "$1"
	dd if="$REF/image" of=/dev/mapper/t-base bs=1M oflag=direct status=none
	for name in donor one two; do
		thin_snap $name base
	done
	drr_new donor
	exec {donor}</dev/mapper/donor
	cat <&"$donor" >/dev/null
	dmsetup create shape --table "0 8 zero"
	say "seed $SEED" >&3
	"$TORTURE" tables "$SEED" "$COUNT" shape /dev/mapper/t-one /dev/mapper/t-two >&3 ||
		flunk "not as it should be, SEED=$SEED"
	dm_remove shape
	exec {donor}<&-
	expect_drr "sectors that the donor gave" "$(stat_of donor donated_sectors)" 1..
}

exec 3>&1
run_case "any shape" tables 4
finish
