#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# The module's tracepoints, through tracefs: each event with the right fields, reason by reason, as
# many of each as the status counts, and switched on and off under load. Raw devices: `donor` has the
# content of `base` in memory, `receiver` reads and writes past the page cache.

# shellcheck source=tools/testing/lib.sh
. "${0%/*}/../lib.sh"

MIB=4
PAGES=$((MIB * 256))
T=/sys/kernel/tracing
EVENTS=$T/events/drr

devices() {
	pool_up 64
	on_exit 'exec 7<&-; all_down'
	meta_table "0 $(sectors /dev/$META_DISK) linear /dev/$META_DISK 0"
	random_file base ${MIB}M
	thin_new base $MIB
	dd if="$REF/base" of=/dev/mapper/t-base bs=1M oflag=direct status=none
	thin_snap donor base
	thin_snap receiver base
	drr_new donor
	drr_new receiver
	exec 7</dev/mapper/donor
}

# donor_reads: all of it, with its page cache.
donor_reads() { dd if=/dev/mapper/donor of=/dev/null bs=1M status=none; }

# reads AT BYTES: the receiver, past its page cache.
reads() {
	dd if=/dev/mapper/receiver of="$WORK/part" iflag=direct,skip_bytes,count_bytes bs="$2" \
		skip="$1" count="$2" status=none
}

# writes AT BYTES [FLAG...]: the receiver.
writes() {
	dd if=/dev/urandom of=/dev/mapper/receiver iflag=fullblock oflag=direct,seek_bytes bs="$2" \
		seek="$1" count=1 conv=notrunc status=none
}

# trace_on: from now on, and so are the counters.
trace_on() {
	dmsetup message donor 0 reset_stats
	dmsetup message receiver 0 reset_stats
	echo 8192 >$T/buffer_size_kb
	echo >$T/trace
	echo 1 >$EVENTS/enable
}

# trace_off: what was traced is in $WORK/events, a line each that begins with the event's name.
trace_off() {
	echo 0 >$EVENTS/enable
	! grep -h "^\(overrun\|dropped events\): [^0]" $T/per_cpu/cpu*/stats || flunk "events were lost"
	sed -n 's/^.* \(drr_[a-z_]*\): /\1 /p' $T/trace >"$WORK/events"
}

# number NAME: a device's, as events have it.
number() { dmsetup info -c --noheadings --separator , -o major,minor "$1"; }

# events PATTERN RANGE: so many of the events are like that.
events() {
	local found
	found=$(grep -Ec "^$1$" "$WORK/events" || true)
	within "$found" "$2" || flunk "$found events, should be $2: $1: $(head -n 40 "$WORK/events")"
}

# sum FIELD PATTERN: of a field of those.
sum() { grep -E "^$2" "$WORK/events" | awk -v field="$1" '{ sum += $field } END { print sum + 0 }'; }

# ended PATTERN REASON: pages, whose bits are counted.
ended() {
	local mask pages=0
	while read -r mask; do
		for ((; mask; mask &= mask - 1)); do pages=$((pages + 1)); done
	done < <(grep -E "^drr_record_end $1.* $2$" "$WORK/events" | awk '{ print $13 }')
	echo $pages
}

# agree: events and counters tell the same.
agree() {
	local name of reason
	for name in donor receiver; do
		of="dev $(number $name) thin $(thin_id $name) "
		events "drr_hit $of.*" "$(stat_of $name hits)"
		expect "sectors served to $name" "$(sum 9 "drr_hit $of")" "$(stat_of $name hit_sectors)"
		for reason in unshared metadata norecord changed stale layout left; do
			events "drr_miss $of.* $reason" "$(stat_of $name miss_$reason)"
		done
		expect "sectors recorded by $name" $(($(sum 13 "drr_record $of") * 8)) \
			"$(stat_of $name recorded_sectors)"
		events "drr_whole_write $of.*" "$(stat_of $name whole_writes)"
		for reason in removed read changed dropped differed; do
			expect "pages of $name: $reason" "$(ended "$of" $reason)" \
				"$(stat_of $name ended_$reason)"
		done
	done
}

