#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# The target of samples/ in dm-linear's place: what other suites read and write through it is right, and tables that
# are wrong are refused.

# shellcheck source=tools/testing/lib.sh
. "${0%/*}/../lib.sh"

# as_linear SUITE: runs all cases of a suite that mean something without drr.
as_linear() {
	DRR=none LINEAR=passthrough "${0%/*}/$1.sh"
	[ "$(dmsetup ls --target passthrough)" = "No devices found" ] || flunk "a device is left over"
}

# refused TABLE
refused() {
	! dmsetup create refused --table "$1" || flunk "accepted: $1"
}

wrong_tables() {
	local thin=/dev/mapper/t-thin
	pool_up 64
	on_exit all_down
	thin_new thin 4
	refused "0 8 passthrough"
	refused "0 8 passthrough /dev/nothing 0"
	refused "0 8 passthrough $thin"
	refused "0 8 passthrough $thin x"
	refused "0 8 passthrough $thin -1"
	refused "0 8 passthrough $thin 18446744073709551616"
	refused "0 8 passthrough $thin 0 0"
	refused "0 8 passthrough $thin 8185"
	refused "0 8 passthrough $thin 18446744073709551612"
	dmsetup create right --table "0 8 passthrough $thin 8184"
	[[ $(dmsetup table right) = "0 8 passthrough "*" 8184" ]] || flunk "$(dmsetup table right)"
	dm_remove right
}

modprobe dm-passthrough
run_case "reads" as_linear reads
run_case "writes" as_linear writes
run_case "wrong tables" wrong_tables
finish
