#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# Containers of one image read a big file, and are launched: with DRR and without, and on overlayfs.
#
# usage: demo.sh [ACT]...	some of these; all by default
#   reads	four containers read a file
#   launch	ten containers of an image in three layers are launched
#   debian	where there is no KVM: the reads again, of a smaller file, on Debian's kernel
#
# Where KVM works, all of it runs on Debian's kernel in a virtual machine. Elsewhere an emulated CPU would be
# what is measured, so the first two run in User-mode Linux, whose kernel code runs at the machine's own speed.
#
# The figures are also in build/demo/result.json; pictures and tables of who read whose data
# in build/demo/heatmap-with.* and heatmap-without.*, the tree of layers in layers.txt.

set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

scripts=$DRR_TOP/scripts
demo=$DRR_TOP/build/demo
result=$demo/result.json
acts=("$@")
(($#)) || acts=(reads launch debian)
for act in "${acts[@]}"; do
	[[ " reads launch debian " = *" $act "* ]] ||
		die "demo.sh: unknown act '$act' : use some of reads, launch and debian, or nothing for all"
done
wants() { [[ " ${acts[*]} " = *" $1 "* ]]; }

# --- set-up, while something else is going on ---

# What is needed later is made by one process in the background, as long as the CPUs have nothing else to do.
# It leaves build/demo/set-up/NAME when that is done, and says in NAME.log what it does.
later=$demo/set-up
background=

# $1: name, rest: command
prepare() {
	"${@:2}" >/dev/null 2>"$later/$1.log" || exit
	touch "$later/$1"
}

prepare_all() {
	! wants launch || prepare image "$scripts/demo-image.sh"
	! wants launch || prepare drrctl "$scripts/cargo.sh" build --release --locked -p drrctl
	[[ $kernel = debian ]] || ! wants debian || prepare debian "$scripts/guest-image.sh" --programs '' debian
}

start_background() {
	rm -rf "$later"
	mkdir -p "$later"
	set -m	# a process group of its own, to be ended as a whole
	( set +m; prepare_all ) </dev/null &
	background=$!
	set +m
	chrt --idle --pid 0 "$background" 2>/dev/null || true
}

# shellcheck disable=SC2317 # called by the trap
end_background() {
	[[ -z $background ]] || kill -- "-$background" 2>/dev/null || true
}
trap end_background EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

# until_done NAME: its CPUs are its own from now on.
until_done() {
	local thread
	for thread in $(pgrep -g "$background"); do
		chrt --other --pid 0 "$thread" || true
	done
	while [[ ! -e $later/$1 ]] && kill -0 "$background"; do
		sleep 0.2
	done
	cat "$later/$1.log"
	[[ -e $later/$1 ]]
}

# $1: name, $2: text
need() {
	[[ -e $later/$1 ]] || step "wait-$1" "$2" until_done "$1"
}

# --- the acts ---

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

# $1: an act's name, $2: its script, rest: options of vm.sh, -- and the script's arguments. Its figures are in
# build/out/demo-NAME/facts.tsv afterwards.
play() {
	local name=$1 script=$2 options=()
	shift 2
	while [[ $1 != -- ]]; do
		options+=("$1")
		shift
	done
	shift
	"$scripts/vm.sh" --name "demo-$name" "${options[@]}" -- "/drr/demo/$script.sh" "$@" | follow ||
		die "the demo did not finish : see above, and build/out/demo-$name"
}

# $1: a report, rest: its arguments after the character set
report() {
	"$scripts/toolbox.sh" -- python3 -B "$DRR_TOP/tools/demo/$1" "$charset" "${@:2}"
}

# $1: an act's name
report_reads() {
	report report.py "$DRR_TOP/build/out/demo-$1/facts.tsv" "$result" "$1"
}

reads() {
	"$scripts/guest-image.sh" --programs '' "$kernel" >/dev/null
	echo "
$machine"
	play reads reads --kernel "$kernel" --programs '' --mem 2G --timeout 900 -- 200
	report_reads reads
}

launch() {
	local image disks=() layer
	need image "the containers' image"
	need drrctl "drrctl, for the pictures"
	image=$("$scripts/demo-image.sh")
	for layer in debian python app; do
		disks+=(--disk-file "$image/$layer.tar")
	done
	"$scripts/guest-image.sh" --programs drrctl "$kernel" >/dev/null
	rm -f "$demo"/heatmap-* "$demo/layers.txt"
	echo "
The launches, in the same way."
	play launch launch --kernel "$kernel" --programs drrctl --mem 4G --timeout 2400 "${disks[@]}" -- \
		"$(<"$image/answer")"
	cp "$DRR_TOP"/build/out/demo-launch/{heatmap-with{,out}.{svg,png,txt,csv},layers.txt} "$demo/"
	report launch_report.py "$DRR_TOP/build/out/demo-launch/facts.tsv" "$result"
	sed 's/^/  /' "$demo/heatmap-with.txt"
	echo "
  The same as a picture, and that of the run without DRR: build/demo/heatmap-with.svg and
  heatmap-without.svg (and .png, .txt, .csv)"
}

debian() {
	need debian "Debian's kernel, and the modules for it"
	echo "
The same source on Debian's own kernel and its dm-thin-pool, in a virtual machine whose CPU is emulated: half a
minute of reads."
	play debian reads --programs '' --mem 2G --timeout 900 -- 48
	report_reads debian
}

charset=ascii
[[ ${LC_ALL:-${LC_CTYPE:-${LANG:-}}} != *[Uu][Tt][Ff]* ]] || charset=utf8
need_root
mkdir -p "$demo"
rm -f "$result"
"$scripts/toolbox.sh" --path >/dev/null
if "$scripts/kvm.sh"; then
	kernel=debian machine="Booting Debian's kernel in a virtual machine."
else
	kernel=demo machine="Booting User-mode Linux: a kernel as a program, at this machine's own speed."
fi
start_background
for act in "${acts[@]}"; do
	[[ $act = debian && $kernel = debian ]] || "$act"
done
report summary.py "$result"
