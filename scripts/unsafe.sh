#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# Lists every unsafe block, function and implementation of the kernel code, with the
# reason that stands beside it, and counts them.
#
# usage: unsafe.sh [--list]	without --list only the counts, and what is wrong
#
# Wrong is: unsafe outside of rust/, a crate root in drr/ that doesn't forbid it, and
# unsafe without a reason. Relies on rustfmt's layout.

set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

list=
case ${1:-} in
--list) list=1 ;;
'') ;;
*) die "unsafe.sh: unknown option '$1' : use --list, or nothing" ;;
esac

cd "$DRR_TOP"
bad=0
complain() {
	echo "$*"
	bad=1
}

grep -q '^#!\[forbid(unsafe_code)\]$' drr/drr.rs ||
	complain "drr/drr.rs: doesn't say #![forbid(unsafe_code)]"
while read -r file; do
	! grep -nE '\bunsafe\b.*[{(]' "$file" || complain "$file: unsafe"
done < <(find drr -name '*.rs' | sort)

# For each use: file, line, kind, reason; without one the reason is empty.
uses() {
	awk '
	function flush_use(reason) { print FILENAME "\t" FNR "\t" kind "\t" reason }
	# the reason in the comment right above the statement, from its SAFETY: on
	function reason(from,    at, text) {
		for (at = from; at > 0; at--) {
			if (line[at] ~ /^ *\/\//) {
				text = line[at] "\n" text
				if (line[at] ~ /SAFETY:|# Safety/)
					return text
			} else if (line[at] ~ /^ *#\[/ || (line[at] !~ /[;{}]$/ && line[at] !~ /^ *$/)) {
				if (text != "")
					return ""
			} else {
				return ""
			}
		}
		return ""
	}
	function tidy(text) {
		gsub(/ *\/\/\/? ?/, " ", text)
		gsub(/\n/, "", text)
		sub(/^.*SAFETY: */, "", text)
		sub(/^.*# Safety */, "", text)
		return text
	}
	FNR == 1 { delete line }
	{ line[FNR] = $0 }
	/^ *\/\// { next }
	/unsafe \{/ { kind = "block" }
	/unsafe impl/ { kind = "impl" }
	/unsafe (extern "C" )?fn [a-z]/ { kind = "fn" }
	kind {
		flush_use(tidy(reason(FNR - 1)))
		kind = ""
	}' "$@"
}

# `make KDIR=...` leaves its bindings here
mapfile -t files < <(find rust -name '*.rs' ! -name bindings_generated.rs | sort)
table=$(uses "${files[@]}")
while IFS=$'\t' read -r file line kind reason; do
	[[ $reason ]] || complain "$file:$line: unsafe $kind without a reason"
	[[ -z $list ]] || printf '%s:%s: %s: %s\n' "$file" "$line" "$kind" "$reason"
done <<<"$table"
awk -F '\t' '
	{ count[$1, $3]++; total[$3]++; files[$1] }
	END {
		format = "%-32s %6s %6s %6s\n"
		printf format, "file", "blocks", "fns", "impls"
		for (file in files)
			printf format, file, count[file, "block"] + 0, count[file, "fn"] + 0,
				count[file, "impl"] + 0 | "sort"
		close("sort")
		printf format, "total", total["block"] + 0, total["fn"] + 0, total["impl"] + 0
	}' <<<"$table"
exit $bad
