# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=bash
# Keeps the seconds that the parts of a run took. To be sourced.

times=()	# "SECONDS NAME" of each part

# Says and keeps what one part took. A name that begins with "set-up" is no test: what it takes
# depends on what the cache has.
# $1: name, $2: seconds
took() {
	echo "# $1: $2 s"
	times+=("$2 $1")
}

# A table of the tests, the slowest first, and below it the set-up.
show_times() {
	{
		printf '%s\n' "${times[@]}" | sed '/^[0-9]* set-up/d' | sort -rn
		printf '%s\n' "${times[@]}" | sed -n '/^[0-9]* set-up/p'
	} | awk '
		BEGIN { format = "# %7s  %s\n"; printf format, "seconds", "part" }
		{ seconds = $1; sum += $1; sub(/^[0-9]+ /, ""); printf format, seconds, $0 }
		END { printf format, sum, "all of these" }'
}