# Programs find them by these names.
formats() {
	local event fields is
	devices
	while read -r event fields; do
		is=$(sed -n '/common_/d; s/^\tfield:.* \([a-z_]*\)\(\[\]\)\?;.*/\1/p' "$EVENTS/$event/format")
		[ "${is//$'\n'/ }" = "$fields" ] || flunk "fields of $event: $is"
	done <<-'EOF'
		drr_hit dev thin_id sector nr_sector donor_dev donor_thin_id donors
		drr_miss dev thin_id sector nr_sector reason
		drr_follow dev thin_id sector nr_sector
		drr_whole_write dev thin_id sector nr_sector
		drr_record dev thin_id pool block page nr_pages
		drr_record_end dev thin_id pool block page pages reason
	EOF
	expect "events" "$(find $EVENTS -mindepth 1 -type d | wc -l)" 6
}

hits_and_misses() {
	local donor receiver
	devices
	donor="dev $(number donor) thin $(thin_id donor)"
	receiver="dev $(number receiver) thin $(thin_id receiver)"
	trace_on
	donor_reads
	reads 65536 65536
	# the rest of a block that is mapped by nobody else now
	writes 131072 65536
	reads 131072 4096
	# a part of a page
	reads 1024 512
	trace_off
	expect "sectors that the donor missed" "$(sum 9 "drr_miss $donor .* norecord")" $((MIB * 2048))
	events "drr_miss $donor sector 0 \+ [0-9]+ norecord" 1
	expect "pages recorded" "$(sum 13 "drr_record $donor pool [0-9]+ block")" $PAGES
	expect "blocks recorded" "$(grep "^drr_record " "$WORK/events" | cut -d ' ' -f 9 | sort -u |
		wc -l)" $((MIB * 16))
	events "drr_hit $receiver sector 128 \+ 128 donor ${donor#dev } of 1" 1
	events "drr_miss $receiver sector 256 \+ 8 unshared" 1
	events "drr_hit $receiver sector 2 \+ 1 donor ${donor#dev } of 1" 1
	agree
	# one kind only
	echo 'reason == "unshared"' >$EVENTS/drr_miss/filter
	on_exit "echo 0 >$EVENTS/drr_miss/filter"
	xfs_io -r -c "fadvise -d 4096 4096" /dev/mapper/donor
	trace_on
	reads 131072 4096
	reads 4096 4096
	trace_off
	expect "misses of another kind" "$(stat_of receiver miss_norecord)" 1
	events "drr_miss .* unshared" 1
	events "drr_miss .* norecord" 0
}

# What the manual shows.
histogram() {
	local keys='hist:keys=dev,reason:vals=nr_sector' event=$EVENTS/drr_miss
	[ -e $event/hist ] || skip "the kernel has no histograms of events"
	devices
	echo "$keys" >$event/trigger
	donor_reads
	writes 131072 65536
	reads 131072 4096
	grep -q "reason: norecord .*nr_sector: *$((MIB * 2048))$" $event/hist ||
		flunk "$(cat $event/hist)"
	grep -q "reason: unshared .*nr_sector: *8$" $event/hist || flunk "$(cat $event/hist)"
	echo "!$keys" >$event/trigger
}

whole_writes() {
	devices
	donor_reads
	trace_on
	writes 8192 4096
	writes 12288 4096
	trace_off
	events "drr_whole_write dev $(number receiver) thin $(thin_id receiver) sector 16 \+ 8" 1
	events "drr_whole_write .*" 1
	agree
}

ends() {
	local donor
	devices
	donor="dev $(number donor) thin $(thin_id donor) pool [0-9]+ block [0-9]+"
	trace_on
	donor_reads
	xfs_io -r -c "fadvise -d 4096 8192" /dev/mapper/donor
	dd if=/dev/zero of=/dev/mapper/donor bs=4k seek=20 count=1 conv=notrunc status=none
	xfs_io -c "fzero 132096 512" /dev/mapper/donor
	# the receiver finds out which pages were modified
	reads 65536 65536
	reads 131072 65536
	trace_off
	events "drr_record_end $donor page 0 pages 0x2 removed" 1
	events "drr_record_end $donor page 0 pages 0x4 removed" 1
	events "drr_record_end $donor page 0 pages 0x[0-9a-f]+ changed" 2..
	agree
	# its target is another's
	evict /dev/mapper/donor
	donor_reads
	trace_on
	dmsetup suspend donor
	dmsetup load donor --table "$(drr_table donor)"
	dmsetup resume donor
	trace_off
	expect "pages of a target that has gone" "$(ended "$donor" dropped)" $((PAGES - 64))..
}

