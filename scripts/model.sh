#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# Checks the models of Documentation/formal exhaustively: as they are, no assertion may
# fail, and with any one rule taken away (-DNO_<RULE>), one must. A model's line
# "Redundant: A B" names rules that it is right without.
# One line for each configuration, and at last "N passed, N failed".
#
# usage: model.sh [MODEL [RULE]]	e.g. model.sh reads QUIET; with a rule it also prints
#					the shortest counter-example, step by step

set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

formal=$DRR_TOP/Documentation/formal
build=$DRR_TOP/build/model
limit=2000	# MiB for the states of one configuration

# Rules that a model has a switch for.
rules_of() {
	grep -o 'NO_[A-Z]\+' "$formal/$1.pml" | sed 's/^NO_//' | sort -u
}

redundant_in() {
	[[ " $(sed -n 's/^.*Redundant: //p' "$formal/$1.pml" | tr '\n' ' ') " = *" $2 "* ]]
}

# Runs in the toolbox. Prints the result's line; keeps everything in its folder.
# $1: model, $2: rule or nothing, $3: holds or fails, $4: how to search, if not depth first
run() {
	local model=$1 rule=$2 wanted=$3 dir=$build/$1/${2:-all} start=$EPOCHREALTIME
	local errors states found took
	rm -rf "$dir"
	mkdir -p "$dir"
	cd "$dir"
	if spin ${rule:+"-DNO_$rule"} -a "$formal/$model.pml" >spin.log 2>&1 &&
		gcc -w -O1 -DSAFETY ${4:+"$4"} -DMEMLIM=$limit -o pan pan.c >>spin.log 2>&1; then
		timeout 300 ./pan -E -m1000000 >pan.log 2>&1 || true
	else
		cat spin.log >&2
	fi
	errors=$(sed -n 's/.*, errors: \([0-9]*\)$/\1/p' pan.log 2>/dev/null) || true
	states=$(sed -n 's/^ *\([0-9.e+]*\) states, stored.*/\1/p' pan.log 2>/dev/null) || true
	took=$(awk "BEGIN { printf \"%.1f\", ${EPOCHREALTIME/,/.} - ${start/,/.} }")
	found=unknown
	if grep -q 'assertion violated' pan.log 2>/dev/null; then
		found=fails
	elif [[ $errors = 0 ]] && ! grep -qE 'max search depth too small|out of memory|not completed' pan.log; then
		found=holds
	fi
	[[ $found = "$wanted" ]] && found="PASS" || found="FAIL ($found)"
	printf '%s %-8s %-30s %s, %s states, %s s\n' "$found" "$model" \
		"${rule:+without $rule}" "$wanted" "${states:-?}" "$took"
}

case ${1:-} in
--run) shift; run "$@"; exit ;;
esac

[[ ! ${1:-} || -e $formal/$1.pml ]] ||
	die "model.sh: no model '$1' : use one of those in Documentation/formal"
tasks=()
for file in "$formal"/${1:-*}.pml; do
	[[ -e $file ]] || continue
	model=$(basename "$file" .pml)
	[[ ${2:-} ]] || tasks+=("$model" '' holds '')
	for rule in $(rules_of "$model"); do
		[[ ! ${2:-} || $rule = "$2" ]] || continue
		wanted=fails
		! redundant_in "$model" "$rule" || wanted=holds
		# Breadth first finds the shortest counter-example, but takes longer.
		tasks+=("$model" "$rule" "$wanted" "${2:+-DBFS}")
	done
done
((${#tasks[@]})) || die "model.sh: no rule '${2:-}' in the model '${1:-}' : see Documentation/formal/README.rst"

mkdir -p "$build"
printf '%s\0' "${tasks[@]}" |
	"$DRR_TOP/scripts/toolbox.sh" -- nice xargs -0 -n 4 -P "$(nproc)" "$DRR_TOP/scripts/model.sh" --run |
	tee "$build/result.log"
if [[ ${2:-} && -e $build/$1/$2/$1.pml.trail ]]; then
	"$DRR_TOP/scripts/toolbox.sh" -- env --chdir="$build/$1/$2" \
		spin "-DNO_$2" -k "$1.pml.trail" -p -g -l "$formal/$1.pml"
fi
passed=$(grep -c '^PASS' "$build/result.log") || true
failed=$(($(wc -l <"$build/result.log") - passed))
echo "$passed passed, $failed failed"
((!failed))
