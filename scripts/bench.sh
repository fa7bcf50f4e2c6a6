#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# Measures DRR against dm-thin alone and against their limits, in a guest; see
# Documentation/performance.md. Leaves bench.json, report.md and its pictures in build/bench.
#
# usage: bench.sh [PART]...	parts of tools/testing/bench/bench.sh; all by default
#   In the environment:
#   KERNEL=uml		or debian
#   ROUNDS=5		how often everything is measured, in turn

set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

scripts=$DRR_TOP/scripts
kernel=${KERNEL:-uml} rounds=${ROUNDS:-5}
all=(read read4 randread parallel storm miss unshared md5 smallwrite pressure mixed launch
	launchxfs hitrate bystander neighbours growth)
parts=("$@")
(($#)) || parts=("${all[@]}")
for part in "${parts[@]}"; do
	[[ " ${all[*]} " = *" $part "* ]] ||
		die "bench.sh: unknown part '$part' : use some of ${all[*]}"
done
[[ $rounds =~ ^[1-9][0-9]*$ ]] || die "bench.sh: ROUNDS=$rounds is no number : give one, e.g. 5"
case $kernel in
uml) timeout=$((rounds * 900)) ;;
debian) timeout=$((rounds * 3600)) ;;
*) die "bench.sh: no kernel '$kernel' for benchmarks : use KERNEL=uml or debian" ;;
esac

need_root
bench=$DRR_TOP/build/bench
mkdir -p "$bench"
fio=$("$scripts/pack-programs.sh" /usr/bin/fio)
disks=() answer='' mem=6G
if [[ " ${parts[*]} " = *" launch"* ]]; then
	image=$("$scripts/demo-image.sh")
	answer=$(<"$image/answer") mem=9G	# ten models, each in a page cache and in use
	for layer in debian python app; do
		disks+=(--disk-file "$image/$layer.tar")
	done
fi
rm -f "$bench/bench.json" "$bench/report.md" "$bench"/*.svg
"$scripts/vm.sh" --kernel "$kernel" --name bench --mem "$mem" --timeout "$timeout" --archive "$fio" \
	"${disks[@]}" -- /drr/bench/bench.sh "$rounds" "$answer" "${parts[@]}"
"$scripts/toolbox.sh" -- python3 -B "$DRR_TOP/tools/testing/bench/report.py" \
	"$DRR_TOP/build/out/bench/facts.tsv" "$bench"
