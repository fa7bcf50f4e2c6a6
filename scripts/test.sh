#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# Runs all tests: KUnit under User-mode Linux, then each guest suite in a boot of its
# own. Ends with the line "N passed, N failed".
#
# usage: test.sh [SUITE]...	without arguments all; "kunit" is one of them, and so is, where it
#				is named, "torture-long": scripts/torture.sh, TIME=600 SEED=1
#   KERNEL=debug or kcsan in the environment: guests run that kernel, not Debian's
#
# A suite is a script in tools/testing/suites that prints TAP. A line of it that starts
# with "# VM: " has options for vm.sh; with "# BUILD: mutants" it takes the build that can
# hold threads up (rust/hold.rs), all guards on; with "# KERNEL: " and a name it only makes
# sense with that kernel, and otherwise runs only when it is named.

set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
# shellcheck source=scripts/tap.sh
. "$DRR_TOP/scripts/tap.sh"

scripts=$DRR_TOP/scripts
kernel=${KERNEL:-debian}
case $kernel in
debian) timeout=1200 ;;
debug | kcsan) timeout=5400 ;;
*) die "no kernel '$kernel' for the guest suites : use KERNEL=debian, debug or kcsan" ;;
esac

run_kunit() {
	local log=$DRR_TOP/build/out/kunit.log good=0 bad=1
	mkdir -p "$DRR_TOP/build/out"
	"$scripts/kunit.sh" | tee "$log" || true
	# without a sum it ended early: one failure
	read -r good bad < <(sed -n 's/^kunit: \([0-9]*\) passed, \([0-9]*\) failed$/\1 \2/p' "$log"
		echo 0 1)
	((passed += good, failed += bad)) || true
}

run_long_torture() {
	if KERNEL=$kernel "$scripts/torture.sh"; then
		echo "ok - torture-long"
		((++passed))
	else
		echo "not ok - torture-long"
		((++failed))
	fi
}

run_suite() {
	local suite=$1 file=$DRR_TOP/tools/testing/suites/$1.sh rc=0 options build
	local name=$suite
	[[ $kernel = debian ]] || name=$suite-$kernel
	[[ -e $file ]] || die "no test suite '$suite' : use kunit or one of tools/testing/suites"
	read -r -a options < <(sed -n 's/^# VM: //p' "$file") || true
	build=$(sed -n 's/^# BUILD: mutants$/1/p' "$file")
	MUTANTS=$build "$scripts/vm.sh" --kernel "$kernel" --timeout "$timeout" --name "$name" \
		"${options[@]}" -- "/drr/suites/$suite.sh" || rc=$?
	count_tap "$suite" "$rc" "$DRR_TOP/build/out/$name/output.log"
}

suites=("$@")
if ((!$#)); then
	suites=(kunit)
	for file in "$DRR_TOP"/tools/testing/suites/*.sh; do
		[[ -e $file ]] || continue
		only=$(sed -n 's/^# KERNEL: //p' "$file")
		[[ $only && $only != "$kernel" ]] || suites+=("$(basename "$file" .sh)")
	done
fi

# Set-up comes first: what fails there is no test result.
need_root
kinds=()
[[ " ${suites[*]} " != *" kunit "* ]] || kinds+=(uml)
[[ ${suites[*]} = kunit ]] || kinds+=("$kernel")
for kind in "${kinds[@]}"; do
	"$scripts/guest-image.sh" "$kind" >/dev/null
done

for suite in "${suites[@]}"; do
	echo "# $suite"
	case $suite in
	kunit) run_kunit ;;
	torture-long) run_long_torture ;;
	*) run_suite "$suite" ;;
	esac
done
sum_up
