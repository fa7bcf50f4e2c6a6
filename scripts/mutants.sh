#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# Shows that each rule of the record invariant is needed, and that a test notices when
# it is gone: switches the rules off one by one, in a test build, and runs the tests
# that ought to fail. Writes build/mutants/result.json, and after all rules were switched
# off the table Documentation/testing/mutants.rst.
#
# usage: mutants.sh [RULE]...	without arguments all; names as in rust/drr/rule.rs
#   KERNEL=debian in the environment: in its guests, not in User-mode Linux's

set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

scripts=$DRR_TOP/scripts
out=$DRR_TOP/build/mutants
kernel=${KERNEL:-uml}

# rule, then "suite:words of the cases' names", any of which may catch it.
mutants() {
	cat <<-'EOF'
	Proof	held:page changes before it is copied	page-events:write, written back
	ProofFirst	held:unproven bytes
	Alone	births:memory that others write to
	WholePages	births:starts in the middle of a page
	Begun	names:overlap	held:mapping moves
	Quiet	names:read between
	Binding	held:table changes
	Time	held:block changes hands
	Shared	reads:unshared blocks
	Kept	guards:kept lookups
	Rollback	held:rolled back
	RemovalHook	device-events:O_DIRECT write	page-events:rename over
	Teardown	device-events:donor removed by force
	AloneBefore	held:earlier write
	AloneAfter	held:later write
	Unused	held:copies are modified
	EOF
}

# Rules as rust/drr/rule.rs has them: name, number, what it says of them.
rules() {
	awk '
		/^pub enum Rule/ { inside = 1 }
		inside && /^}/ { exit }
		inside && $1 == "///" { sub(/^ *\/\/\/ /, ""); gsub(/`/, "``"); text = text (text ? " " : "") $0 }
		inside && $2 == "=" { print $1 "\t" $3 + 0 "\t" text; text = "" }
	' "$DRR_TOP/rust/drr/rule.rs"
}

wanted() {
	local name
	((${#only[@]})) || return 0
	for name in "${only[@]}"; do
		[[ $name != "$1" ]] || return 0
	done
	return 1
}

# Runs a suite's cases with a rule off; succeeds if one of them fails, not if the suite
# or the guest ends in another way.
# $1: rule, $2: number, $3: suite:words
catches() {
	local suite=${3%%:*} words=${3#*:} options log=$out/$1.log
	read -r -a options < <(sed -n 's/^# VM: //p' "$DRR_TOP/tools/testing/suites/$suite.sh")
	MUTANTS=1 "$scripts/vm.sh" --kernel "$kernel" --name "mutant-$1" --timeout 600 "${options[@]}" \
		--append "dm_drr.rules_off=$((1 << $2))" -- \
		/usr/bin/env "ONLY=$words" "/drr/suites/$suite.sh" >"$log" 2>&1 || true
	# a wrong byte tells more than a record left over at the end
	caught_by=$(sed -n 's/^not ok [0-9]* - \(.*\) # time=.*/\1/p' "$log" |
		awk '{ print / nothing is remembered /, $0 }' | sort -sn | sed -n '1s/^[01] //p')
	[[ $caught_by ]]
}

# The table of the documentation, from rows of it.
write_table() {
	cat <<-'EOF'
	.. SPDX-License-Identifier: GPL-2.0
	.. Written by "make mutants".

	============================
	Rules, and what misses them
	============================

	Each rule of ``rust/drr/rule.rs`` was switched off in a test build, and the case that is
	named failed: a byte that was wrong, a mismatch with the disk, or a record that should
	have ended. With the rule on it passes. Seconds are those of the whole run under
	User-mode Linux, the boot included.

	.. list-table::
	   :header-rows: 1
	   :widths: 15 45 30 10

	   * - rule
	     - what it does
	     - caught by
	     - seconds
	EOF
	printf '%s\n' "$@"
}

only=("$@")
declare -A number text tests
while IFS=$'\t' read -r rule bit said; do
	number[$rule]=$bit text[$rule]=$said
done < <(rules)
while IFS=$'\t' read -r rule list; do
	[[ ${number[$rule]:-} ]] || die "mutants.sh: no rule $rule in rust/drr/rule.rs"
	tests[$rule]=$list
done < <(mutants)
for rule in "${only[@]}"; do
	[[ ${number[$rule]:-} ]] || die "mutants.sh: no rule '$rule' : use one of ${!number[*]}"
done

mkdir -p "$out"
MUTANTS=1 "$scripts/modules.sh" "$kernel" >/dev/null
caught=0 missed=0
rows=() lines=()
while IFS=$'\t' read -r rule _; do
	wanted "$rule" || continue
	IFS=$'\t' read -r -a cases <<<"${tests[$rule]:-}"
	start=$SECONDS
	caught_by=
	for words in "${cases[@]}"; do
		catches "$rule" "${number[$rule]}" "$words" && break
	done
	took=$((SECONDS - start))
	if [[ $caught_by ]]; then
		printf 'caught  %-16s %4d s  %s\n' "$rule" "$took" "$caught_by"
		((++caught))
	else
		printf 'MISSED  %-16s %4d s  %s\n' "$rule" "$took" "$out/$rule.log"
		((++missed))
	fi
	rows+=("$(printf '{"rule": "%s", "caught": %s, "by": "%s", "seconds": %d}' "$rule" \
		"$([[ $caught_by ]] && echo true || echo false)" "$caught_by" "$took")")
	lines+=("   * - $rule"$'\n'"     - ${text[$rule]}"$'\n'"     - ${caught_by:-nothing}"$'\n'"     - $took")
done < <(rules)

{
	echo '['
	for i in "${!rows[@]}"; do
		echo "  ${rows[i]}$([[ $((i + 1)) = "${#rows[@]}" ]] || echo ,)"
	done
	echo ']'
} >"$out/result.json"
if ((!${#only[@]})); then
	mkdir -p "$DRR_TOP/Documentation/testing"
	write_table "${lines[@]}" >"$DRR_TOP/Documentation/testing/mutants.rst"
fi
printf '%d caught, %d missed\n' "$caught" "$missed"
((missed == 0))
