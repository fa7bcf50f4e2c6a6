#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# Shows that each guard of the record invariant is needed, and that a test notices when
# it is gone: switches the guards off one by one, in a test build, and runs the tests
# that ought to fail. Writes build/mutants/result.json.
#
# usage: mutants.sh [GUARD]...	without arguments all; names as in rust/guard.rs

set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

scripts=$DRR_TOP/scripts
out=$DRR_TOP/build/mutants

# guard, its number in rust/guard.rs, then "suite:words of the cases' names", any of
# which may catch it. Without a test the guard counts as untested.
mutants() {
	cat <<-'EOF'
	RemovalHook	0	device-events:O_DIRECT write	page-events:rename over	page-events:collapse
	DirtyHook	1	page-events:write, written back
	DirtyFolio	2	page-events:page read into a dirty folio
	Recheck	3	races:sibling reads during	races:mixed load
	InvalidateLock	4	page-events:hole punch stopped midway
	BlockSize	5	filesystems:1 KiB blocks
	FileSize	6	page-events:truncate down, then up	reads:file size
	FileSystem	7	guards:ext2
	Encrypted	8	filesystems:fscrypt
	ClaimedDevice	9	guards:raw reads of a mounted device
	DirectlyMounted	10	device-events:dm-crypt above
	Epoch	11
	Binding	12
	Reallocation	13	block-reuse:
	Teardown	14	device-events:donor removed by force
	ReadError	15	guards:failed reads
	Pinned	16
	Shared	17	reads:unshared blocks
	EOF
}

wanted() {
	local name
	((${#only[@]})) || return 0
	for name in "${only[@]}"; do
		[[ $name != "$1" ]] || return 0
	done
	return 1
}

# Runs a suite's cases with a guard off; succeeds if one of them fails, not if the suite
# or the guest ends in another way.
# $1: guard, $2: number, $3: suite:words
catches() {
	local suite=${3%%:*} words=${3#*:} options log=$out/$1.log
	read -r -a options < <(sed -n 's/^# VM: //p' "$DRR_TOP/tools/testing/suites/$suite.sh")
	MUTANTS=1 "$scripts/vm.sh" --name "mutant-$1" --timeout 240 "${options[@]}" \
		--append "dm_drr.guards_off=$((1 << $2))" -- \
		/usr/bin/env "ONLY=$words" "/drr/suites/$suite.sh" >"$log" 2>&1 || true
	caught_by=$(sed -n 's/^not ok [0-9]* - \(.*\) # time=.*/\1/p' "$log" | head -n 1)
	[[ $caught_by ]]
}

only=("$@")
mkdir -p "$out"
MUTANTS=1 "$scripts/modules.sh" debian >/dev/null
caught=0 missed=0 untested=0
rows=()
while IFS=$'\t' read -r guard number tests; do
	wanted "$guard" || continue
	IFS=$'\t' read -r -a tests <<<"$tests"
	start=$SECONDS
	caught_by=
	for words in "${tests[@]}"; do
		catches "$guard" "$number" "$words" && break
	done
	took=$((SECONDS - start))
	if ((${#tests[@]} == 0)); then
		printf 'no test %-16s\n' "$guard"
		((++untested))
	elif [[ $caught_by ]]; then
		printf 'caught  %-16s %4d s  %s\n' "$guard" "$took" "$caught_by"
		((++caught))
	else
		printf 'MISSED  %-16s %4d s  %s\n' "$guard" "$took" "$out/$guard.log"
		((++missed))
	fi
	rows+=("$(printf '{"guard": "%s", "caught": %s, "by": "%s", "seconds": %d}' "$guard" \
		"$([[ $caught_by ]] && echo true || echo false)" "$caught_by" "$took")")
done < <(mutants)
((${#rows[@]})) || die "mutants.sh: no such guard : the names are in rust/guard.rs"

{
	echo '['
	for i in "${!rows[@]}"; do
		echo "  ${rows[i]}$([[ $((i + 1)) = "${#rows[@]}" ]] || echo ,)"
	done
	echo ']'
} >"$out/result.json"
printf '%d caught, %d missed, %d without a test\n' "$caught" "$missed" "$untested"
((missed == 0))
