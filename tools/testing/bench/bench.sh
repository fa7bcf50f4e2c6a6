#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# The benchmark, in the guest: DRR, dm-thin alone and their limits in turn, a number of rounds.
#
# usage: bench.sh ROUNDS PART...

set -eEuo pipefail

# shellcheck source=tools/testing/bench/stage.sh
. /drr/bench/stage.sh

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
	local profile=$1 variant=$2 prefix=d before
	[ "$variant" = drr ] || prefix=p
	all_cold
	before=$(data_bytes read)
	# shellcheck disable=SC2046
	sample "storm.$profile" "$variant" \
		"$(seconds_of sequential $(files "$prefix" 1 "$CONTAINERS"))"
	sample "storm.$profile.bytes" "$variant" $(($(data_bytes read) - before))
}

part_storm() {
	local variant
	disk ssd
	for variant in $(in_turn thin drr); do
		storm ssd "$variant"
	done
	disk hdd
	storm hdd drr
	all_cold
	sample storm.hdd one "$(seconds_of sequential /mnt/d1/big)"
}

# What DRR costs where it can't help: nobody has the file in memory. And dm-linear, which does nothing.
part_miss() {
	local profile variant mib
	for profile in ram ssd hdd; do
		disk $profile
		mib=16
		[ $profile != hdd ] || mib=1
		for variant in $(in_turn thin linear drr); do
			all_cold
			sample miss.$profile.seq "$variant" "$(sequential "$(readers "$variant" 1)")"
		done
		for variant in $(in_turn thin linear drr); do
			all_cold
			sample miss.$profile.random "$variant" \
				"$(random_reads $mib buffered "$(readers "$variant" 1)")"
		done
	done
}

# And where there is nothing to share: files that the containers have written themselves.
part_unshared() {
	local file variant
	disk ram
	for variant in thin linear drr; do
		file=$(own "$variant")
		[ -e "$file" ] || head -c 64M /dev/urandom >"$file"
		sync "$file"
	done
	for variant in $(in_turn thin linear drr); do
		sample unshared.read "$variant" "$(own_file "$variant" read 1M 64M)"
		sample unshared.randread "$variant" "$(own_file "$variant" randread 4k 16M --direct=1)"
		sample unshared.write "$variant" "$(own_file "$variant" write 1M 256M --direct=1)"
		sample unshared.randwrite "$variant" "$(own_file "$variant" randwrite 4k 16M --direct=1)"
	done
}

# own VARIANT: a file that one of its containers has written.
own() { readers "$1" 1 | sed 's,/big,/own,'; }

# own_file VARIANT READ_OR_WRITE BLOCK_SIZE AMOUNT [OPTION]...: the throughput with that.
own_file() {
	throughput --rw="$2" --bs="$3" --size=64M --io_size="$4" --randseed="$ROUND" "${@:5}" \
		--name=job --filename="$(own "$1")"
}

part_md5() {
	local variant
	disk hdd
	warm
	for variant in $(in_turn thin drr); do
		sample md5.hdd "$variant" "$(seconds_of md5sum "$(readers "$variant" 1)")"
	done
}

# Writes of a page into shared blocks whose content d1 has in memory.
part_smallwrite() {
	local variant name before
	disk ram
	warm
	for variant in $(in_turn thin drr); do
		name=w$variant
		container "$name" "$([ "$variant" = drr ] || echo plain)"
		disk hdd
		before=$(data_bytes read)
		sample smallwrite.hdd "$variant" "$(throughput --rw=randwrite --bs=4k --direct=1 \
			--io_size=512k --randseed="$ROUND" --name=job --filename="/mnt/$name/big")"
		sample smallwrite.hdd.bytes "$variant" $(($(data_bytes read) - before))
		disk ram
		container_end "$name"
	done
}

# Four read the same again and again, with memory for two copies of it.
part_pressure() {
	local variant prefix before group=/sys/fs/cgroup/pressure
	mountpoint -q /sys/fs/cgroup || mount -t cgroup2 cgroup2 /sys/fs/cgroup
	echo +memory >/sys/fs/cgroup/cgroup.subtree_control
	mkdir -p $group
	echo $((FILE_BYTES * 2 + (32 << 20))) >$group/memory.max
	disk ssd
	for variant in $(in_turn thin drr); do
		prefix=d
		[ "$variant" = drr ] || prefix=p
		all_cold
		before=$(data_bytes read)
		sample pressure "$variant" "$(
			echo "$BASHPID" >$group/cgroup.procs
			seconds_of read_twice $prefix
		)"
		sample pressure.bytes "$variant" $(($(data_bytes read) - before))
	done
	rmdir $group
}

read_twice() {
	local i
	for i in 1 2 3 4 1 2 3 4; do
		cat "/mnt/$1$i/big" >/dev/null
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

# A file system that has nothing to do with it: pages added, dirtied and removed, with the module
# loaded and without.
part_bystander() {
	local variant
	for variant in $(in_turn without with); do
		if [ "$variant" = with ]; then
			modprobe dm-drr
		else
			modprobe -r dm-drr
		fi
		sample bystander "$variant" "$(seconds_of churn)"
	done
}

churn() {
	local i
	for i in 1 2 3; do
		evict /mnt/plain/big
		cat /mnt/plain/big >/dev/null
		head -c 100M /dev/zero >/mnt/plain/scratch
		: >/mnt/plain/scratch
	done
}

main() {
	local rounds=$1 part
	shift
	note fact kernel "$(uname -r)"
	note fact cpus "$(nproc)"
	note fact rounds "$rounds"
	note fact file_bytes $FILE_BYTES
	set_up 8
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
	take_down
	[[ " $* " != *" bystander "* ]] || for ((ROUND = 1; ROUND <= rounds; ROUND++)); do
		part_bystander
	done
}

main "$@"
