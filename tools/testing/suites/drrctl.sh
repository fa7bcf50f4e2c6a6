#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# drrctl, from end to end: what it makes, what it shows of it, and each of its errors.

# shellcheck source=tools/testing/lib.sh
. "${0%/*}/../lib.sh"

CTL=${0%/*}/../bin/drrctl
PTY=${0%/*}/../bin/drr-pty

# refused CODE TEXT ARGUMENTS...: that exit code, nothing on stdout, and one line on stderr that
# has the text.
refused() {
	local code=$1 text=$2 rc=0
	shift 2
	"$CTL" "$@" >"$WORK/out" 2>"$WORK/err" || rc=$?
	expect "exit code of drrctl $*: $(<"$WORK/err")" "$rc" "$code"
	[ ! -s "$WORK/out" ] || flunk "on stdout: $(<"$WORK/out")"
	expect "lines on stderr" "$(wc -l <"$WORK/err")" 1
	grep -q "^drrctl: .*: .*: ." "$WORK/err" || flunk "not WHAT: WHY: REMEDY: $(<"$WORK/err")"
	grep -qF -e "$text" "$WORK/err" || flunk "no '$text' in: $(<"$WORK/err")"
}

# shows TEXT ARGUMENTS...: stdout has the text, and no escape sequences; stderr is empty.
shows() {
	local text=$1
	shift
	"$CTL" "$@" >"$WORK/out" 2>"$WORK/err" || flunk "drrctl $*: $(<"$WORK/err")"
	[ ! -s "$WORK/err" ] || flunk "on stderr: $(<"$WORK/err")"
	grep -qF -e "$text" "$WORK/out" || flunk "no '$text' in: $(<"$WORK/out")"
	! grep -q $'\e' "$WORK/out" || flunk "escape sequences of drrctl $*"
}

# json_says FILTER WANTED ARGUMENTS...
json_says() {
	local filter=$1 wanted=$2 is
	shift 2
	is=$("$CTL" "$@" --json | jq -cr "$filter")
	[ "$is" = "$wanted" ] || flunk "$filter of drrctl $*: '$is', should be '$wanted'"
}

raw_write() {
	dd if=/dev/urandom of="/dev/mapper/$1" bs=1M seek="$2" count="$3" oflag=direct \
		conv=notrunc status=none
}

# Two siblings: the first read all of the image, the second was served from its page cache.
siblings() {
	thin_new image 16
	raw_write t-image 0 4
	thin_snap one image
	thin_snap two image
	"$CTL" create one t-one
	"$CTL" create two /dev/mapper/t-two --no-donate
	exec 7</dev/mapper/one
	dd if=/dev/mapper/one of=/dev/null bs=1M count=4 status=none
	dd if=/dev/mapper/two of=/dev/null bs=1M count=4 iflag=direct status=none
}

# doctor CODE: its report goes to $WORK/report and $WORK/report.json, its exit code is CODE.
doctor() {
	local rc=0
	"$CTL" doctor >"$WORK/report" 2>"$WORK/err" || rc=$?
	expect "exit code of doctor: $(<"$WORK/report")" "$rc" "$1"
	expect "lines on stderr" "$(wc -l <"$WORK/err")" "$1"
	! grep -vE '^(ok|warn|fail)  +[a-z-]+ +.' "$WORK/report" || flunk "not a finding"
	"$CTL" doctor --json >"$WORK/report.json" 2>/dev/null || true
}

# finds STATE CHECK TEXT [REMEDY]: a line of the last report.
finds() {
	awk -v state="$1" -v check="$2" -v text="$3" -v remedy="${4:-}" '$1 == state && $2 == check &&
		index($0, text) && (remedy == "" ? !index($0, " : ") : index($0, " : " remedy)) { found = 1 }
		END { exit !found }' "$WORK/report" || flunk "no $1 $2 '$3 : ${4:-}' in: $(<"$WORK/report")"
}

# What the modules of this guest are: dm-thin-pool is patched, or there is dm-thin-hooks.
provider() { modprobe -n -q dm-thin-hooks && echo stock || echo patched; }

doctor_before() {
	local folder
	folder=/lib/modules/$(uname -r)
	doctor 0
	finds ok module "dm-drr: updates/dm-drr.ko"
	finds warn loaded "dm-drr isn't loaded" "modprobe dm-drr"
	finds warn device-mapper "doesn't have the target" "modprobe dm-drr"
	finds ok pool "pool: rw, 0 active thin devices, 0 with drr"
	case $(provider) in
	patched)
		finds ok provider "patched: "
		finds warn module "updates/dm-thin-pool.ko replaces the kernel's own" "if that isn't meant"
		;;
	stock)
		finds ok provider "stock, once"
		finds ok ftrace "can be traced"
		# 7.3 doesn't turn it off any more
		if sysctl -q kernel.ftrace_enabled=0; then
			on_exit "sysctl -q kernel.ftrace_enabled=1"
			doctor 1
			finds fail ftrace "can't be traced" "sysctl kernel.ftrace_enabled=1"
			sysctl -q kernel.ftrace_enabled=1
		fi
		;;
	esac
	mv "$folder/updates/dm-drr.ko" /tmp/
	on_exit "mv /tmp/dm-drr.ko $folder/updates/"
	doctor 1
	finds fail module "dm-drr isn't in $folder: dm-drr-dkms isn't installed" "install the package dm-drr-dkms"
	expect "usable" "$(jq 'if .usable then 1 else 0 end' "$WORK/report.json")" 0
	# That of another kernel, of which there is nothing.
	! "$CTL" doctor --kernel 1.2.3 >"$WORK/report" 2>/dev/null || flunk "found something"
	finds fail module "there is no /lib/modules/1.2.3" "install the kernel's package"
	"$CTL" doctor --kernel "$(uname -r)" --json >"$WORK/report.json" 2>/dev/null || true
	[ "$(jq -r .kernel "$WORK/report.json")" = "$(uname -r)" ] || flunk "$(<"$WORK/report.json")"
}

doctor_with_devices() {
	local folder
	folder=/lib/modules/$(uname -r)
	doctor 0
	finds ok loaded "dm-drr is loaded, build id $(od -An -v -tx1 -j16 /sys/module/dm_drr/notes/.note.gnu.build-id |
		tr -d ' \n' | head -c 12)"
	finds ok device-mapper "the target drr $(dmsetup targets | sed -n 's/^drr *v//p')"
	finds ok provider "$(provider): "
	[ "$(jq -r .provider "$WORK/report.json")" = "$(provider)" ] || flunk "$(<"$WORK/report.json")"
	[ "$(jq -r '.pools[] | "\(.name) \(.mode) \(.thin_devices) \(.with_drr)"' "$WORK/report.json")" = \
		"pool rw $(dmsetup ls --target thin | wc -l) $(dmsetup ls --target drr | wc -l)" ] ||
		flunk "$(<"$WORK/report.json")"
	# Somebody else sees less, and is told so.
	chmod 755 /drr /drr/bin
	setpriv --reuid 1000 --regid 1000 --clear-groups "$CTL" doctor >"$WORK/report" ||
		flunk "failed for a user: $(<"$WORK/report")"
	finds warn device-mapper "only root sees pools" "run this as root"
	finds ok provider "$(provider): "
	mv /dev/mapper/control "$WORK/"
	on_exit "mv $WORK/control /dev/mapper/"
	doctor 0
	finds warn device-mapper "there is no /dev/mapper/control" "modprobe dm-drr"
	# What is loaded stays good when its file goes, until the next boot.
	mv "$folder/updates/dm-drr.ko" /tmp/
	on_exit "mv /tmp/dm-drr.ko $folder/updates/"
	doctor 0
	finds warn module "it is loaded, though" "install the package"
}

not_loaded() {
	refused 5 "modprobe dm-drr" list
	refused 5 "modprobe dm-drr" status
	refused 5 "modprobe dm-drr" layers
	thin_new early 16
	on_exit "container_down early"
	mv /lib/modules/"$(uname -r)"/updates/dm-drr.ko /tmp/
	on_exit "mv /tmp/dm-drr.ko /lib/modules/$(uname -r)/updates/"
	refused 5 "modprobe dm-drr" create c t-early
	! dmsetup info c >/dev/null 2>&1 || flunk "left a device behind"
	# Prometheus is told so, in any case.
	local rc=0
	"$CTL" export --textfile "$WORK/early.prom" 2>"$WORK/err" || rc=$?
	expect "exit code of export" "$rc" 5
	grep -q "modprobe dm-drr" "$WORK/err" || flunk "$(<"$WORK/err")"
	expect "drr_up" "$(metric "$WORK/early.prom" drr_up)" 0
}

nothing_there() {
	shows NAME list
	shows NAME status
	json_says '.devices | length' 0 list
	refused 3 "there is no drr device" layers
	refused 3 "there is no drr device" heatmap
	refused 3 "no such device-mapper device" status nothing
	refused 3 "no such device-mapper device" remove nothing
}

create_and_list() {
	[ "$(dmsetup table two)" = "$(dmsetup table one | sed "s/[0-9:]*$/\
$(dmsetup info -c --noheadings -o major,minor t-two) 1 no_donate/")" ] ||
		flunk "$(dmsetup table one) $(dmsetup table two)"
	[ -b /dev/mapper/one ] || flunk "no node"
	shows "t-two" list
	json_says '.devices[] | [.name, .thin_device, .pool, .features[]] | join(" ")' \
		$'one t-one pool\ntwo t-two pool no_donate' list
	"$CTL" create all t-one --no-donate --no-receive --paranoid
	json_says '.devices[] | select(.name == "all") | .features | join(" ")' \
		"no_donate no_receive paranoid" list
	"$CTL" remove /dev/mapper/all
	! [ -e /dev/mapper/all ] || flunk "a node was left"
}

status_says() {
	shows "HIT RATE" status
	shows "two" status two
	expect "sectors served" "$("$CTL" status two --json | jq '.devices[0].status.hit_sectors')" \
		"$(stat_of two hit_sectors)"
	json_says '.devices[0].hit_rate == 1' true status two
	json_says '.devices[0].status.misses.norecord' "$(stat_of one miss_norecord)" status one
	json_says '.devices[0].status.ended.removed' "$(stat_of one ended_removed)" status one
	json_says '.devices[0].status | [.whole_writes, .followed_sectors] | add' \
		$(($(stat_of one whole_writes) + $(stat_of one followed_sectors))) status one
	json_says '.devices[0].status | [.unproven_pages, .compared_pages, .differed_pages] | join(" ")' \
		"$(stat_of two unproven_pages) $(stat_of two compared_pages) 0" status two
	shows "WHOLE WRITES" status two
	shows "UNPROVEN" status two
	json_says '.devices | length' 2 status
	"$CTL" status | head -n 1 >/dev/null
}

errors() {
	refused 7 "but a thin" status t-one
	refused 7 "but a linear" remove data
	refused 7 "but a linear" create x data
	refused 7 "is no device-mapper device" create x /dev/$DATA_DISK
	refused 3 "no such" create x t-nothing
	refused 6 "with this name already" create one t-one
	refused 2 "no device can have this name" create "" t-one
	refused 2 "is a path" create /dev/mapper/x t-one
	refused 7 "is not a pool" layers t-one
	refused 3 "no such" heatmap nowhere
	refused 2 "use .svg, .png or .csv" heatmap -o /tmp/x.gif
	refused 1 "can't write it" heatmap -o /nowhere/x.svg
	refused 2 "not a terminal" top
	dmsetup suspend t-one
	on_exit "dmsetup resume t-one"
	refused 1 "suspended" create x t-one
	! dmsetup info x >/dev/null 2>&1 || flunk "left a device behind"
	dmsetup resume t-one
	expect_fail "$CTL" nothing 2>/dev/null
}

in_use() {
	thin_new fs 64
	on_exit "container_down fs"
	"$CTL" create fs t-fs
	fs_make ext4 /dev/mapper/fs
	fs_mount ext4 fs
	refused 6 "is mounted on /mnt/fs: umount /mnt/fs" remove fs
	umount /mnt/fs
	exec 8</dev/mapper/fs
	refused 6 "in use" remove fs
	exec 8<&-
	"$CTL" remove fs
	[ -b /dev/mapper/t-fs ] || flunk "its thin device is gone, too"
}

# What only root may do, as somebody else: without the right to override permissions.
not_root() {
	local rc=0
	chmod 755 /drr /drr/bin
	setpriv --reuid 1000 --regid 1000 --clear-groups "$CTL" list \
		>"$WORK/out" 2>"$WORK/err" || rc=$?
	expect "exit code: $(<"$WORK/err")" "$rc" 4
	grep -q "as root" "$WORK/err" || flunk "$(<"$WORK/err")"
}

layers_and_heat() {
	shows "├─ " layers
	shows "$(thin_id one), created at" layers /dev/mapper/pool
	json_says ".layers[] | select(.drr_devices == [\"one\"]) | .thin_id" "$(thin_id one)" layers
	json_says '.layers | map(select(.state == "live")) | length' 3 layers pool
	shows "Served by DRR: 4.0 MiB" heatmap
	shows "From the disk: 4." heatmap pool
	json_says '[.reads[].drr_sectors] | add' "$(stat_of two hit_sectors)" heatmap
	json_says '.readers | map(.label) | join(",")' \
		"one ($(thin_id one)),two ($(thin_id two))" heatmap
	json_says '.owners[0].thin_id' "$(thin_id image)" heatmap
	json_says '.donors[0].donor_thin_id' "$(thin_id one)" heatmap
	mkdir -p /out
	"$CTL" heatmap -o /out/heatmap.svg
	"$CTL" heatmap -o /out/heatmap.png
	"$CTL" heatmap -o /out/heatmap.csv
	grep -q "Served by DRR: 4.0 MiB" /out/heatmap.svg
	[ "$(head -c 4 /out/heatmap.png | tail -c 3)" = PNG ] || flunk "no PNG"
	expect "lines of csv" "$(wc -l </out/heatmap.csv)" 3..4
}

blocks_are_shown() {
	shows "not counted" blocks
	"$CTL" blocks --on
	on_exit "$CTL blocks --off"
	dd if=/dev/mapper/two of=/dev/null bs=1M count=1 iflag=direct status=none
	shows "16 shared blocks of 64 KiB" blocks
	json_says '.counting' true blocks
	json_says '.by_reads[0].blocks' 16 blocks pool
	"$CTL" blocks --off
	json_says '.counting' false blocks
}

# "one" is held open, and has its pages; "two" doesn't donate, so its own aren't known.
duplicates_are_shown() {
	thin_snap three image
	"$CTL" create three t-three
	exec 8</dev/mapper/three
	on_exit "exec 8<&-; container_down three"
	json_says '.extra_pages' 0 duplicates
	dd if=/dev/mapper/three of=/dev/null bs=1M count=4 status=none
	shows "TIMES CACHED" duplicates
	shows "DATA BLOCK" duplicates pool --list
	json_says '.by_copies | map(select(.low == 2)) | length' 1 duplicates pool
	json_says '.by_layer[0].label | startswith("one ")' true duplicates
	json_says '.extra_pages > 900 and .by_layer[1].extra_pages == 0' true duplicates
	json_says '[.copies[].pages] | add' "$("$CTL" duplicates --json |
		jq '.by_copies | map(select(.low == 2).pages * 2) | add')" duplicates --list
	json_says '.copies' null duplicates
}

counters_are_reset() {
	"$CTL" reset two
	expect "reads of two" "$(stat_of two reads)" 0
	expect "reads of one" "$(stat_of one reads)" 1..
	"$CTL" reset
	expect "reads of one" "$(stat_of one reads)" 0
	refused 7 "but a thin" reset t-one
}

# metric FILE NAME [LABEL...]: the one sample of that name whose labels these, NAME="VALUE", are.
metric() {
	local file=$1 name=$2 label
	shift 2
	cp "$file" "$WORK/samples"
	for label; do
		grep -F -e "{$label" -e ",$label" "$WORK/samples" >"$WORK/fewer" || true
		mv "$WORK/fewer" "$WORK/samples"
	done
	awk -v name="$name" '{ key = $1; sub(/[{].*/, "", key) }
		key == name { print $NF; found++ }
		END { if (found != 1) print name ": " found + 0 " samples" }' "$WORK/samples"
}

