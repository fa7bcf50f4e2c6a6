#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# Counts the instructions that reads and writes take, with DRR and without, on Debian's kernel; see
# Documentation/performance.md. Needs no quiet machine. Leaves a table in build/counted.md.
#
# usage: counted.sh [short]	short: only reads, and no profiles

set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

scripts=$DRR_TOP/scripts
kind=${1:-full}
[[ $kind = full || $kind = short ]] || die "counted.sh: '$kind' : say short, or nothing"

need_root
archive=()
[[ $kind = short ]] || archive=(--archive "$("$scripts/pack-programs.sh" /usr/bin/perf)")
"$scripts/vm.sh" --counted --name counted --timeout 3600 "${archive[@]}" -- /drr/bench/counted.sh "$kind"
"$scripts/toolbox.sh" -- python3 -B "$DRR_TOP/tools/testing/bench/counted.py" "$DRR_TOP/build/out/counted/facts.tsv" |
	tee "$DRR_TOP/build/counted.md"