rolled_back() {
	devices
	donor_reads
	trace_on
	meta_table "0 $(sectors /dev/$META_DISK) flakey /dev/$META_DISK 0 0 60 1 error_writes"
	writes 0 65536 || true
	sync /dev/mapper/t-receiver || true
	wait_for 30 pool_is_read_only
	reads 65536 65536
	reads 65536 65536
	trace_off
	events "drr_miss .* stale" 1..
	expect "sectors served" "$(stat_of receiver hit_sectors)" 0
	agree
}

pool_is_read_only() { [[ $(dmsetup status pool) == *" ro "* ]]; }

# slow_disk MILLISECONDS: every request takes so much longer.
slow_disk() {
	on_exit data_healthy
	data_table "0 $(sectors "/dev/$DATA_DISK") delay /dev/$DATA_DISK 0 $1"
}

donor_missed() { (($(stat_of donor miss_norecord))); }

# follows MILLISECONDS: the receiver's read of what the donor reads on a disk so slow. Nobody knows how long reads
# took before.
follows() {
	local name
	evict /dev/mapper/donor
	for name in donor receiver; do
		dmsetup suspend --nolockfs $name
		dmsetup resume $name
	done
	slow_disk "$1"
	trace_on
	dd if=/dev/mapper/donor of=/dev/null bs=64k count=1 status=none &
	wait_for 5 donor_missed
	reads 0 65536
	wait $!
	trace_off
	data_healthy
}

followed() {
	local donor receiver
	[ "${DRR_SLOW:-1}" = 1 ] || skip "less than a second is too short on this kernel"
	devices
	donor="$(number donor) thin $(thin_id donor)"
	receiver="dev $(number receiver) thin $(thin_id receiver) sector 0 \+ 128"
	follows 700
	events "drr_follow $receiver" 1
	events "drr_hit $receiver donor $donor of 1" 1
	agree
	# that takes too long
	follows 3000
	events "drr_follow $receiver" 1
	events "drr_miss $receiver left" 1
	agree
}

# Readers and a writer, while events come and go; what is read is right, and nothing is left behind.
toggled() {
	local pids=() i
	devices
	trace_on
	trace_off
	for i in 1 2; do
		(
			while [ ! -e "$WORK/enough" ]; do
				evict /dev/mapper/donor
				cmp /dev/mapper/donor "$REF/base" || exit 1
				cmp <(dd if=/dev/mapper/receiver bs=1M count=2 iflag=direct status=none) \
					<(head -c 2M "$REF/base") || exit 1
			done
		) &
		pids+=($!)
	done
	(
		while [ ! -e "$WORK/enough" ]; do
			writes $((3 << 20)) 4096 || exit 1
			blkdiscard -f -o $((3 << 20)) -l 64k /dev/mapper/receiver || exit 1
		done
	) &
	pids+=($!)
	on_exit "touch $WORK/enough; wait; rm $WORK/enough"
	for ((i = 0; i < 30; i++)); do
		echo 1 >$EVENTS/enable
		sleep 0.05
		echo 0 >$EVENTS/enable
		echo $((i & 1)) >$EVENTS/drr_hit/enable
	done
	grep -q "drr_hit: " $T/trace || flunk "nothing was traced"
	touch "$WORK/enough"
	for i in "${pids[@]}"; do
		wait "$i" || flunk "something went wrong under the events"
	done
	echo 0 >$EVENTS/enable
}

# The module goes while its events are on.
unloaded() {
	echo 1 >$EVENTS/enable
	modprobe -r dm-drr
	! [ -e $EVENTS ] || flunk "events without a module"
	modprobe dm-drr
	[ "$(cat $EVENTS/enable)" = 0 ] || flunk "they are on"
}

[ -d $T/events ] || { echo "1..0 # SKIP no tracefs"; exit; }
modprobe dm-drr
run_case "fields" formats
run_case "hits and misses" hits_and_misses
run_case "histogram of misses" histogram
run_case "whole writes" whole_writes
run_case "records end: removed, changed, dropped" ends
run_case "nothing is served after a roll-back" rolled_back
run_case "reads that follow others" followed
run_case "on and off under load" toggled
run_case "unloaded while on" unloaded
finish