# well_formed FILE: each line is HELP, TYPE or a sample, and all counters are called so.
well_formed() {
	local bad label='[a-z_]+="([^"\\]|\\.)*"'
	bad=$(grep -Ev "^# (HELP [a-z_]+ .|TYPE ([a-z_]+_total counter|[a-z_]+ gauge)$)\
|^drr_[a-z_]+([{]$label(,$label)*[}])? [0-9.]+$" "$1" || true)
	[ -z "$bad" ] || flunk "not Prometheus' format: $bad"
	[ -s "$1" ] || flunk "nothing in $1"
}

exported_as_text() {
	local of_two=('device="two"' 'pool="pool"' "thin_id=\"$(thin_id two)\"")
	shows "# TYPE drr_read_bytes_total counter" export
	well_formed "$WORK/out"
	expect "drr_up" "$(metric "$WORK/out" drr_up)" 1
	expect "bytes served" "$(metric "$WORK/out" drr_hit_bytes_total "${of_two[@]}")" \
		$(($(stat_of two hit_sectors) * 512))
	expect "bytes from one" "$(metric "$WORK/out" drr_received_bytes_total "${of_two[@]}" \
		"donor=\"$(thin_id one)\"")" $(($(sectors_from two one) * 512))
	expect "misses of one" "$(metric "$WORK/out" drr_misses_total 'device="one"' \
		'reason="norecord"')" "$(stat_of one miss_norecord)"
	expect "pages that differed" "$(metric "$WORK/out" drr_differed_pages_total "${of_two[@]}")" 0
	expect "useless copies" "$(metric "$WORK/out" drr_unproven_pages_total "${of_two[@]}")" \
		"$(stat_of two unproven_pages)"
	expect "known bytes" "$(metric "$WORK/out" drr_tracked_bytes)" $(($(tracked) * 4096))
	expect "layers" "$(metric "$WORK/out" drr_layers 'state="live"')" \
		"$("$CTL" layers --json | jq '.layers | map(select(.state == "live")) | length')"
	metric "$WORK/out" drr_device_info "${of_two[@]}" 'features="no_donate"' | grep -qx 1 ||
		flunk "no such device"
	! grep -q drr_duplicate "$WORK/out" || flunk "a walk that nobody asked for"
	shows 'drr_duplicate_bytes{pool="pool"}' export --duplicates --no-donors
	! grep -q 'donor=' "$WORK/out" || flunk "donors that nobody wants"
	"$CTL" export --textfile "$WORK/drr.prom"
	well_formed "$WORK/drr.prom"
	expect "mode" "$(stat -c %a "$WORK/drr.prom")" 644
	refused 2 ".prom" export --textfile "$WORK/drr.txt"
	refused 1 "can't write it" export --textfile /nowhere/drr.prom
	refused 2 "--allow-remote" export --listen 0.0.0.0:0
	refused 2 "--allow-remote" export --listen '[::]:0'
	refused 2 "--allow-remote" export --listen 10.0.0.1:9776
}

