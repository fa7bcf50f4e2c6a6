#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# Runs suites on each kernel series of versions.conf, with both providers of dm-thin's interface. Prints
# a table, and ends with the line "N passed, N failed".
#
# usage: test-series.sh [SUITE[@KERNEL]]...	as of test.sh; without arguments the short list

set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

passed=0 failed=0 table=()
out=$DRR_TOP/build/out/series
mkdir -p "$out"
for series in "${KERNEL_SERIES[@]}"; do
	for provider in stock patched; do
		log=$out/$series-$provider.log
		echo "# series $series, provider $provider"
		DRR_KERNEL=$series PROVIDER=$provider "$DRR_TOP/scripts/test.sh" "$@" | tee "$log" || true
		# without a sum it ended early: one failure
		read -r good bad < <(tail -n 1 "$log" | sed -n 's/^\([0-9]*\) passed, \([0-9]*\) failed$/\1 \2/p'
			echo 0 1)
		((passed += good, failed += bad)) || true
		table+=("$(printf '%-8s %-9s %5d passed %5d failed' "$series" "$provider" "$good" "$bad")")
	done
done
printf '%s\n' "${table[@]}"
echo "$passed passed, $failed failed"
((!failed))
