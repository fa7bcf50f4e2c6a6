#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# Tests the module's pure sources in user space (tools/host): their own cases, input by chance,
# many threads, and with loom every order of a few threads' operations; the vectors of the digests,
# by Python's own arithmetic; and the programs' own tests. Ends with the line "N passed, N failed".
#
# usage: host.sh [tests|models]...	without arguments both

set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

log=$DRR_TOP/build/out/host.log
mkdir -p "${log%/*}"
: >"$log"
rc=0

# The vectors stand in drr/access/digest.rs, whose own test compares them with the function.
check_vectors() {
	if nice "$DRR_TOP/scripts/toolbox.sh" -- \
		python3 "$DRR_TOP/tools/host/digest-vectors.py" --check; then
		echo "ok - host: the digests' vectors are what Python works out"
	else
		echo "not ok - host: the digests' vectors are what Python works out"
		return 1
	fi
}

run_tests() {
	local rc=0
	check_vectors || rc=1
	"$DRR_TOP/scripts/cargo.sh" test --locked --release \
		-p drr-host-dm -p drr-host -p drr-dm -p drr-torture -p drrctl || rc=1
	return $rc
}

for part in "${@:-tests models}"; do
	for kind in $part; do
		echo "# host: $kind"
		case $kind in
		tests) run_tests ;;
		# loom's atomics are another build; optimised, as there are many runs
		models) RUSTFLAGS="--cfg loom" "$DRR_TOP/scripts/cargo.sh" test --locked --release \
			--target-dir "$DRR_TOP/build/cargo/loom" -p drr-host-dm -p drr-host ;;
		*) die "host.sh: unknown part '$kind' : use tests or models" ;;
		esac 2>&1 | tee -a "$log" || rc=1
	done
done

passed=0 failed=0
while read -r good bad; do
	((passed += good, failed += bad)) || true
done < <(sed -n -e 's/^test result: .* \([0-9]*\) passed; \([0-9]*\) failed;.*/\1 \2/p' \
	-e 's/^ok - .*/1 0/p' -e 's/^not ok - .*/0 1/p' "$log")
# what doesn't build, or ends early, has no result line
((!rc || failed)) || failed=1
echo "$passed passed, $failed failed"
((!failed))
