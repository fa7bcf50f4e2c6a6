#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# Four containers of one image read a big file on Debian's kernel, with DRR and without.
#
# usage: demo.sh	the figures are also in build/demo/result.json

set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

scripts=$DRR_TOP/scripts
result=$DRR_TOP/build/demo/result.json
(($# == 0)) || die "demo.sh: it takes no arguments : just run make demo"

# Passes on what the guest says, and on a terminal shows that time passes meanwhile.
follow() {
	local line start=$SECONDS clear='' rc
	[[ ! -t 1 ]] || clear=$'\r\e[K'
	while :; do
		rc=0
		IFS= read -r -t 1 line || rc=$?
		if [[ $rc = 0 ]]; then
			printf '%s%s\n' "$clear" "$line"
			start=$SECONDS
		elif ((rc <= 128)); then
			printf '%s' "$clear"
			return
		elif [[ -n $clear ]]; then
			printf '%s    ... %d s' "$clear" $((SECONDS - start))
		fi
	done
}

need_root
rm -f "$result"
"$scripts/guest-image.sh" debian >/dev/null
echo "Booting Debian's kernel in a virtual machine. All of this takes 2 to 3 minutes where the
CPU has to be emulated, less with KVM."
"$scripts/vm.sh" --name demo --mem 2G --timeout 900 -- /drr/demo/run.sh | follow ||
	die "the demo did not finish : see above, and build/out/demo"

charset=ascii
[[ ${LC_ALL:-${LC_CTYPE:-${LANG:-}}} != *[Uu][Tt][Ff]* ]] || charset=utf8
mkdir -p "${result%/*}"
"$scripts/toolbox.sh" -- python3 "$DRR_TOP/tools/demo/report.py" "$charset" \
	"$DRR_TOP/build/out/demo/facts.tsv" "$result"
