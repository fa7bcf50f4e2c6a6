#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# The benchmark's density: how many containers of the demo's image fit into 2 GiB, for pages and programs. They are
# started one after the other and stay; each goes through the model of 104 MB again and again, by read() and by a mapping
# (dense.py). They fit as long as a turn takes, on the average, no more than twice what it takes one that is alone and has
# all of it cached. Sourced by bench.sh, after launch.sh.

DENSE_BYTES=$((2 << 30))
DENSE_MOST=80
DENSE_DIR=/tmp/dense

part_density() { with_image ext4 densities; }

densities() {
	local variant rest	# of a line
	fs_mount ext4 app /dev/mapper/app
	read -r CHECKSUM rest < <(cksum -a crc32b "/mnt/app$MODEL")
	umount /mnt/app
	for variant in $(in_turn thin drr overlay); do
		density "$variant"
	done
}

# density VARIANT
density() {
	local variant=$1 count=0 more fits=0 alone bytes number
	DENSE=() DENSE_IN=() DENSE_OUT=() DENSE_PID=()
	mkdir "$DENSE_DIR"
	sync
	echo 3 >/proc/sys/vm/drop_caches
	group_new dense $DENSE_BYTES
	image_up "$variant" hdd
	dense_start "$variant" D1
	{ dense_round && dense_round; } || flunk "one container doesn't fit"
	alone=$SECONDS_EACH
	say_dense "$variant" 1 "$alone" 0
	while ((count < DENSE_MOST)); do
		# one in eight more, so that the number is known that well
		more=$((${#DENSE[@]} / 8 + 1))
		while ((more-- > 0)); do
			dense_start "$variant" "D$((${#DENSE[@]} + 1))"
		done
		count=${#DENSE[@]}
		# those that are new have their first turn, which is a launch's, here
		dense_round || break
		bytes=$(disk_reads "$variant" 2)
		dense_round || break
		bytes=$((($(disk_reads "$variant" 2) - bytes) * 512))
		say_dense "$variant" "$count" "$SECONDS_EACH" "$bytes"
		awk -v turn="$SECONDS_EACH" -v alone="$alone" 'BEGIN { exit turn > 2 * alone }' || break
		fits=$count
	done
	sample density "$variant" "$fits"
	sample density.alone "$variant" "$alone"
	for number in "${!DENSE[@]}"; do
		dense_end "$number"
	done
	image_down "$variant" "${DENSE[@]}"
	group_end dense
	rm -r "$DENSE_DIR"
}

# say_dense VARIANT COUNT SECONDS BYTES
say_dense() {
	printf '    %-8s %3d containers: a turn %.3f s, %d MiB from the disk in a round\n' "$1" "$2" "$3" $(($4 >> 20))
	note dense "$@"
}

# dense_start VARIANT NAME: a container with the program.
dense_start() {
	local pipe=$DENSE_DIR/$2 to from
	container_new "$@"
	root_mount "$@"
	mkfifo "$pipe.in" "$pipe.out"
	exec {to}<>"$pipe.in" {from}<>"$pipe.out"
	(
		in_group dense exec_dense "$2"
	) <"$pipe.in" >"$pipe.out" 2>"$pipe.err" {to}>&- {from}>&- &
	DENSE+=("$2")
	DENSE_IN+=("$to") DENSE_OUT+=("$from") DENSE_PID+=($!)
}

exec_dense() {
	exec chroot "/mnt/$1" /usr/bin/python3 -B -c "$(</drr/bench/dense.py)" "$MODEL"
}

# dense_turn NUMBER: of that container; leaves in $TURN how many seconds it took. Fails if the program has ended, for want
# of memory. Not in a subshell: wrong bytes end the benchmark.
dense_turn() {
	local checksum
	echo >&"${DENSE_IN[$1]}"
	until read -r -t 5 TURN checksum <&"${DENSE_OUT[$1]}"; do
		kill -0 "${DENSE_PID[$1]}" 2>/dev/null || return 1
	done
	[ "$checksum" = "$CHECKSUM" ] || flunk "${DENSE[$1]} has read something else: $checksum"
}

# dense_round: a turn of each; leaves in $SECONDS_EACH how many seconds they took on the average.
dense_round() {
	local number all=()
	for number in "${!DENSE[@]}"; do
		dense_turn "$number" || return
		all+=("$TURN")
	done
	SECONDS_EACH=$(printf '%s\n' "${all[@]}" | awk '{ sum += $1 } END { printf "%.6f", sum / NR }')
}

# dense_end NUMBER: ends the program.
dense_end() {
	local to=${DENSE_IN[$1]} from=${DENSE_OUT[$1]}
	exec {to}>&- {from}>&-
	kill "${DENSE_PID[$1]}" 2>/dev/null || :
	wait "${DENSE_PID[$1]}" || :
}
