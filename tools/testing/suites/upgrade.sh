#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# drrctl upgrade: other builds of the modules come under devices that are in use, and whatever fails,
# the devices go on.

# shellcheck source=tools/testing/lib.sh
. "${0%/*}/../lib.sh"
# shellcheck source=tools/testing/attaching.sh
. "${0%/*}/../attaching.sh"

RELEASE=$(uname -r)
# Where drrctl keeps the files of what is loaded.
KEPT=/run/drrctl/modules
BUILDS=0

# What is replaced: dm-drr, and dm-thin-hooks where dm-thin-pool is the kernel's own.
OURS=(dm-drr)
! modprobe -n -q dm-thin-hooks || OURS+=(dm-thin-hooks)

file_of() { modinfo -n "$1"; }

# new_builds: puts another build of each module on disk: the same code under another build id.
new_builds() {
	local name at byte
	BUILDS=$(($(cat "$WORK/builds" 2>/dev/null || echo 16) + 1))
	echo $BUILDS >"$WORK/builds"
	byte=$(printf '%02x' $BUILDS)
	for name in "${OURS[@]}"; do
		at=$(LC_ALL=C grep -obUaP '\x04\0\0\0\x14\0\0\0\x03\0\0\0GNU\0' "$(file_of "$name")" | head -n 1 | cut -d: -f1)
		printf '%b' "\\x$byte" | dd of="$(file_of "$name")" bs=1 seek=$((at + 16)) conv=notrunc status=none
	done
}

# first_byte MODULE: of the build id of what is loaded.
first_byte() { od -An -v -tu1 -j16 -N1 "/sys/module/${1//-/_}/notes/.note.gnu.build-id" | tr -d ' '; }

# builds: of all modules.
builds() {
	local name
	for name in "${OURS[@]}"; do
		first_byte "$name"
	done
}

# builds_were BUILDS: they are still loaded.
builds_were() { [ "$(builds)" = "$1" ] || flunk "builds: $(builds), should be $1"; }

# builds_are NUMBER: all modules are loaded in that build.
builds_are() {
	local name
	for name in "${OURS[@]}"; do
		expect "build of $name" "$(first_byte "$name")" "$1"
	done
}

# failing PROGRAM CALL: has the program fail at its CALL-th call, in what $FAILING is before in PATH.
failing() {
	rm -rf "$FAILING"
	mkdir -p "$FAILING"
	cat >"$FAILING/$1" <<-END
	#!/bin/bash
	echo >>$FAILING/calls
	if [ \$(wc -l <$FAILING/calls) = $2 ]; then
		echo "$1: ERROR: nobody wants it" >&2
		exit 1
	fi
	exec $(command -v "$1") "\$@"
	END
	chmod +x "$FAILING/$1"
}
FAILING=$WORK/failing

# upgrade_fails TEXT...: exit code 1, and one line on stderr that has the texts.
upgrade_fails() {
	local rc=0 text
	PATH=$FAILING:$PATH "$CTL" upgrade >"$WORK/out" 2>"$WORK/err" || rc=$?
	expect "exit code: $(<"$WORK/err")" "$rc" 1
	expect "lines on stderr" "$(wc -l <"$WORK/err")" 1
	for text; do
		grep -qF -e "$text" "$WORK/err" || flunk "no '$text' in: $(<"$WORK/err")"
	done
}

# Two containers in use, one of them with a feature, and I/O on both.
two_in_use() {
	rm -f "$WORK/stop"
	echo 0 >"$WORK/rounds-one"
	echo 0 >"$WORK/rounds-two"
	mounted ext4 one base-ext4
	mounted ext4 two base-ext4
	ctl attach t-one
	ctl attach t-two --paranoid
	writer one &
	WRITERS=($!)
	writer two &
	WRITERS+=($!)
	on_exit "touch $WORK/stop; wait; gone one; gone two"
}

# A file is written, read back from the disk and compared, and so is one of the image's, until there's
# a file stop.
writer() {
	local dir=/mnt/t-$1
	local -i count=0
	while [ ! -e "$WORK/stop" ]; do
		cp "$REF/small" "$dir/new"
		sync -f "$dir"
		evict "$dir/new" "$dir/some"
		cmp "$dir/new" "$REF/small" || return 1
		cmp "$dir/some" "$REF/some" || return 1
		rm "$dir/new"
		count+=1
		echo $count >"$WORK/rounds-$1"
	done
}

