#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# Parts of the benchmark with less memory than the containers would fill. Sourced by bench.sh.

# pressure_new BYTES: a control group with that much memory for pages, and some for programs.
pressure_new() {
	group_new pressure $(($1 + (32 << 20)))
}

# re_read WHAT VARIANT COMMAND...: time, and bytes from the disk, of a command that starts cold.
re_read() {
	local before
	all_cold
	before=$(data_bytes read)
	sample "$1" "$2" "$(in_group pressure seconds_of "${@:3}")"
	sample "$1.bytes" "$2" $(($(data_bytes read) - before))
}

# Four read the same again and again, with memory for two copies of it.
part_pressure() {
	local variant
	disk ssd
	pressure_new $((FILE_BYTES * 2))
	for variant in $(in_turn thin drr); do
		re_read pressure "$variant" read_twice "$(prefix "$variant")"
	done
	group_end pressure
}

read_twice() {
	local i
	for i in 1 2 3 4 1 2 3 4; do
		cat "/mnt/$1$i/big" >/dev/null
	done
}

# Four re-read two thirds of the same, each from another place on, and a file of its own besides. There
# is memory for one copy of everything, and half as much again.
part_mixed() {
	local variant unique=$((FILE_BYTES + 4 * ONLY_BYTES))
	note fact mixed_bytes $unique
	disk ssd
	pressure_new $((unique * 3 / 2))
	for variant in $(in_turn thin drr); do
		# shellcheck disable=SC2046 # paths without spaces
		evict $(mixed_files d) $(mixed_files p)
		# shellcheck disable=SC2046
		re_read mixed "$variant" /drr/bin/bench-mixed 4 $(mixed_files "$(prefix "$variant")")
	done
	group_end pressure
}

# mixed_files PREFIX: of four containers, the file that all read and one of their own.
mixed_files() {
	local i
	for i in 1 2 3 4; do
		echo "/mnt/$1$i/big /mnt/$1$i/only$i"
	done
}

# Random reads and some writes of four, with memory for two copies: hits, and what could have been.
part_hitrate() {
	local i name value
	disk ram
	all_cold
	for i in 1 2 3 4; do
		container "h$i" drr
	done
	pressure_new $((FILE_BYTES * 2))
	(in_group pressure /drr/bin/bench-hitrate "$ROUND" 40000 h1 h2 h3 h4) >/tmp/hitrate
	group_end pressure
	while read -r name value; do
		sample "hitrate.${name%.*}" "${name#*.}" "$value"
	done </tmp/hitrate
	for i in 1 2 3 4; do
		container_end "h$i"
	done
}
