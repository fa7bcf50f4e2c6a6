#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# The part of the benchmark in which ten containers of the demo's image are launched at the same
# moment. Sourced by bench.sh; the image's layers are archives on the disks in $DRR_DISKS.

# shellcheck source=tools/demo/image.sh
. /drr/demo/image.sh

# launch_set_up ANSWER: the image, and what its service answers.
launch_set_up() {
	ANSWER=$1
	disk ram
	image_of_layers 600
	note fact launched ${#LAUNCHED[@]}
}

launch_take_down() {
	local at
	for ((at = ${#LAYERS[@]} - 1; at >= 0; at--)); do
		dm_remove "${LAYERS[at]}"
		thin_delete "${LAYERS[at]}"
	done
}

part_launch() {
	local variant
	for variant in $(in_turn thin drr); do
		launch_measured "$variant"
	done
}

# launch_measured VARIANT: the time until the last one has answered, from new containers on of which
# nothing is in memory.
launch_measured() {
	local variant=$1 container before
	disk ram
	for container in "${LAUNCHED[@]}"; do
		thin_snap "$container" app
		[ "$variant" = thin ] || drr_new "$container"
	done
	disk hdd
	sync
	echo 1 >/proc/sys/vm/drop_caches
	quiet
	before=$(data_bytes read)
	sample launch.hdd "$variant" "$(seconds_of launch_all "$variant")"
	sample launch.hdd.bytes "$variant" $(($(data_bytes read) - before))
	disk ram
	for container in "${LAUNCHED[@]}"; do
		[ "$(<"/tmp/answer-$container")" = "$ANSWER" ] ||
			flunk "$container, $variant, answered '$(<"/tmp/answer-$container")'"
		container_end "$container"
	done
}

# launch_all VARIANT: and waits for all answers.
launch_all() {
	local container device pids=() pid
	for container in "${LAUNCHED[@]}"; do
		device=/dev/mapper/$container
		[ "$1" = drr ] || device=/dev/mapper/t-$container
		(launch "$container" "$device" >"/tmp/answer-$container") &
		pids+=($!)
	done
	for pid in "${pids[@]}"; do
		wait "$pid" || flunk "a container's service failed"
	done
}