# writers_end: both have done a round more by then, and end without an error.
writers_end() {
	local name rounds
	for name in one two; do
		rounds=$(cat "$WORK/rounds-$name")
		wait_for 60 more_rounds "$name" "$rounds"
	done
	touch "$WORK/stop"
	wait "${WRITERS[@]}" || flunk "wrong data, or an error"
}

more_rounds() { [ "$(cat "$WORK/rounds-$1")" -gt "$(($2 + 1))" ]; }

# attached_as_before: both are, with their features, and nothing else is left.
attached_as_before() {
	is_attached t-one || flunk "$(dmsetup table)"
	[ "$(dmsetup table t-two | cut -d' ' -f3,5-)" = "drr 1 paranoid" ] || flunk "$(dmsetup table)"
	wait_for 20 seconds_are 2
	[ ! -e /run/drrctl/upgrade ] || flunk "left behind: $(</run/drrctl/upgrade)"
	[ -z "$(ls /run/drrctl/detached)" ] || flunk "marked as detached by hand"
}

nothing_to_do() {
	two_in_use
	shows_upgrade "nothing to do: what is loaded is what is on disk"
	attached_as_before
	writers_end
}

# shows_upgrade TEXT ARGUMENTS...
shows_upgrade() {
	local text=$1
	shift
	"$CTL" upgrade "$@" >"$WORK/out" 2>"$WORK/err" || flunk "drrctl upgrade $*: $(<"$WORK/err")"
	[ ! -s "$WORK/err" ] || flunk "on stderr: $(<"$WORK/err")"
	grep -qF -e "$text" "$WORK/out" || flunk "no '$text' in: $(<"$WORK/out")"
}

# With watch running, which must neither come in between nor stop.
under_io() {
	local before watch=
	before=$(builds)
	two_in_use
	if [ -e /proc/net/netlink ]; then
		printf '%s\n' 'pools = ["pool"]' 'exclude = ["t-base-*"]' >"$WORK/drrctl.toml"
		"$CTL" watch --config "$WORK/drrctl.toml" 2>"$WORK/watch.log" &
		watch=$!
		on_exit "kill $watch; gone three"
	fi
	new_builds
	"$CTL" doctor >"$WORK/report" || flunk "$(<"$WORK/report")"
	grep -q "^warn *loaded *dm-drr is loaded in another build .* : drrctl upgrade" "$WORK/report" ||
		flunk "$(<"$WORK/report")"
	shows_upgrade "t-two  detached, and attached again" --dry-run
	builds_were "$before"
	attached_as_before
	shows_upgrade "module  dm-drr  updates/dm-drr.ko"
	builds_are "$BUILDS"
	attached_as_before
	if [ -n "$watch" ]; then
		thin_snap three one
		wait_for 20 is_attached t-three
		kill -0 $watch || flunk "watch has ended: $(<"$WORK/watch.log")"
		expect_fail grep -q "t-one\|t-two" "$WORK/watch.log"
		kill $watch
		gone three
	fi
	"$CTL" doctor >"$WORK/report" || flunk "$(<"$WORK/report")"
	expect_fail grep -q "another build" "$WORK/report"
	writers_end
}

# Devices that create has made: named, or given dm-linear in between.
made_by_hand() {
	local before
	before=$(builds)
	thin_snap top base-ext4
	"$CTL" create top t-top --no-donate
	on_exit "dm_remove top; dm_remove t-top"
	fs_mount ext4 top
	on_exit "umount /mnt/top"
	two_in_use
	new_builds
	refused 6 "top: drrctl attach hasn't made these drr tables" upgrade
	builds_were "$before"
	attached_as_before
	shows_upgrade "top  dm-linear in between" --force
	builds_are "$BUILDS"
	attached_as_before
	[ "$(dmsetup table top | cut -d' ' -f3,5-)" = "drr 1 no_donate" ] || flunk "$(dmsetup table top)"
	evict /mnt/top/some
	same /mnt/top/some "$REF/some"
	writers_end
}

# What is on disk can't be loaded: that is seen before anything is changed.
bad_files() {
	local file
	file=$(file_of dm-drr)
	two_in_use
	new_builds
	cp "$file" "$WORK/good.ko"
	on_exit "cp $WORK/good.ko $file"
	sed "s/vermagic=${RELEASE:0:3}/vermagic=1.1/" "$WORK/good.ko" >"$file"
	refused 1 "was built for kernel 1.1" upgrade
	rm "$file"
	refused 1 "modprobe finds no file of it" upgrade
	attached_as_before
	cp "$WORK/good.ko" "$file"
	ctl upgrade
	builds_are "$BUILDS"
	writers_end
}

