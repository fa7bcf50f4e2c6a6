#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# On Debian's kernel, with DRR and without: four containers of one image read a big file; then
# ten containers of an image in layers are launched.
#
# usage: demo.sh [reads|launch]	one of the two, or both
#
# The figures are also in build/demo/result.json; pictures and tables of who read whose data
# in build/demo/heatmap-with.* and heatmap-without.*, the tree of layers in layers.txt.

set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

scripts=$DRR_TOP/scripts
demo=$DRR_TOP/build/demo
result=$demo/result.json
parts=("$@")
(($#)) || parts=(reads launch)
for part in "${parts[@]}"; do
	[[ $part = reads || $part = launch ]] ||
		die "demo.sh: unknown part '$part' : use reads or launch, or nothing for both"
done

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

# $1: a part's name, rest: options of vm.sh, -- and the part's arguments. Its figures are in
# build/out/demo-NAME/facts.tsv afterwards.
play() {
	local name=$1 options=()
	shift
	while [[ $1 != -- ]]; do
		options+=("$1")
		shift
	done
	shift
	"$scripts/vm.sh" --name "demo-$name" "${options[@]}" -- "/drr/demo/$name.sh" "$@" | follow ||
		die "the demo did not finish : see above, and build/out/demo-$name"
}

# $1: a part's name, $2: its report
report() {
	"$scripts/toolbox.sh" -- python3 -B "$DRR_TOP/tools/demo/$2" "$charset" \
		"$DRR_TOP/build/out/demo-$1/facts.tsv" "$result"
}

reads() {
	echo "Booting Debian's kernel in a virtual machine. All of this takes 2 to 3 minutes where the
CPU has to be emulated, less with KVM."
	play reads --mem 2G --timeout 900 --
	report reads report.py
}

launch() {
	local image disks=() layer
	rm -f "$demo"/heatmap-* "$demo/layers.txt"
	image=$("$scripts/demo-image.sh")
	for layer in debian python app; do
		disks+=(--disk-file "$image/$layer.tar")
	done
	echo "
Booting it again, for the launches: 5 to 10 minutes where the CPU has to be emulated."
	play launch --mem 3G --timeout 2400 "${disks[@]}" -- "$(<"$image/answer")"
	cp "$DRR_TOP"/build/out/demo-launch/{heatmap-with{,out}.{svg,png,txt,csv},layers.txt} "$demo/"
	report launch launch_report.py
	sed 's/^/  /' "$demo/heatmap-with.txt"
	echo "
  The same as a picture, and that of the run without DRR: build/demo/heatmap-with.svg and
  heatmap-without.svg (and .png, .txt, .csv)"
}

charset=ascii
[[ ${LC_ALL:-${LC_CTYPE:-${LANG:-}}} != *[Uu][Tt][Ff]* ]] || charset=utf8
need_root
mkdir -p "$demo"
[[ " ${parts[*]} " != *" reads "* ]] || rm -f "$result"
[[ -e $result ]] || echo "{}" >"$result"
"$scripts/guest-image.sh" debian >/dev/null
for part in "${parts[@]}"; do
	"$part"
done
