#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# Instructions that reads and writes take, in a guest whose clock counts them (vm.sh --counted). Figures go
# to /out/facts.tsv, as lines of tab-separated words:
#
#   count	WHAT VARIANT INSTRUCTIONS	the median of $TURNS
#   profiled	WHAT VARIANT INSTRUCTIONS	the same while perf takes samples, 20,000 a second
#   profile	WHAT VARIANT SAMPLES WHERE	samples of perf, of what was counted
#
# and perf's profiles to /out/WHAT-VARIANT.txt.
#
# usage: counted.sh short|full

set -eEuo pipefail

DRR=drr
TURNS=3
REF=/tmp/ref	# reference files, for pool.sh
IO=/drr/bin/bench-io
DIRECT=(env BENCH_IO_DIRECT=1 "$IO")
FACTS=/out/facts.tsv

# shellcheck source=tools/testing/pool.sh
. /drr/pool.sh
# shellcheck source=tools/testing/bench/measure.sh
. /drr/bench/measure.sh

flunk() {
	echo "dm-drr: counted: $* : see build/out/counted" >&2
	exit 1
}

trap '((BASH_SUBSHELL)) || flunk "failed in line $LINENO, $BASH_COMMAND"' ERR

# mounted VARIANT NAME: mounts NAME's thin device, directly or below such a target. The extents of its
# files are in memory afterwards.
mounted() {
	local file
	case $1 in
	thin) fs_mount ext4 "$2" "/dev/mapper/t-$2" ;;
	linear | passthrough)
		dmsetup create "$2" --table "0 $(thin_sectors "$2") $1 /dev/mapper/t-$2 0"
		fs_mount ext4 "$2"
		;;
	*)
		drr_new "$2"
		fs_mount ext4 "$2"
		;;
	esac
	for file in /mnt/"$2"/{big,own}; do
		[[ ! -e $file ]] || xfs_io -r -c fiemap "$file" >/dev/null
	done
}

# Prints where the samples of a profile are: in the digest, in the two copies of a hit, or elsewhere in DRR. The copies
# are made by functions of the kernel, which nothing else in a hit calls for whole pages.
where() {
	perf script -i /tmp/perf.data -F ip,sym 2>/dev/null | awk '
		/6digest$/ { samples["digest"]++ }
		$2 ~ /^copy_page/ { samples["first_copy"]++ }
		$2 ~ /^(__)?memcpy/ { samples["second_copy"]++ }
		/3drr|2dm[0-9]|^ *dm_rust_/ && !/6digest$/ { samples["drr"]++ }
		END { for (place in samples) print samples[place], place }
	'
}

# measure WHAT VARIANT BEFORE COMMAND...: counts what COMMAND prints, after BEFORE each time.
measure() {
	local what=$1 variant=$2 before=$3 turn samples place
	shift 3
	for ((turn = 0; turn < TURNS; turn++)); do
		$before
		sync
		"$@"
	done | sort -n | sed -n "$(((TURNS + 1) / 2))p" >/tmp/median
	printf 'count\t%s\t%s\t%s\n' "$what" "$variant" "$(</tmp/median)" >>$FACTS
	printf '  %-16s %-10s %8.2f million\n' "$what" "$variant" "$(($(</tmp/median) / 10000))e-2"
	[[ $KIND = full ]] || return 0
	$before
	sync
	printf 'profiled\t%s\t%s\t%s\n' "$what" "$variant" \
		"$(perf record -q -a -e cpu-clock -F 20000 -o /tmp/perf.data -- "$@")" >>$FACTS
	perf report -i /tmp/perf.data --stdio --sort symbol 2>/dev/null >"/out/$what-$variant.txt"
	while read -r samples place; do
		printf 'profile\t%s\t%s\t%s\t%s\n' "$what" "$variant" "$samples" "$place" >>$FACTS
	done < <(where)
}

# nobody: no file is in memory. sibling: the sibling has it, nobody else.
nobody() { evict /mnt/*/big; }
sibling() {
	evict /mnt/it/big
	cat /mnt/d1/big >/dev/null
}
own() { evict /mnt/it/own; }

# A thin device without a block, far larger than what is written to it: each write is the first to its block.
fresh() {
	[[ ! -e /dev/mapper/fresh ]] || dmsetup remove fresh
	if [[ -e /dev/mapper/t-fresh ]]; then
		dmsetup remove t-fresh
		thin_delete fresh
	fi
	thin_new fresh 4096
	case $FRESH in
	linear | passthrough) dmsetup create fresh --table "0 $(thin_sectors fresh) $FRESH /dev/mapper/t-fresh 0" ;;
	miss) drr_new fresh ;;
	esac
}

# provisions VARIANT: "bare" while nothing of DRR is loaded
provisions() {
	local device=/dev/mapper/fresh
	case $1 in
	bare | thin) device=/dev/mapper/t-fresh ;;
	esac
	FRESH=$1
	measure fresh "$1" fresh "${DIRECT[@]}" randwrite $device 4
}

# reads VARIANT BEFORE FILE
reads() {
	measure read "$1" "$2" $IO read "$3" 32
	measure randread "$1" "$2" "${DIRECT[@]}" randread "$3" 4
	[[ $KIND = short ]] || measure fault "$1" "$2" $IO randread "$3" 4
}

main() {
	local variant
	KIND=$1
	random_file big 32M
	random_file own 8M
	pool_up 320
	image_new ext4 base 80 big
	thin_snap d1 base
	provisions bare
	modprobe dm-drr
	modprobe dm-passthrough
	mounted drr d1
	thin_snap it base
	mounted thin it
	cp "$REF/own" /mnt/it/own
	umount /mnt/it
	for variant in thin linear passthrough miss; do
		provisions $variant
		mounted $variant it
		reads $variant nobody /mnt/it/big
		if [[ $KIND = full ]]; then
			for what in read randread write randwrite; do
				measure "own.$what" $variant own "${DIRECT[@]}" $what /mnt/it/own 4
			done
		fi
		if [[ $variant != miss ]]; then
			container_down it
			thin_open it
		fi
	done
	reads hit sibling /mnt/it/big
	cat /mnt/it/big >/dev/null
	measure read pagecache true $IO read /mnt/it/big 32
	ram_disk plain 128
	fs_make ext4 /dev/plain
	fs_mount ext4 plain /dev/plain
	cp "$REF/big" /mnt/plain/
	sync
	reads ramdisk nobody /mnt/plain/big
	dmsetup status it
	umount /mnt/plain
}

main "$1"
