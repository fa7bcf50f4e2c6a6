#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# Runs suites of tests: KUnit under User-mode Linux, then each guest suite in a boot of its own.
# Says how many seconds each took, and keeps these in build/out/times. Ends with the line
# "N passed, N failed".
#
# usage: test.sh [SUITE[@KERNEL]]...	without arguments the short list, which CI runs; "all" stands for
#				every suite; "kunit" is one of them, and so is, where it is named,
#				"torture-long": scripts/torture.sh, TIME=600 SEED=1. @uml runs a suite
#				under User-mode Linux.
#   KERNEL=debug or kcsan in the environment: guests run that kernel, not Debian's, and without
#   arguments all suites; KERNEL=amd64: another flavour of Debian's; arm64 or
#   arm64-16k: Debian's for arm64, where the short list runs no suite @uml but kunit
#   PROVIDER=patched in the environment: Debian's guests run a patched dm-thin-pool, not its own with
#   dm-thin-hooks (thin/)
#   DRR_KERNEL=7.2 in the environment: another series of kernels; their output ends in -7.2
#   SHARE=1/2 in the environment: of the list, the core and one of two parts of the rest
#   DEADLINE in the environment, in seconds since 1970: a suite that hasn't begun by then is left out, and
#   named; one of the core counts as a failure
#
# A suite is a script in tools/testing/suites that prints TAP. A line of it that starts
# with "# VM: " has options for vm.sh; with "# BUILD: mutants" it takes the build that can
# hold threads up (rust/drr/hold_point.rs), all guards on; with "# KERNEL: " and a name it only makes
# sense with that kernel, and otherwise runs only when it is named; with "# SHORT: uml" it runs
# under User-mode Linux in the short list, where it is much faster and skips little.

set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
# shellcheck source=scripts/tap.sh
. "$DRR_TOP/scripts/tap.sh"
# shellcheck source=scripts/times.sh
. "$DRR_TOP/scripts/times.sh"

# The short list is every suite but these, which hardly ever find what no other suite does. `make test-all`
# runs them among all others, `make test SUITES="bad-input documents"` runs only them.
campaigns=(
	bad-input	# 100,000 tables and messages; errors has one of each kind, make host-test parses more
	documents	# commands of the documents; of use when a document or a command changes
)

# What every SHARE of a list has, and begins with: between them these go through every rule of the design.
core=(kunit reads snapshots writes guards births names fault-pool watch drrctl security)

in_core() { [[ " ${core[*]} " = *" ${1%@*} "* ]]; }

scripts=$DRR_TOP/scripts
kernel=${KERNEL:-debian}
case $kernel in
debian) timeout=1200 ;;
debug | kcsan | arm64 | arm64-16k) timeout=5400 ;;
*)
	is_flavour "$kernel" ||
		die "no kernel '$kernel' for the guest suites : use KERNEL=debian, ${KERNEL_FLAVOURS[*]:1}," \
			"debug, kcsan, arm64 or arm64-16k"
	timeout=1200
	;;
esac
# Whether the guests' kernel is one of Debian's.
debians() { [[ $kernel != debug && $kernel != kcsan ]]; }

