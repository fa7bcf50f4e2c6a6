# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=bash
# Counts what suites report in the Test Anything Protocol. To be sourced.

passed=0 failed=0 skipped=0

# Adds up the TAP lines of a file. A plan that isn't kept, or a failure that no TAP line
# tells of, counts as one failed test.
# $1: suite, $2: its exit status, $3: file
count_tap() {
	local suite=$1 rc=$2 file=$3 good bad skip plan
	touch "$file"
	bad=$(grep -c '^not ok ' "$file") || true
	skip=$(grep -ciE '^ok .*# SKIP' "$file") || true
	good=$(($(grep -c '^ok ' "$file" || true) - skip))
	plan=$(sed -n 's/^1\.\.\([0-9]*\)$/\1/p' "$file" | tail -n 1)
	if [[ $plan != $((good + bad + skip)) ]]; then
		echo "not ok - $suite: $((good + bad + skip)) of ${plan:-unknown} cases reported"
		((++bad))
	elif ((rc && !bad)); then
		echo "not ok - $suite: the run as a whole"
		((++bad))
	fi
	((passed += good, failed += bad, skipped += skip)) || true
}

# The last lines of a run, and its exit status.
sum_up() {
	((!skipped)) || echo "$skipped skipped"
	echo "$passed passed, $failed failed"
	((!failed))
}
