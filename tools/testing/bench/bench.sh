#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# The benchmark, in the guest: DRR, dm-thin alone and their limits in turn, a number of rounds.
#
# usage: bench.sh ROUNDS ANSWER PART...	the answer of the launched containers' service, or nothing if no part
#						launches any
#        bench.sh ROUNDS ANSWER tensorflow COUNT	that part, with this number of containers

set -eEuo pipefail

# shellcheck source=tools/testing/bench/stage.sh
. /drr/bench/stage.sh
# shellcheck source=tools/testing/bench/overhead.sh
. /drr/bench/overhead.sh
# shellcheck source=tools/testing/bench/memory.sh
. /drr/bench/memory.sh
# shellcheck source=tools/testing/bench/launch.sh
. /drr/bench/launch.sh
# shellcheck source=tools/testing/bench/density.sh
. /drr/bench/density.sh
# shellcheck source=tools/testing/bench/tensorflow.sh
. /drr/bench/tensorflow.sh
# shellcheck source=tools/testing/bench/neighbours.sh
. /drr/bench/neighbours.sh

# One container reads what another has in memory.
part_read() {
	local profile variant ticks
	for profile in ram ssd hdd; do
		disk $profile
		warm
		for variant in $(in_turn thin drr loop ramdisk); do
			ticks=$(cpu_ticks)
			sample read.$profile "$variant" "$(sequential "$(readers "$variant" 1)")"
			sample cpu.$profile "$variant" $(($(cpu_ticks) - ticks))
		done
		sample read.$profile pagecache "$(cached /mnt/d2/big)"
	done
}

# Four read at the same time what a fifth has.
part_read4() {
	local variant
	disk ram
	warm
	for variant in $(in_turn thin drr); do
		# shellcheck disable=SC2046 # paths without spaces
		sample read4.ram "$variant" "$(sequential $(readers "$variant" 4))"
	done
}

part_randread() {
	local mode jobs variant
	disk ram
	for mode in buffered direct; do
		for jobs in 1 4; do
			warm
			for variant in $(in_turn thin drr ramdisk); do
				# shellcheck disable=SC2046
				sample "randread.ram.$mode$jobs" "$variant" \
					"$(random_reads 32 $mode $(readers "$variant" $jobs))"
			done
		done
	done
}

# Two receivers, on one CPU and on two.
part_parallel() {
	local cpus
	disk ram
	for cpus in 0 0,1; do
		warm
		sample parallel "cpus$cpus" "$(throughput --rw=read --bs=1M \
			--name=a --filename=/mnt/d2/big --cpus_allowed=$cpus --cpus_allowed_policy=split \
			--name=b --filename=/mnt/d3/big --cpus_allowed=$cpus --cpus_allowed_policy=split)"
	done
}

# storm PROFILE VARIANT: all eight read at the same time what nobody has.
storm() {
	local profile=$1 variant=$2 before
	all_cold
	before=$(data_bytes read)
	# shellcheck disable=SC2046
	sample "storm.$profile" "$variant" \
		"$(reading_time $(files "$(prefix "$variant")" 1 "$CONTAINERS"))"
	sample "storm.$profile.bytes" "$variant" $(($(data_bytes read) - before))
}

# storm_cold VARIANT: the same, and their file systems have just been mounted: nothing of these is in memory, either.
storm_cold() {
	local variant=$1 before i name
	all_cold
	for ((i = 1; i <= CONTAINERS; i++)); do
		umount "/mnt/$(prefix "$variant")$i"
	done
	before=$(data_bytes read)
	for ((i = 1; i <= CONTAINERS; i++)); do
		name=$(prefix "$variant")$i
		ATIME=relatime fs_mount ext4 "$name" "/dev/mapper/$([ "$variant" = drr ] || echo t-)$name"
	done
	# shellcheck disable=SC2046
	sample storm.cold "$variant" "$(reading_time $(files "$(prefix "$variant")" 1 "$CONTAINERS"))"
	sample storm.cold.bytes "$variant" $(($(data_bytes read) - before))
}

part_storm() {
	local variant
	disk ssd
	for variant in $(in_turn thin drr); do
		storm ssd "$variant"
		storm_cold "$variant"
	done
	disk hdd
	storm hdd drr
	all_cold
	sample storm.hdd one "$(reading_time /mnt/d1/big)"
}

part_md5() {
	local variant
	disk hdd
	warm
	for variant in $(in_turn thin drr); do
		sample md5.hdd "$variant" "$(seconds_of md5sum "$(readers "$variant" 1)")"
	done
	sample md5.hdd pagecache "$(seconds_of md5sum /mnt/d2/big)"
}

# Writes of a page into shared blocks whose content d1 has in memory.
part_smallwrite() {
	local variant name before
	disk ram
	warm
	for variant in $(in_turn thin drr); do
		name=w$variant
		container "$name" "$variant"
		disk hdd
		before=$(data_bytes read)
		sample smallwrite.hdd "$variant" "$(throughput --rw=randwrite --bs=4k --direct=1 \
			--io_size=512k --randseed="$ROUND" --name=job --filename="/mnt/$name/big")"
		sample smallwrite.hdd.bytes "$variant" $(($(data_bytes read) - before))
		disk ram
		container_end "$name"
	done
}

note_memory() {
	local status
	disk ram
	# shellcheck disable=SC2046
	cat $(files d 1 "$CONTAINERS") >/dev/null
	status=$(dmsetup status d1)
	note fact table_bytes "$(grep -o 'table_bytes=[0-9]*' <<<"$status" | cut -d= -f2)"
	note fact tracked_pages "$(grep -o 'tracked_pages=[0-9]*' <<<"$status" | cut -d= -f2)"
}

# tensorflow ROUNDS ANSWER COUNT: that part, which has a pool and the memory for itself.
tensorflow() {
	tensorflow_set_up "$2" "$3"
	for ((ROUND = 1; ROUND <= $1; ROUND++)); do
		echo "round $ROUND of $1"
		part_tensorflow
	done
	tensorflow_take_down
}

main() {
	local rounds=$1 answer=$2 part
	shift 2
	note fact kernel "$(uname -r)"
	note fact cpus "$(nproc)"
	note fact rounds "$rounds"
	note fact file_bytes $FILE_BYTES
	if [ "$1" = tensorflow ]; then
		tensorflow "$rounds" "$answer" "$2"
		return
	fi
	set_up 8
	[ -z "$answer" ] || launch_set_up "$answer"
	for ((ROUND = 1; ROUND <= rounds; ROUND++)); do
		echo "round $ROUND of $rounds"
		for part; do
			case $part in
			bystander) ;;
			*) "part_$part" ;;
			esac
		done
	done
	note_memory
	[ -z "$answer" ] || launch_take_down
	take_down
	[[ " $* " != *" bystander "* ]] || for ((ROUND = 1; ROUND <= rounds; ROUND++)); do
		part_bystander
	done
}

main "$@"