# scrape PORT FILE
scrape() {
	request "$1" 'GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n' >"$2.all"
	head -n 1 "$2.all" | grep -q '^HTTP/1.1 200 OK' || flunk "$(head -n 20 "$2.all")"
	sed '1,/^\r$/d' "$2.all" >"$2"
}

# scrapes PORT TIMES NAME: well-formed each time, and what was counted only grows.
scrapes() {
	local i last=0 now file=$WORK/scrape-$3
	for ((i = 0; i < $2; i++)); do
		scrape "$1" "$file"
		well_formed "$file"
		now=$(WORK=$file.d metric "$file" drr_read_bytes_total 'device="two"')
		expect "bytes that two read" "$now" "$last.."
		last=$now
	done
}

served_under_load() {
	local port i pid load scrapers=() devices
	[ -e /proc/net/tcp ] || skip "the kernel has no network"
	busybox ip link set lo up
	"$CTL" export --listen 127.0.0.1:0 --duplicates >"$WORK/address" 2>"$WORK/export.err" &
	pid=$!
	on_exit "kill $pid 2>/dev/null; wait"
	wait_for 10 grep -q '^http://127.0.0.1:[0-9]*/metrics$' "$WORK/address"
	port=$(sed 's,.*:\([0-9]*\)/.*,\1,' "$WORK/address")
	refused 6 "Address already in use" export --listen "127.0.0.1:$port"
	# Reads and writes all the while, and devices that come and go.
	(
		while [ ! -e "$WORK/enough" ]; do
			dd if=/dev/mapper/two of=/dev/null bs=1M count=4 iflag=direct status=none
			dd if=/dev/zero of=/dev/mapper/two bs=4k count=1 seek=2000 oflag=direct \
				conv=notrunc status=none
		done
	) &
	load=$!
	(
		while [ ! -e "$WORK/enough" ]; do
			"$CTL" create passing t-one --no-donate
			"$CTL" remove passing
		done
	) &
	devices=$!
	on_exit "touch $WORK/enough"
	for i in 1 2 3; do
		mkdir -p "$WORK/scrape-$i.d"
		scrapes "$port" 5 "$i" &
		scrapers+=($!)
	done
	# Nobody waits for these, and nothing comes of them.
	for i in $(seq 40); do
		exec 8<>"/dev/tcp/127.0.0.1/$port"
		# it may be one too many, and closed already
		(trap '' PIPE; printf 'GET /metrics HTTP/1.1\r\n\r\n' >&8) 2>/dev/null || true
		exec 8>&-
	done
	request "$port" '\x16\x03\x01\x02\r\n\r\n' | grep "^HTTP/1.1 400" >/dev/null || flunk "not refused"
	request "$port" 'DELETE /metrics HTTP/1.1\r\n\r\n' | grep "^HTTP/1.1 405" >/dev/null ||
		flunk "not refused"
	exec 8<>"/dev/tcp/127.0.0.1/$port"
	printf 'GET /metr' >&8
	for i in "${scrapers[@]}"; do
		wait "$i" || flunk "a scrape failed"
	done
	grep -q "^HTTP/1.1 408" <&8 || flunk "slow, and not given up"
	exec 8>&-
	touch "$WORK/enough"
	wait "$load" "$devices" || flunk "the load failed"
	scrape "$port" "$WORK/last"
	expect "bytes of two" "$(metric "$WORK/last" drr_read_bytes_total 'device="two"')" \
		$(($(stat_of two read_sectors) * 512))
	! grep -q passing "$WORK/last" || flunk "a device that has gone has figures"
	expect "files that it has open" "$(find /proc/$pid/fd -type l | wc -l)" 4..12
	kill -0 $pid || flunk "the exporter has ended: $(<"$WORK/export.err")"
	[ ! -s "$WORK/export.err" ] || flunk "on stderr: $(<"$WORK/export.err")"
}

