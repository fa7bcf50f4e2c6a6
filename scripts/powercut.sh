#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# Cuts the power of a guest under load, again and again. After each cut the guest boots from
# the same disks, and must find its file systems and its pool clean, and every file as it was
# when its last fsync returned. Documentation/testing/faults.rst says what is simulated.
#
# usage: powercut.sh [N]	so many cuts (5)
#   SEED=NUMBER in the environment: moments of the cuts, and what is written (random)
#   DRR=none	dm-linear in drr's place: the same without drr, for comparison
#   KERNEL=debug	another kernel, as for vm.sh

set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

rounds=${1:-5}
[[ $rounds =~ ^[1-9][0-9]*$ ]] || die "powercut.sh: bad number of cuts '$rounds' : give one, e.g. 5"
seed=${SEED:-$((RANDOM * 32768 + RANDOM))}
drr=${DRR:-drr}
RANDOM=$((seed % 32768))
name=powercut-$drr
work=$DRR_TOP/build/$name
out=$DRR_TOP/build/out/$name
vm=

# shellcheck disable=SC2317 # called by the trap
clean_up() {
	[[ -z $vm ]] || kill "$vm" 2>/dev/null || true
}
trap clean_up EXIT

# Boots round $1, its output in the background.
boot() {
	rm -rf "$out"
	"$DRR_TOP/scripts/vm.sh" --kernel "${KERNEL:-debian}" --name "$name" --no-leak-scan \
		--kill-after 3600 --disk-file "$work/data" --disk-file "$work/meta" \
		--disk-file "$work/log" -- /usr/bin/env "DRR=$drr" \
		/drr/faults/powercut-guest.sh "$1" "$seed" "$rounds" >"$work/round$1.log" 2>&1 &
	vm=$!
}

# The machine of our vm.sh: the only child of its timeout.
machine() {
	local child
	for child in $(pgrep -P "$vm"); do
		[[ $(<"/proc/$child/comm") != timeout ]] || pgrep -P "$child"
	done
}

# Waits until the guest has said $1; fails if it ends before.
wait_for_line() {
	until grep -qs "$1" "$out/output.log"; do
		[[ -e /proc/$vm ]] || return 1
		sleep 0.2
	done
}

fail() {
	tail -n 30 "$work/round$1.log" | sed 's/^/  | /' >&2
	die "powercut: round $1, SEED=$seed: $2 : see $work and $out"
}

need_root
rm -rf "$work"
mkdir -p "$work"
truncate -s 1G "$work/data"
truncate -s 64M "$work/meta"
truncate -s 1M "$work/log"
echo "power cuts: $rounds, SEED=$seed, DRR=$drr"
start=$SECONDS
for ((round = 0; round < rounds; round++)); do
	boot "$round"
	wait_for_line "^load begins" || fail "$round" "the guest failed"
	wait_for_line "^durable [0-9]* 1$" || fail "$round" "the load failed"
	tenths=$((RANDOM % 80))
	sleep "$((tenths / 10)).$((tenths % 10))"
	pid=$(machine)
	[[ $pid ]] || fail "$round" "the guest ended by itself"
	kill -KILL "$pid"
	wait "$vm" || fail "$round" "the guest failed"
	vm=
	! grep -qa '^FAILED\|^WRONG' "$out/output.log" || fail "$round" "wrong data"
	# not a last line that is cut short
	head -n "$(wc -l <"$out/output.log")" "$out/output.log" | grep -a '^durable ' >"$work/log.txt"
	cp "$work/log.txt" "$work/log"
	truncate -s 1M "$work/log"
	printf 'cut %d after %d.%d s of load, %d steps durable\n' $((round + 1)) \
		$((tenths / 10)) $((tenths % 10)) "$(wc -l <"$work/log.txt")"
done
boot "$rounds"
wait "$vm" || fail "$rounds" "the guest failed"
vm=
grep -q "^round $rounds: all is there" "$work/round$rounds.log" || fail "$rounds" "not checked"
echo "powercut: $rounds cuts, nothing lost, $((SECONDS - start)) s"
