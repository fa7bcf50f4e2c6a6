#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# The part of the benchmark with the workload of the paper: containers with TensorFlow are launched, and
# read the model that a sibling has. Their image has four layers (scripts/tensorflow-image.sh), archives
# on the disks in $DRR_DISKS. Sourced by bench.sh, after launch.sh and overhead.sh. This part has a
# guest of its own.

# Many variables here are read by the functions of those files.
# shellcheck disable=SC2034

TENSORFLOW_IMAGE_MIB=2300

# tensorflow_set_up ANSWER COUNT: what the image's service answers, and how many containers to launch.
tensorflow_set_up() {
	LAYERS=(debian python tensorflow app) IMAGE_KIND=ext4 ENTER=(enter_with_proc)
	MODEL=/srv/app/model
	LAUNCHED=("${LAUNCHED[@]:0:$2}")
	RAM_DISK_MIB=$((TENSORFLOW_IMAGE_MIB + 200)) LAYERS_MIB=$((TENSORFLOW_IMAGE_MIB + 100)) EROFS_MIB=0
	set_up_pool
	launch_set_up "$1"
	image_of_layers $TENSORFLOW_IMAGE_MIB
}

# enter_with_proc ROOT COMMAND [ARG]...: TensorFlow reads /proc. The mount is gone with the process.
enter_with_proc() {
	# shellcheck disable=SC2016 # expanded by the inner shell
	exec unshare --mount bash -c 'mount -t proc proc "$1/proc" && exec chroot "$@"' - "$@"
}

tensorflow_take_down() {
	local at
	for ((at = ${#LAYERS[@]} - 1; at >= 0; at--)); do
		dm_remove "${LAYERS[at]}"
		thin_delete "${LAYERS[at]}"
	done
	launch_take_down
	take_down_pool
}

part_tensorflow() {
	tensorflow_launches
	tensorflow_reads
	tensorflow_misses
}

# --- launches ------------------------------------------------------------------------

# At once on both kinds of disk, and one after the other.
tensorflow_launches() {
	local variant
	for variant in $(in_turn thin drr overlay); do
		ATIME=relatime launch_measured tensorflow.hdd "$variant" hdd launch_all
	done
	for variant in $(in_turn thin drr overlay); do
		ATIME=relatime AFTERWARDS=serve_all launch_measured tensorflow.ssd "$variant" ssd launch_all
	done
	for variant in $(in_turn thin drr overlay); do
		ATIME=relatime AFTERWARDS=serve_each \
			launch_measured tensorflow.serial "$variant" hdd launch_each
	done
}

# serve_again CONTAINER: what is left of a launch if the container has all in its page cache.
serve_again() { serve "/mnt/$1"; }

# serve_all WHAT VARIANT: samples how long that takes all of them at once, and how much of it still
# comes from the disk.
serve_all() {
	local sectors
	quiet
	sectors=$(disk_reads "$2" 2)
	sample tensorflow.floor "$2" "$(seconds_of at_once serve_again)"
	sample tensorflow.floor.bytes "$2" $((($(disk_reads "$2" 2) - sectors) * 512))
}

# serve_each WHAT VARIANT: the same, one after the other; and who has read whose data.
serve_each() {
	[ "$2" != drr ] || /drr/bin/drrctl heatmap pool -o /out/tensorflow-heatmap.svg
	quiet
	sample tensorflow.serialfloor "$2" "$(seconds_of one_by_one)"
}

one_by_one() {
	local container
	for container in "${LAUNCHED[@]}"; do
		(serve_again "$container" >"/tmp/answer-$container")
	done
}

# --- the model's file ----------------------------------------------------------------

# A container reads the model that a sibling has in memory.
tensorflow_reads() {
	local TURNS=3 VARIANTS=(thin drr) profile
	disk ram
	thin_snap s app
	container_mount s drr "${MODEL#/}"
	cat "/mnt/s$MODEL" >/dev/null
	thin_snap r app
	for profile in ssd hdd; do
		disk $profile
		in_turns sibling_read $profile
	done
	disk ram
	thin_delete r
	container_end s
}

# sibling_read VARIANT PROFILE
sibling_read() {
	local file=/mnt/r$MODEL ticks
	container_mount r "$1" "${MODEL#/}"
	quiet
	ticks=$(cpu_ticks)
	sample "tensorflow.read.$2" "$1" "$(sequential "$file")"
	sample "tensorflow.read.$2.cpu" "$1" $(($(cpu_ticks) - ticks))
	evict "$file"
	quiet
	sample "tensorflow.md5.$2" "$1" "$(seconds_of md5sum "$file")"
	if [ "$1" = drr ]; then
		sample "tensorflow.read.$2" pagecache "$(cached "$file")"
		sample "tensorflow.md5.$2" pagecache "$(seconds_of md5sum "$file")"
	fi
	container_unmount r
}

# Nobody has it in memory.
tensorflow_misses() {
	local TURNS=3 VARIANTS=(thin drr linear) profile
	disk ram
	thin_snap m app
	for profile in ssd hdd; do
		disk $profile
		in_turns model_miss $profile
	done
	disk ram
	thin_delete m
}

# model_miss VARIANT PROFILE: every loop opens the file anew, and so begins cold.
model_miss() {
	local loops=4 ticks
	[ "$2" = ssd ] || loops=2
	container_mount m "$1" "${MODEL#/}"
	quiet
	ticks=$(cpu_ticks)
	sample "tensorflow.miss.$2" "$1" "$(throughput --rw=read --bs=1M --loops=$loops --name=job \
		--filename="/mnt/m$MODEL")"
	sample "tensorflow.miss.$2.cpu" "$1" $(($(cpu_ticks) - ticks))
	container_unmount m
}