# quits KEY: the screen shows the devices, and the terminal is as it was afterwards.
quits() {
	local rc=0
	[ -e /proc/net/unix ] || skip "the kernel has no local sockets, which reading keys needs"
	(
		for _ in 1 2 3 4 5 6 7 8; do
			sleep 0.4
			dd if=/dev/mapper/two of=/dev/null bs=1M count=4 iflag=direct status=none
		done
	) &
	"$PTY" $((4 * ${DRR_SLOW:-1})) "$1" "$CTL" top --interval 0.5 >"$WORK/screen" || rc=$?
	wait
	[ "$rc" = 0 ] || flunk "exit code $rc: $(tail -c 1000 "$WORK/screen" | cat -v)"
	for text in one two "READS/s" "MISSES OF ALL DEVICES" "q quit" "100.0%" $'\e[?1049h' \
		$'\e[?1049l' $'\e[?25h'; do
		grep -qaF -e "$text" "$WORK/screen" || flunk "no '$text': $(cat -v "$WORK/screen")"
	done
	# drawn once, and then only what changes
	expect "times cleared" "$(grep -aoF $'\e[2J' "$WORK/screen" | wc -l)" 0..2
}

papers() {
	shows "complete" completion bash
	shows "#compdef" completion zsh
	"$CTL" man "$WORK/man"
	grep -q "Exit codes" "$WORK/man/drrctl.1" || flunk "no exit codes"
	[ -s "$WORK/man/drrctl-heatmap.1" ] || flunk "no page of heatmap"
	shows "not loaded" --help
}

