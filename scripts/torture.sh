#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# Boots a guest and runs the torture in it; see Documentation/testing/torture.rst.
# Leaves build/torture/result.json, and the console in build/out/torture-KERNEL.
#
# usage: torture.sh [OPTION]...	options are the torture's own, e.g. --target linear
#   In the environment:
#   TIME=600		seconds
#   SEED=1		which run
#   KERNEL=debian	or uml, debug or arm64
#   ROUND=SECONDS	length of a round
#   APPEND=WORDS	for the kernel's command line
#   MUTANTS=1		a test build of the module, whose guards can be switched off:
#			APPEND=dm_drr.rules_off=MASK
#   DRR_KERNEL=7.2	another series of kernels
#   NAME=torture-KERNEL	where the output goes, in build/out

set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

time=${TIME:-600} seed=${SEED:-1} kernel=${KERNEL:-debian}
[[ $time =~ ^[1-9][0-9]*$ ]] || die "torture: TIME=$time is no number of seconds : give one"
[[ $seed =~ ^[0-9]+$ ]] || die "torture: SEED=$seed is no number : give one"
name=${NAME:-torture-$kernel$DRR_SUFFIX}
result=$DRR_TOP/build/torture/result.json

# a round's set-up takes longer where the kernel is emulated
case $kernel in
uml) round=60 patience=120 ;;
debug* | kcsan | arm64*) round=240 patience=400 ;;
*) round=120 patience=200 ;;
esac

# xfs's own: it warns of written blocks that it finds behind the end of a file, which the
# insertion of a range under writeback can leave there. What is read is judged all the same.
allow='WARNING: fs/iomap/buffered-io.c:[0-9]+ at iomap_zero_range'

mkdir -p "${result%/*}"
rm -f "$result"
rc=0
# shellcheck disable=SC2086 # the options are words
"$DRR_TOP/scripts/vm.sh" --kernel "$kernel" --name "$name" --mem 2G \
	--timeout $((time + 2 * patience + 300)) --append "${APPEND:-}" --allow "$allow" \
	-- /drr/bin/drr-torture \
	--time "$time" --seed "$seed" --kernel "$kernel" --round "${ROUND:-$round}" \
	--patience "$patience" "$@" || rc=$?
[[ ! -e $DRR_TOP/build/out/$name/result.json ]] ||
	cp "$DRR_TOP/build/out/$name/result.json" "$result"
((!rc)) || echo "dm-drr: torture: failed : TIME=$time SEED=$seed KERNEL=$kernel repeats it" >&2
exit "$rc"
