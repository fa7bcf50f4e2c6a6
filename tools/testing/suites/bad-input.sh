#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# More than 100,000 bad table lines and messages (tools/testing/helper/drr-bad-input.c), from
# two CPUs at once: only errors, no splat, no leak. SEED= repeats a run.
#
# VM: --append log_buf_len=16M

# shellcheck source=tools/testing/lib.sh
. "${0%/*}/../lib.sh"

SECTORS=$((64 << 11))
BAD_INPUT=${0%/*}/../bin/drr-bad-input
# Each of the two CPUs does so many rounds of so many requests of each kind.
ROUNDS=${ROUNDS:-4}
TABLES=${TABLES:-3000}
MESSAGES=${MESSAGES:-9500}
SEED=${SEED:-$((SRANDOM))}
TROUBLE='Kernel panic|BUG|WARNING|Oops|INFO: |general protection|UBSAN|allocation failure|Call Trace'

# What must be as before: devices, who has them open, who uses the modules, what is on record.
footprint() {
	dmsetup info -c --noheadings -o name,open,tables_loaded --sort name
	grep -E '^dm_(thin_pool|drr) ' /proc/modules | cut -d ' ' -f 1-4
	dmsetup status good | grep -oE '(records|tracked_pages|table_bytes)=[0-9]*'
}

# The slab caches with their objects in use; those that were freed and are kept for each CPU count,
# too, and go first.
slabs() {
	local cache
	for cache in /sys/kernel/slab/*/shrink; do
		[ ! -w "$cache" ] || echo 1 >"$cache"
	done
	awk '!/^(#|slabinfo)/ { print $1, $2 }' /proc/slabinfo
}

# KiB of memory that no cache holds.
free_kib() {
	echo 3 >/proc/sys/vm/drop_caches
	awk '$1 == "MemFree:" { print $2 }' /proc/meminfo
}

# grown REQUESTS: GROWN are the slab caches in which something of every 20 requests is left since
# $WORK/before was written, one a line. What is freed after a grace period is not. Both times nothing
# runs beside this shell, whose forks take hundreds of objects, too.
grown() {
	local tries
	for ((tries = 0; tries < 15; tries++)); do
		slabs >"$WORK/after"
		GROWN=$(join <(sort "$WORK/before") <(sort "$WORK/after") |
			awk -v most=$(($1 / 20)) '$3 - $2 > most { print $1, $2, "->", $3 }')
		[ -n "$GROWN" ] || return 0
		sleep 1
	done
}

# Looks through the kernel log and empties it. The console shows neither errors nor warnings
# meanwhile: it is too slow for so many.
look_at_log() {
	local log=$WORK/kernel.log
	dmesg >"$log"
	dmesg -C
	! grep -E "$TROUBLE" "$log" || flunk "the kernel said: $(grep -E -A 30 "$TROUBLE" "$log")"
	LOGGED=$((LOGGED + $(wc -l <"$log")))
	rm "$log"
}

# both KIND COUNT [THIN]: the two CPUs at once, with seeds and devices of their own.
both() {
	local kind=$1 count=$2 first
	shift 2
	SEED=$((SEED + 2))
	say "$kind: seeds $SEED, $((SEED + 1))" >&3
	"$BAD_INPUT" "$kind" "$SEED" "$count" "$@" good >"$WORK/figures.1" &
	first=$!
	"$BAD_INPUT" "$kind" $((SEED + 1)) "$count" "$@" other >"$WORK/figures.2" ||
		flunk "$kind, seed $((SEED + 1)): $(<"$WORK/figures.2")"
	wait "$first" || flunk "$kind, seed $SEED: $(<"$WORK/figures.1")"
	cat "$WORK/figures.1" "$WORK/figures.2" | sed 's/^/# /' >&3
}

# some_rounds KIND COUNT ROUNDS [THIN]: GROWN are the slab caches that grew.
some_rounds() {
	local kind=$1 count=$2 rounds=$3 round start=$SECONDS
	shift 3
	slabs >"$WORK/before"
	for ((round = 0; round < rounds; round++)); do
		both "$kind" "$count" "$@"
		look_at_log
	done
	say "$kind: $((2 * count * rounds)) in $((SECONDS - start)) s, $LOGGED lines in the log" >&3
	[ -e /sys/kernel/debug/kmemleak ] || grown $((2 * count * rounds))
}

# rounds KIND COUNT ROUNDS [THIN]: the first, shorter one, makes what is made only once; the
# others must leave nothing behind. The kernel's own caches grow, too, now and then, but the same one
# doesn't do so again, as it does with a leak.
rounds() {
	local kind=$1 count=$2 before free LOGGED=0 GROWN="" once
	both "$kind" $((count / 4)) "${@:4}"
	look_at_log
	before=$(footprint)
	free=$(free_kib)
	some_rounds "$@"
	if [ -n "$GROWN" ]; then
		say "$kind: once more, since these have grown: ${GROWN//$'\n'/, }" >&3
		once=$GROWN
		some_rounds "$@"
		GROWN=$(join <(sort <<<"$once") <(sort <<<"$GROWN"))
		[ -z "$GROWN" ] || flunk "slab caches have grown, twice: $GROWN"
	fi
	[ "$(footprint)" = "$before" ] || flunk "left behind: $(diff <(echo "$before") <(footprint))"
	if [ -e /sys/kernel/debug/kmemleak ]; then
		say "$kind: memory is not compared: KASAN keeps what was freed, kmemleak looks for leaks" >&3
	else
		# what goes back late, and is kept for each CPU, makes up to 15 MiB
		expect "memory gone (KiB)" "$((free - $(free_kib)))" "-999999..40000"
	fi
	expect "kernel taint" "$(</proc/sys/kernel/tainted)" "$TAINT"
}

bad_tables() {
	rounds tables "$TABLES" "$ROUNDS" /dev/mapper/t-thin
}

# Without an effect: not even on the figures.
bad_messages() {
	local before
	dd if=/dev/mapper/good of=/dev/null bs=64k count=4 iflag=direct status=none
	before=$(dmsetup status good)
	rounds bad-messages "$MESSAGES" "$ROUNDS"
	[ "$(dmsetup status good)" = "$before" ] ||
		flunk "bad messages changed the status: $before, now $(dmsetup status good)"
}

all_messages() {
	rounds messages "$TABLES" 1
	expect "reads" "$(stat_of good reads)" 0
}

# Lines that are long, for memory that may have to be contiguous.
many_words() {
	local words LOGGED=0
	for words in 1000 30000 200000 300000; do
		"$BAD_INPUT" many-words $words /dev/mapper/t-thin good
		look_at_log
	done
	expect "kernel taint" "$(</proc/sys/kernel/tainted)" "$TAINT"
}

[ "$DRR" = drr ] || { say "these are about drr"; finish; exit; }
pool_up 128
thin_new thin 64
modprobe dm-drr
for name in good other; do
	dmsetup create $name --table "0 $SECTORS drr /dev/mapper/t-thin"
done
dmesg -n 2
TAINT=$(</proc/sys/kernel/tainted)
exec 3>&1
say "seed $SEED"
run_case "table lines" bad_tables
run_case "messages" bad_messages
run_case "messages, good ones among them" all_messages
run_case "many words" many_words
dmesg -n 7
run_case "nothing is remembered after unmount" all_down
finish