# The first step after the devices fails: they get back what they had.
unload_fails() {
	local before
	two_in_use
	before=$(builds)
	new_builds
	failing rmmod 1
	upgrade_fails "dm-drr: can't unload it: rmmod: ERROR" "all is as before"
	builds_were "$before"
	attached_as_before
	ctl upgrade
	builds_are "$BUILDS"
	writers_end
}

# dm-drr is unloaded, and dm-thin-hooks is not.
second_unload_fails() {
	local before
	((${#OURS[@]} == 2)) || skip "the patched dm-thin-pool needs no hooks"
	two_in_use
	before=$(builds)
	new_builds
	failing rmmod 2
	upgrade_fails "dm-thin-hooks: can't unload it: rmmod: ERROR" "all is as before"
	builds_were "$before"
	attached_as_before
	rm -rf $KEPT
	failing rmmod 2
	upgrade_fails "dm-thin-hooks: can't unload it" "the new dm-drr was loaded nevertheless"
	expect "build of dm-drr" "$(first_byte dm-drr)" "$BUILDS"
	expect "build of dm-thin-hooks" "$(first_byte dm-thin-hooks)" $((BUILDS - 1))
	attached_as_before
	ctl upgrade
	builds_are "$BUILDS"
	writers_end
}

# The new module can't be loaded, and the old one is still there.
load_fails() {
	local before call
	two_in_use
	before=$(builds)
	new_builds
	for ((call = 1; call <= ${#OURS[@]}; call++)); do
		failing modprobe "$call"
		upgrade_fails "can't load it: modprobe: ERROR" "the old modules were loaded again"
		builds_were "$before"
		attached_as_before
	done
	writers_end
}

# The new module can't be loaded, and the old one is gone: the devices go on without drr, and the next
# upgrade gives it back.
load_fails_for_good() {
	two_in_use
	rm -rf $KEPT
	new_builds
	failing modprobe "${#OURS[@]}"
	upgrade_fails "dm-drr: can't load it: modprobe: ERROR" "and work so: t-" "t-one" "t-two" "drrctl upgrade"
	[ "$(target_of t-one) $(target_of t-two)" = "thin thin" ] || flunk "$(dmsetup table)"
	"$CTL" doctor >"$WORK/report" || true
	grep -q "^warn *upgrade .*without drr: t-[a-z]* t-[a-z]* : drrctl upgrade" "$WORK/report" || flunk "$(<"$WORK/report")"
	shows_upgrade "an earlier upgrade was interrupted"
	builds_are "$BUILDS"
	attached_as_before
	writers_end
}

# The new dm-drr is loaded, and doesn't take a table that the old one has taken: the old one is loaded
# again for all. Without a copy of it, the others have the new one.
new_one_refuses() {
	local before file
	file=$(file_of dm-drr)
	two_in_use
	before=$(builds)
	new_builds
	cp "$file" "$WORK/good.ko"
	on_exit "cp $WORK/good.ko $file"
	LC_ALL=C sed -i s/paranoid/parano1d/g "$file"
	rm -rf "$FAILING"
	upgrade_fails "t-two: the new dm-drr can't be attached: dm-drr refuses: " \
		"the old modules were loaded again, and all is as before"
	builds_were "$before"
	attached_as_before
	rm -rf $KEPT
	upgrade_fails "t-two: the modules are new, but drr couldn't be attached again: dm-drr refuses: "
	builds_are "$BUILDS"
	[ "$(target_of t-one) $(target_of t-two)" = "drr thin" ] || flunk "$(dmsetup table)"
	cp "$WORK/good.ko" "$file"
	new_builds
	cp "$file" "$WORK/good.ko"
	shows_upgrade "an earlier upgrade was interrupted"
	builds_are "$BUILDS"
	attached_as_before
	writers_end
}

# create keeps the modules, too.
create_keeps() {
	thin_snap top base-ext4
	rm -rf $KEPT
	"$CTL" create top t-top
	on_exit "dm_remove top; dm_remove t-top"
	expect "copies" "$(find $KEPT -type f | wc -l)" "${#OURS[@]}"
}

# Where a copy would fill /run, there is none, nor a part of one.
run_is_full() {
	thin_snap top base-ext4
	on_exit "dm_remove t-top; umount $KEPT"
	rm -rf $KEPT
	mkdir -p $KEPT
	mount -t tmpfs -o size=64k tmpfs $KEPT
	ctl attach t-top
	expect "files" "$(find $KEPT -mindepth 1 | wc -l)" 0
	ctl detach t-top
	umount $KEPT
	ctl attach t-top
	expect "copies" "$(find $KEPT -type f | wc -l)" "${#OURS[@]}"
}

# upgrade_until STEP ARGUMENTS...: in the background, stopped there.
upgrade_until() {
	DRRCTL_STOP_AT=$1 "$CTL" upgrade "${@:2}" >"$WORK/out" 2>"$WORK/err" &
	STOPPED=$!
	on_exit "kill -KILL $STOPPED"
	wait_for 30 is_stopped $STOPPED
}

# go_on: it ends with that exit code.
go_on() {
	local rc=0
	kill -CONT "$STOPPED"
	wait "$STOPPED" || rc=$?
	expect "exit code: $(<"$WORK/err")" "$rc" "$1"
}

# Somebody suspends a device after another one has been detached.
detach_fails() {
	local other before
	two_in_use
	before=$(builds)
	new_builds
	upgrade_until taken-out
	other=t-one
	[ "$(target_of t-one)" = drr ] || other=t-two
	dmsetup suspend $other
	go_on 6
	dmsetup resume $other
	grep -q "$other: .*suspended.*nothing has changed" "$WORK/err" || flunk "$(<"$WORK/err")"
	builds_were "$before"
	attached_as_before
	writers_end
}

# Somebody suspends a device while the modules are changed.
attach_fails() {
	two_in_use
	new_builds
	upgrade_until modules-loaded
	dmsetup suspend t-two
	go_on 1
	dmsetup resume t-two
	grep -q "t-two: the modules are new, but drr couldn't be attached again: is suspended" "$WORK/err" ||
		flunk "$(<"$WORK/err")"
	is_attached t-one || flunk "$(dmsetup table)"
	builds_are "$BUILDS"
	shows_upgrade "an earlier upgrade was interrupted"
	attached_as_before
	writers_end
}

# Somebody renames a device while the modules are changed.
renamed() {
	two_in_use
	new_builds
	upgrade_until modules-loaded
	dmsetup rename t-two t-zwei
	go_on 0
	dmsetup rename t-zwei t-two
	builds_are "$BUILDS"
	attached_as_before
	writers_end
}

# Wherever it is killed, the devices go on, and the next upgrade ends what it began.
killed() {
	local step
	two_in_use
	for step in taken-out modules-unloaded modules-loaded; do
		new_builds
		upgrade_until $step
		kill -KILL $STOPPED
		wait $STOPPED || true
		evict /mnt/t-one/some
		same /mnt/t-one/some "$REF/some"
		shows_upgrade "an earlier upgrade was interrupted"
		builds_are "$BUILDS"
		attached_as_before
	done
	writers_end
}

# Detached by hand after an upgrade that was interrupted: it stays so. And what has gone doesn't matter.
interrupted_and_changed() {
	two_in_use
	new_builds
	upgrade_until modules-loaded
	kill -KILL $STOPPED
	wait $STOPPED || true
	ctl attach t-one
	ctl detach t-one
	touch "$WORK/stop"
	wait
	gone two
	ctl upgrade
	[ "$(target_of t-one)" = thin ] || flunk "$(dmsetup table)"
	[ ! -e /run/drrctl/upgrade ] || flunk "left behind: $(</run/drrctl/upgrade)"
}

# upgrade_killed STEP ARGUMENTS...: it is killed there.
upgrade_killed() {
	upgrade_until "$@"
	kill -KILL $STOPPED
	wait $STOPPED || true
}

# reload NAME TABLE: makes it the active one.
reload() {
	dmsetup load "$1" --table "$2"
	dmsetup resume "$1"
}

number_of() { dmsetup info -c --noheadings --separator : -o major,minor "$1" | tr -d ' '; }

# The terminal's signals, and those of a service manager, while a module is unloaded: neither upgrade
# nor rmmod ends or stops.
signals_wait() {
	local rc=0 rmmod upgrade
	two_in_use
	new_builds
	rmmod=$(command -v rmmod)
	rm -rf "$FAILING"
	mkdir -p "$FAILING"
	cat >"$FAILING/rmmod" <<-END
	#!/bin/bash
	group=\$(cut -d' ' -f5 /proc/\$PPID/stat)
	for signal in HUP INT QUIT TERM TSTP TTIN TTOU USR1; do
		kill -s \$signal -- -\$group
	done
	sleep 0.2
	echo >>$FAILING/unloaded
	exec $rmmod "\$@"
	END
	chmod +x "$FAILING/rmmod"
	# Job control gives it a process group of its own, in which TSTP, TTIN and TTOU stop a program.
	set -m
	PATH=$FAILING:$PATH "$CTL" upgrade >"$WORK/out" 2>"$WORK/err" &
	upgrade=$!
	set +m
	on_exit "kill -KILL $upgrade"
	wait_for 60 has_ended $upgrade
	wait $upgrade || rc=$?
	expect "exit code: $(<"$WORK/err")" "$rc" 0
	expect "modules unloaded" "$(wc -l <"$FAILING/unloaded")" "${#OURS[@]}"
	builds_are "$BUILDS"
	attached_as_before
	writers_end
}

has_ended() { [ ! -e "/proc/$1" ] || grep -q '^State:	Z' "/proc/$1/status"; }

# What is in use after an upgrade that was interrupted counts more than its journal.
journal_is_old() {
	local sectors other
	thin_snap first base-ext4
	thin_snap second base-xfs
	sectors=$(blockdev --getsz /dev/mapper/t-first)
	"$CTL" create top t-first
	on_exit "dm_remove top; dm_remove t-first; dm_remove t-second"
	two_in_use
	new_builds
	upgrade_killed modules-loaded --force
	expect_state top "0 $sectors linear $(number_of t-first) 0"
	# A drr table on another device, and its former one gone; other features for an attached one.
	reload top "0 $sectors drr $(number_of t-second)"
	dm_remove t-first
	ctl attach t-one --paranoid
	new_builds
	shows_upgrade "top  dm-linear in between" --force
	expect_state top "0 $sectors drr $(number_of t-second)"
	[ "$(dmsetup table t-one | cut -d' ' -f3,5-)" = "drr 1 paranoid" ] || flunk "$(dmsetup table)"
	ctl detach t-one
	ctl attach t-one
	attached_as_before
	# Another linear table.
	new_builds
	upgrade_killed modules-loaded --force
	reload top "0 8 linear $(number_of t-second) 16"
	shows_upgrade "top  has another table by now, and keeps it"
	expect_state top "0 8 linear $(number_of t-second) 16"
	attached_as_before
	# The same linear table, and another thin device below it.
	reload top "0 $sectors drr $(number_of t-second)"
	new_builds
	upgrade_killed modules-loaded --force
	reload t-second "$(dmsetup table t-second | sed "s/ [0-9]*$/ $(thin_id base-xfs)/")"
	shows_upgrade "top  has another table by now, and keeps it"
	[ "$(target_of top)" = linear ] || flunk "$(dmsetup table)"
	attached_as_before
	# Only what isn't attached yet is left in the journal.
	new_builds
	upgrade_killed put-back
	expect "devices in the journal" "$(wc -l </run/drrctl/upgrade)" 1
	other=$(cut -f3 /run/drrctl/upgrade)
	[ "$(target_of "$other")" = thin ] || flunk "$(dmsetup table)"
	shows_upgrade "an earlier upgrade was interrupted"
	attached_as_before
	writers_end
}

# Without devices, nothing is left to be ended by the next upgrade.
no_devices() {
	rm -rf $KEPT
	new_builds
	failing modprobe "${#OURS[@]}"
	upgrade_fails "dm-drr: can't load it: modprobe: ERROR" "the old modules can't be loaded again"
	[ ! -e /run/drrctl/upgrade ] || flunk "left behind: $(</run/drrctl/upgrade)"
	modprobe dm-drr
	builds_are "$BUILDS"
}

not_loaded() {
	ctl detach t-base-ext4 2>/dev/null || true
	rmmod dm_drr
	shows_upgrade "nothing to do: dm-drr isn't loaded"
}

bases_up
run_case "nothing to do" nothing_to_do
run_case "under I/O, with watch" under_io
run_case "devices made by hand" made_by_hand
run_case "bad files" bad_files
run_case "unloading fails" unload_fails
run_case "unloading the second module fails" second_unload_fails
run_case "loading fails" load_fails
run_case "loading fails for good" load_fails_for_good
run_case "the new module refuses a table" new_one_refuses
run_case "create keeps the modules" create_keeps
run_case "/run is full" run_is_full
run_case "detaching fails" detach_fails
run_case "attaching fails" attach_fails
run_case "renamed" renamed
run_case "killed" killed
run_case "signals" signals_wait
run_case "the journal is older than the tables" journal_is_old
run_case "interrupted, and then changed" interrupted_and_changed
run_case "no devices" no_devices
run_case "not loaded" not_loaded
finish