# odd_names HOW: devices with names that aren't ASCII, one of them drr's, do no harm to others, and are shown; as if
# udev ran, or not.
odd_names() {
	local command
	on_exit "rm -f /run/udev/control; dmsetup remove --manglename none $ODD; dmsetup remove --manglename none $ODD_DRR"
	if [ "$1" = udev ]; then
		mkdir -p /run/udev
		touch /run/udev/control
	fi
	dmsetup create --manglename none "$ODD" --table "0 8 error"
	thin_new odd 1
	dmsetup create --manglename none "$ODD_DRR" --table "$(drr_table odd)"
	for command in list status export layers heatmap; do
		"$CTL" $command >"$WORK/out" 2>"$WORK/err" || flunk "drrctl $command: $(<"$WORK/err")"
		[ ! -s "$WORK/err" ] || flunk "on stderr of $command: $(<"$WORK/err")"
	done
	shows '\xc3\xa4' list
	shows one list
	shows '\xc3\xa4' status '\xc3\xa4'
	json_says '.devices | map(.name) | contains(["one"])' true list
	dmsetup remove --manglename none "$ODD_DRR"
	thin_delete odd
}
ODD=$'\xc3\xbc' ODD_DRR=$'\xc3\xa4'

pool_up 256
run_case "doctor, before anything is loaded" doctor_before
run_case "not loaded" not_loaded
modprobe dm-drr
run_case "nothing there" nothing_there
siblings
run_case "create and list" create_and_list
run_case "status" status_says
run_case "doctor, with devices" doctor_with_devices
run_case "layers and heatmap" layers_and_heat
run_case "blocks" blocks_are_shown
run_case "duplicates" duplicates_are_shown
run_case "every error" errors
run_case "in use" in_use
run_case "not root" not_root
run_case "top, ended by q" quits q
run_case "top, ended by Esc" quits $'\e'
run_case "top, ended by Ctrl-C" quits $'\x03'
run_case "top, ended by a signal" quits TERM
run_case "exported as text" exported_as_text
run_case "exported under load" served_under_load
run_case "odd names" odd_names bare
run_case "odd names, where udev runs" odd_names udev
run_case "reset" counters_are_reset
run_case "completions and man pages" papers
exec 7<&-
run_case "nothing is remembered after unmount" all_down
finish