run_kunit() {
	local log=$DRR_TOP/build/out/kunit$DRR_SUFFIX.log good=0 bad=1
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

file_of() { echo "$DRR_TOP/tools/testing/suites/${1%@*}.sh"; }

# Prints 1 if the suite takes the build that can hold threads up.
mutants_of() { sed -n 's/^# BUILD: mutants$/1/p' "$(file_of "$1")"; }

# Prints the kernel that the suite runs with.
kernel_of() { [[ $1 = *@* ]] && echo "${1#*@}" || echo "$kernel"; }

run_suite() {
	local suite=$1 rc=0 options name=${1%@*} with
	with=$(kernel_of "$suite")
	[[ $with = debian ]] || name+=-$with
	name+=$DRR_SUFFIX
	read -r -a options < <(sed -n 's/^# VM: //p' "$(file_of "$suite")") || true
	MUTANTS=$(mutants_of "$suite") "$scripts/vm.sh" --kernel "$with" --timeout "$timeout" \
		--name "$name" "${options[@]}" -- "/drr/suites/${suite%@*}.sh" || rc=$?
	count_tap "$suite" "$rc" "$DRR_TOP/build/out/$name/output.log"
}

# The suites of a list, one a line.
# $1: short or all
list() {
	local file suite only
	echo kunit
	for file in "$DRR_TOP"/tools/testing/suites/*.sh; do
		suite=$(basename "$file" .sh)
		only=$(sed -n 's/^# KERNEL: //p' "$file")
		[[ ! $only || $only = "$kernel" ]] || continue
		[[ $1 = all ]] || ! debians || [[ " ${campaigns[*]} " != *" $suite "* ]] || continue
		[[ $1 = all || $kernel = arm64* ]] || ! debians || suite+=$(sed -n 's/^# SHORT: /@/p' "$file")
		echo "$suite"
	done
}

suites=()
for name in "${@:-short}"; do
	case $name in
	short | all) mapfile -t -O ${#suites[@]} suites < <(list "$name") ;;
	*) suites+=("$name") ;;
	esac
done

# Keeps the core, and the share that SHARE names of the other suites.
take_share() {
	local suite i others=() first=() of=${SHARE#*/} number=${SHARE%/*}
	if [[ ! $SHARE =~ ^[1-9][0-9]?/[1-9][0-9]?$ ]] || ((number > of)); then
		die "SHARE=$SHARE : the first of two parts is SHARE=1/2, the second SHARE=2/2"
	fi
	for suite in "${suites[@]}"; do
		if in_core "$suite"; then
			first+=("$suite")
		else
			others+=("$suite")
		fi
	done
	suites=("${first[@]}")
	for ((i = number - 1; i < ${#others[@]}; i += of)); do
		suites+=("${others[i]}")
	done
}

[[ ! ${SHARE:-} ]] || take_share
[[ ! ${DEADLINE:-} || $DEADLINE =~ ^[1-9][0-9]*$ ]] ||
	die "DEADLINE=$DEADLINE : give it in seconds since 1970, e.g. as of date -d 'now + 1 hour' +%s"

# Set-up comes first: what fails there is no test result.
need_root
declare -A images=()	# "KERNEL BUILD"
for suite in "${suites[@]}"; do
	case $suite in
	kunit) images["uml "]=1 ;;
	torture-long) images["$kernel "]=1 ;;
	*)
		[[ -e $(file_of "$suite") ]] ||
			die "no test suite '$suite' : use short, all, kunit or one of tools/testing/suites"
		images["$(kernel_of "$suite") $(mutants_of "$suite")"]=1
		;;
	esac
done
for image in "${!images[@]}"; do
	MUTANTS=${image#* } "$scripts/guest-image.sh" "${image% *}" >/dev/null
done
took "set-up of the guests" $SECONDS
mkdir -p "$DRR_TOP/build/out"

late=()
for suite in "${suites[@]}"; do
	if [[ ${DEADLINE:-} ]] && ((EPOCHSECONDS >= DEADLINE)); then
		late+=("$suite")
		continue
	fi
	echo "# $suite"
	start=$SECONDS
	case $suite in
	kunit) run_kunit ;;
	torture-long) run_long_torture ;;
	*) run_suite "$suite" ;;
	esac
	took "$suite" $((SECONDS - start))
done
show_times
printf '%s\n' "${times[@]}" >"$DRR_TOP/build/out/times"
((!${#late[@]})) || echo "# not run, as the deadline came first : make test SUITES=\"${late[*]}\""
for suite in "${late[@]}"; do
	if in_core "$suite"; then
		echo "not ok - $suite: not run"
		((++failed))
	fi
done
sum_up
