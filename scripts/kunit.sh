#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# Runs the KUnit suites of dm-drr.ko under User-mode Linux: they run when the module is
# loaded, and report as KTAP in the kernel log. One line for each test, then the sum.

set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

out=$DRR_TOP/build/out/kunit$DRR_SUFFIX
rc=0
"$DRR_TOP/scripts/vm.sh" --kernel uml --mem 512M --timeout 120 --name "kunit$DRR_SUFFIX" \
	--append "kunit.enable=1 kunit.autorun=1" -- /drr/guest/kunit || rc=$?

# A suite is "# Subtest: NAME", its plan "1..N", and results; all indented by four. Tests
# with parameters are nested deeper and have a result of their own at this level. The
# kernel's own suites ran before the guest said that it loads the module.
awk -v rc="$rc" '
	{ sub(/^\[ *[0-9.]+\](\[[^]]*\])? /, "") }
	/^drr-kunit: loading/ { ours = 1 }
	!ours { next }
	/^1\.\.[0-9]+$/ { split($1, range, "."); planned = range[3]; next }
	/^    # Subtest: / { suite = $3; plan = -1; seen = 0; suites++; next }
	/^    1\.\.[0-9]+$/ && suite { split($1, range, "."); plan = range[3]; next }
	/^    (not )?ok [0-9]+ / && suite {
		bad = $1 == "not"
		name = bad ? $4 : $3
		skipped = /# SKIP/
		if (bad) failed++; else if (!skipped) passed++
		seen++
		printf "%s - kunit: %s: %s%s\n", bad ? "not ok" : "ok", suite, name,
			skipped ? " # SKIP" : ""
		next
	}
	/^(not )?ok [0-9]+ / && suite {
		if (plan != seen) {
			printf "not ok - kunit: %s: %d of %d tests reported\n", suite, seen, plan
			failed++
		}
		suite = ""
		next
	}
	END {
		if (suites && suites != planned) {
			printf "not ok - kunit: %d of %d suites reported\n", suites, planned
			failed++
		}
		if (!suites) {
			print "not ok - kunit: no KTAP in the kernel log"
			failed++
		} else if (suite) {
			printf "not ok - kunit: %s did not end\n", suite
			failed++
		}
		if (rc && !failed) {
			print "not ok - kunit: the run as a whole"
			failed++
		}
		printf "kunit: %d passed, %d failed\n", passed, failed
		exit failed > 0
	}
' "$out/console.log"
