#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# Measures DRR against dm-thin alone and against their limits, in a guest; see
# Documentation/performance.md. Leaves bench.json, report.md and its pictures in build/bench.
#
# usage: bench.sh [PART]...	parts of tools/testing/bench/bench.sh; all but tensorflow by default
#        bench.sh tensorflow	needs the image of tensorflow-image.sh, and much memory
#   In the environment:
#   KERNEL=uml		or debian
#   ROUNDS=5		how often everything is measured, in turn
#   TENSORFLOWS=8	how many containers the part tensorflow has; each takes 1.25 GiB

set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

scripts=$DRR_TOP/scripts
kernel=${KERNEL:-uml} rounds=${ROUNDS:-5}
all=(read read4 randread parallel storm miss unshared md5 smallwrite pressure mixed launch
	launchxfs density hitrate bystander neighbours growth)
parts=("$@")
(($#)) || parts=("${all[@]}")
for part in "${parts[@]}"; do
	[[ $part != tensorflow || ${#parts[@]} = 1 ]] ||
		die "bench.sh: tensorflow and other parts need too much memory together : run it alone"
	[[ " ${all[*]} tensorflow " = *" $part "* ]] ||
		die "bench.sh: unknown part '$part' : use some of ${all[*]}, or tensorflow"
done
[[ $rounds =~ ^[1-9][0-9]*$ ]] || die "bench.sh: ROUNDS=$rounds is no number : give one, e.g. 5"
case $kernel in
uml) timeout=$((rounds * 2400)) ;;
debian) timeout=$((rounds * 3600)) ;;
*) die "bench.sh: no kernel '$kernel' for benchmarks : use KERNEL=uml or debian" ;;
esac

need_root
bench=$DRR_TOP/build/bench
mkdir -p "$bench"
fio=$("$scripts/pack-programs.sh" /usr/bin/fio)
disks=() answer='' mem=6G programs=''
[[ ! " ${parts[*]} " =~ \ (growth|tensorflow)\  ]] || programs=drrctl

# $1: an image's folder, rest: its layers
take_image() {
	local layer
	answer=$(<"$1/answer")
	for layer in "${@:2}"; do
		disks+=(--disk-file "$1/$layer.tar")
	done
}

if [[ " ${parts[*]} " =~ \ (launch|density) ]]; then
	image=$("$scripts/demo-image.sh")
	take_image "$image" debian python app
	mem=9G	# ten models, each in a page cache and in use
elif [[ ${parts[*]} = tensorflow ]]; then
	image=$("$scripts/tensorflow-image.sh")
	take_image "$image" debian python tensorflow app
	count=${TENSORFLOWS:-8}
	[[ $count =~ ^([2-9]|10)$ ]] || die "bench.sh: TENSORFLOWS=$count : give a number from 2 to 10"
	# each has its page cache and what it allocates; besides, the image is on two RAM disks
	mem=$((5 * 1024 + count * 1280))
	free=$(awk '/^MemAvailable:/ { print int($2 / 1024) }' /proc/meminfo)
	((free > mem + 1024)) ||
		die "bench.sh: $count TensorFlows need a guest of $mem MiB, $free MiB are free : set TENSORFLOWS to less"
	mem+=M timeout=$((rounds * 7200))
	parts+=("$count")
fi
rm -f "$bench/bench.json" "$bench/report.md" "$bench"/*.svg
"$scripts/vm.sh" --kernel "$kernel" --programs "$programs" --name bench --mem "$mem" --timeout "$timeout" \
	--archive "$fio" "${disks[@]}" -- /drr/bench/bench.sh "$rounds" "$answer" "${parts[@]}"
"$scripts/toolbox.sh" -- python3 -B "$DRR_TOP/tools/testing/bench/report.py" \
	"$DRR_TOP/build/out/bench/facts.tsv" "$bench"
[[ ${parts[0]} != tensorflow ]] || cp "$DRR_TOP"/build/out/bench/tensorflow-heatmap.svg "$bench/"
