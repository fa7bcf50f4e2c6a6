#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# Compares the module with that of another commit, under User-mode Linux: guests of the two in turn, so that what the
# machine does besides befalls both. Leaves a table in build/compare.md.
#
# usage: compare.sh COMMIT [PAIRS]	PAIRS is 20 by default; each takes about half a minute

set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

commit=${1:-} pairs=${2:-20}
[[ $commit ]] || die "compare.sh: no commit : name the one to compare with, e.g. make compare WITH=v1.0"
[[ $pairs =~ ^[1-9][0-9]*$ ]] || die "compare.sh: PAIRS=$pairs is no number : give one, e.g. 20"
id=$(git -C "$DRR_TOP" rev-parse --verify --quiet "$commit^{commit}") ||
	die "compare.sh: no commit '$commit' here : git log shows those that there are"

need_root
scripts=$DRR_TOP/scripts
other=$DRR_TOP/build/compare/${id:0:12}
facts=$DRR_TOP/build/compare/facts.tsv
if [[ ! -e $other/scripts/vm.sh ]]; then
	mkdir -p "$other"
	git -C "$DRR_TOP" archive "$id" | tar -x -C "$other"
fi
# What measures is the same for both.
for file in tools/testing/bench/{pair.sh,measure.sh,bench-io.c}; do
	cp "$DRR_TOP/$file" "$other/$file"
done
: >"$facts"

# $1: this or that, $2: its tree, $3: number of the pair
half() {
	local what value
	"$2/scripts/vm.sh" --kernel uml --name pair --mem 2G -- /drr/bench/pair.sh >"$facts.half"
	while read -r what value; do
		[[ $what != *.* ]] || printf '%s\t%s\t%s\t%s\n' "$what" "$1" "$3" "$value" >>"$facts"
	done <"$facts.half"
	rm "$facts.half"
}

for ((pair = 1; pair <= pairs; pair++)); do
	if ((pair % 2)); then
		half this "$DRR_TOP" $pair
		half that "$other" $pair
	else
		half that "$other" $pair
		half this "$DRR_TOP" $pair
	fi
	echo "pair $pair of $pairs"
done

# shellcheck disable=SC2016 # awk expands these
"$scripts/toolbox.sh" -- gawk -F '\t' -v commit="${id:0:12}" '
	{ value[$1, $2, $3] = $4; whats[$1]; if ($3 > pairs) pairs = $3 }
	END {
		print "| this / " commit ", " pairs " pairs | median | half |"
		print "| --- | --- | --- |"
		for (what in whats) {
			for (pair = 1; pair <= pairs; pair++)
				ratio[pair] = value[what, "this", pair] / value[what, "that", pair]
			n = asort(ratio)
			printf "| %s | %.3f | %.3f to %.3f |\n", what, (ratio[int((n + 1) / 2)] + ratio[int(n / 2) + 1]) / 2,
				ratio[int((n + 3) / 4)], ratio[int((3 * n + 3) / 4)]
		}
	}' "$facts" | tee "$DRR_TOP/build/compare.md"
