#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# Boots a kernel, runs one command in it, and exits with the command's status.
#
# usage: vm.sh [OPTION]... -- COMMAND [ARGUMENT]...
#   --kernel KIND	debian: Debian's own kernel in QEMU (default); amd64: another flavour of it;
#			uml: User-mode Linux; demo: a smaller one; debug, kcsan: kernels with run-time checkers in QEMU;
#			arm64, arm64-16k: Debian's own for arm64, with pages of 4 and of 16 KiB
#   --mem SIZE		memory (2G; 3G for debug, whose checkers take a third)
#   --disk SIZE[,bps=N][,iops=N]	an empty disk, throttled by QEMU; may be repeated
#   --disk-file PATH[,bps=N][,iops=N]	a disk with this image file, which is kept
#   --timeout SECONDS	(600; 2400 with the checkers, and for arm64)
#   --kill-after SECONDS	cut the machine's power then (SIGKILL), which is no failure
#   --name NAME		results go to build/out/NAME (default: the command's name)
#   --append WORDS	for the kernel's command line
#   --allow REGEX	console lines that match are no failure
#   --archive FILE	more files for the guest, a cpio archive
#   --stock		without our modules
#   --programs WORDS	see guest-image.sh
#   --uefi FILE		boot by UEFI with these variables, made by uefi.sh; not uml
#   --counted		one emulated CPU whose clock counts instructions, a nanosecond each; not uml
#   --no-leak-scan	don't look for leaked memory at the end, where the kernel can
#   --verbose		show the kernel's console too
#
# COMMAND is a path in the guest: tools/testing is at /drr there. Its output is shown
# and kept in build/out/NAME/output.log, the kernel's console in console.log there, and
# files that it leaves in /out are unpacked there. $DRR_DISKS names the disks to it.
#
# A time-out, and a kernel's panic, oops, BUG, WARNING or hung task, are failures; so is
# whatever a checker reports, a leak of our modules, or a KUnit case of theirs that fails.
# A machine whose power was cut leaves the file killed in build/out/NAME; what was in /out
# is lost with it.

set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

scripts=$DRR_TOP/scripts
call=("$@")
kernel=debian mem='' timeout='' kill_after='' name='' append='' allow='' verbose=''
archive='' counted='' uefi='' image_options=()
leak_scan=1
disks=()
while (($#)); do
	case $1 in
	--kernel) kernel=$2; shift ;;
	--mem) mem=$2; shift ;;
	--disk) disks+=("$2"); shift ;;
	--disk-file) disks+=("file:$2"); shift ;;
	--timeout) timeout=$2; shift ;;
	--kill-after) kill_after=$2; shift ;;
	--name) name=$2; shift ;;
	--append) append=$2; shift ;;
	--allow) allow=$2; shift ;;
	--archive) archive=$2; shift ;;
	--stock) image_options+=(--stock) ;;
	--programs) image_options+=(--programs "$2"); shift ;;
	--uefi) uefi=$2; shift ;;
	--counted) counted=1 ;;
	--no-leak-scan) leak_scan='' ;;
	--verbose) verbose=1 ;;
	--) shift; break ;;
	*) die "vm.sh: unknown option '$1' : see the head of scripts/vm.sh" ;;
	esac
	shift
done
(($#)) || die "vm.sh: no command : give one after --"
case $kernel in
debian | uml | demo) ;;
debug) mem=${mem:-3G} timeout=${timeout:-2400} ;;
kcsan | arm64 | arm64-16k) timeout=${timeout:-2400} ;;
*) need_known_kernel vm.sh "$kernel" ;;
esac
mem=${mem:-2G} timeout=${timeout:-600}
[[ ${kill_after:-0} =~ ^[0-9]+(\.[0-9]+)?$ ]] ||
	die "vm.sh: bad time '$kill_after' : --kill-after takes seconds"
name=${name:-$(basename "$1" .sh)}

[[ ! $uefi ]] || ! is_uml "$kernel" ||
	die "vm.sh: User-mode Linux has no firmware : use another kernel with --uefi"
[[ ! $uefi || $kernel != arm64* ]] ||
	die "vm.sh: no firmware for arm64 : use another kernel with --uefi"
[[ ! $counted ]] || ! is_uml "$kernel" ||
	die "vm.sh: User-mode Linux runs on the host's CPUs, which don't count : use another kernel"

need_root
initrd=$("$scripts/guest-image.sh" "${image_options[@]}" "$kernel")

# --- what the guest gets ---

out=$DRR_TOP/build/out/$name
run=$DRR_TOP/build/run/$name.$$
rm -rf "$out"
for stale in "$DRR_TOP"/build/run/*; do	# of runs that were killed
	[[ ! -e $stale ]] || kill -0 "${stale##*.}" 2>/dev/null || rm -rf "$stale"
done
mkdir -p "$out" "$run"
touch "$out/console.log" "$out/output.log"
pid=
# shellcheck disable=SC2317 # called by the trap
clean_up() {
	[[ -z $pid ]] || kill "$pid" 2>/dev/null || true
	rm -rf "$run"
}
trap clean_up EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

if [[ $archive ]]; then
	cat "$initrd" "$archive" >"$run/initrd"
	initrd=$run/initrd
fi

# Takes the disks' options apart: SIZE[,KEY=VALUE]... or file:PATH[,KEY=VALUE]...
disk_files=()
disk_options=()
for disk in "${disks[@]}" 256M; do
	IFS=, read -r -a words <<<"$disk"
	if [[ ${words[0]} = file:* ]]; then
		file=${words[0]#file:}
		[[ -f $file ]] || die "vm.sh: no image file '$file' : make one, e.g. truncate -s 4G FILE"
		exec {fd}<>"$file"	# the toolbox may not see its folder
		file=/proc/self/fd/$fd
	else
		file=$run/disk${#disk_files[@]}
		truncate -s "${words[0]}" "$file" ||
			die "vm.sh: bad disk size '${words[0]}' : use e.g. 4G"
	fi
	option=
	for word in "${words[@]:1}"; do
		case $word in
		bps=*) option+=,throttling.bps-total=${word#*=} ;;
		iops=*) option+=,throttling.iops-total=${word#*=} ;;
		*) die "vm.sh: unknown disk option '$word' : use bps=N or iops=N" ;;
		esac
	done
	disk_files+=("$file")
	disk_options+=("$option")
done

# Prints the name in the guest of disk number $1.
disk_name() {
	local letters=abcdefghijklmnopqrstuvwxyz
	is_uml "$kernel" && echo "ubd${letters:$1:1}" || echo "vd${letters:$1:1}"
}

count=${#disks[@]}
names=
for ((i = 0; i < count; i++)); do
	names+=${names:+,}/dev/$(disk_name "$i")
done
args=
(($# == 1)) || args=$(printf '%q ' "${@:2}" | base64 -w 0)
cmdline="$append drr.run=$1 drr.args=$args drr.disks=$names drr.out=$(disk_name "$count")"
[[ $leak_scan ]] || cmdline+=" drr.leaks=0"
((${#cmdline} < 1700)) || die "vm.sh: the command is too long : pass less, or put it in a script"

# --- the two machines ---

add_disks() {
	local i
	for i in "${!disk_files[@]}"; do
		machine+=(-device "virtio-blk-pci,drive=d$i" -drive
			"if=none,id=d$i,format=raw,discard=unmap,cache=unsafe,file=${disk_files[i]}${disk_options[i]}")
	done
}

qemu() {
	local image extra='' cpus=2 accel=(-accel 'tcg,thread=multi' -cpu max)
	if [[ $kernel = debian ]]; then
		image=$("$scripts/kernel.sh" image)/vmlinuz
	elif is_flavour "$kernel"; then
		image=$("$scripts/kernel.sh" "image-$kernel")/vmlinuz
	else
		image=$("$scripts/kernel.sh" "$kernel")/arch/x86/boot/bzImage
		# KUnit cases run whenever our module is loaded; an emulated CPU with
		# checkers is slow, and may get little of a busy host. With page tables of
		# five levels KASAN is wrong about an interrupt while the boot CPU is being
		# identified (the bit that says five is clear then).
		extra="no5lvl kunit.enable=1 kunit.autorun=1 drr.slow=4 watchdog_thresh=30"
	fi
	if [[ $counted ]]; then
		# With erms a copy of any length would be few instructions.
		cpus=1 accel=(-accel 'tcg,thread=single' -icount 'shift=0,sleep=off' -cpu 'max,-erms,-fsrm')
	elif "$scripts/kvm.sh"; then
		accel=(-accel kvm -cpu host)
	fi
	machine=(qemu-system-x86_64 "${accel[@]}" -smp "$cpus" -m "$mem" -nodefaults
		-display none -no-reboot
		-kernel "$image" -initrd "$initrd"
		-append "console=ttyS0 panic=-1 mitigations=off drr.tty=ttyS1 $extra $cmdline"
		-serial "file:$out/console.log" -serial "file:$out/output.log")
	if [[ $uefi ]]; then
		cp "$("$scripts/uefi.sh" code)" "$run/firmware"
		cp "$uefi" "$run/variables"
		machine+=(-machine 'q35,smm=on' -global 'driver=cfi.pflash01,property=secure,value=on'
			-drive "if=pflash,format=raw,unit=0,file=$run/firmware,readonly=on"
			-drive "if=pflash,format=raw,unit=1,file=$run/variables")
	fi
	add_disks
}

# Without acceleration, as the host is an x86-64 machine. Pointer authentication by the architecture's
# own algorithm would be the larger part of what is emulated.
qemu_arm64() {
	local image cpus=2 accel=(-accel 'tcg,thread=multi')
	image=$("$scripts/kernel.sh" "image-$kernel")/vmlinuz
	[[ ! $counted ]] || cpus=1 accel=(-accel 'tcg,thread=single' -icount 'shift=0,sleep=off')
	machine=(qemu-system-aarch64 "${accel[@]}" -M virt -cpu 'max,pauth-impdef=on,sve=off,sme=off'
		-smp "$cpus" -m "$mem" -nodefaults -display none -no-reboot
		-kernel "$image" -initrd "$initrd"
		-append "console=ttyAMA0 panic=-1 mitigations=off drr.tty=ttyAMA1 drr.slow=4 $cmdline"
		-serial "file:$out/console.log" -serial "file:$out/output.log")
	add_disks
}

uml() {
	local i kdir
	kdir=$("$scripts/kernel.sh" "$kernel")
	[[ ${disk_options[*]} != *throttling* ]] ||
		die "vm.sh: no throttled disks in User-mode Linux : use --kernel debian"
	# its own messages and the kernel's console on fd 1, the command's output on fd 3
	# shellcheck disable=SC2016 # expanded by the inner shell
	machine=(bash -c 'exec "${@:3}" >>"$1" 2>&1 3>>"$2"' - "$out/console.log" "$out/output.log"
		"$kdir/linux" "mem=$mem" ncpus=2 seccomp=on "initrd=$initrd" "uml_dir=$run/"
		con=null "con0=null,fd:1" ssl=null "ssl0=null,fd:3" panic=-1 drr.tty=ttyS0)
	for i in "${!disk_files[@]}"; do
		machine+=("$(disk_name "$i")=${disk_files[i]}")
	done
	# shellcheck disable=SC2206 # words of ours, without spaces
	machine+=($cmdline)
}

root=toolbox.sh
case $kernel in
uml | demo) uml ;;
arm64*) qemu_arm64; root=cross.sh ;;
*) qemu ;;
esac

# --- run it ---

# exec all the way down to the machine: the signals of timeout reach it
limit=(-k 5 "$timeout")
[[ -z $kill_after ]] || limit=(-s KILL "$kill_after")
timeout --foreground "${limit[@]}" "$scripts/$root" -- "${machine[@]}" \
	</dev/null >"$run/machine.log" 2>&1 &
pid=$!
strip_status='/^DRR-EXIT: [0-9]*$/d; s/DRR-EXIT: [0-9]*$//; s/\r$//'
shown=("$out/output.log")
[[ -z $verbose ]] || shown+=("$out/console.log")
tail -q -n +1 -s 0.1 --pid="$pid" -f "${shown[@]}" 2>/dev/null |
	sed -u "$strip_status" &
wait "$pid" && machine_rc=0 || machine_rc=$?
pid=
wait

# --- what became of it ---

# QEMU without KVM may have one CPU execute what another is patching, which is an int3 then. At
# boot much is patched; nothing of ours has run by then.
if ! is_uml "$kernel" && [[ ! ${DRR_AGAIN:-} && ! -s $out/output.log ]] &&
	grep -aq 'Oops: int3' "$out/console.log"; then
	clean_up
	trap - EXIT
	echo "dm-drr: $name: the machine tripped over its own patching at boot: once more" >&2
	DRR_AGAIN=1 exec "$0" "${call[@]}"
fi

rc=$(sed -n 's/^.*DRR-EXIT: \([0-9]*\)$/\1/p' "$out/output.log" | tail -n 1)
sed -i "$strip_status" "$out/output.log"
sed -i 's/\r$//' "$out/console.log"
[[ ! -s $run/machine.log ]] || cat "$run/machine.log" >>"$out/console.log"
if tar -tf "${disk_files[count]}" >/dev/null 2>&1; then
	tar -xf "${disk_files[count]}" -C "$out" --no-same-owner
fi

# $1: text, $2: what of the console explains it
fail() {
	printf '%s\n' "$2" | sed 's/^/  | /' >&2
	die "$name: $1 : see $out/console.log"
}

# The kernel has many data races of its own, some of them known and meant, and our modules
# are among the callers of some. All reports are kept in kcsan.log; a failure is one where a
# function of ours makes one of the two accesses, itself or by a helper that works on its
# caller's data. Prints the headings of these.
our_races() {
	awk -v all="$out/kcsan.log" '
		BEGIN {
			helper = "^(rust_helper_|mem(cpy|set|move|cmp)|_?copy_|rb_|xas?_|__?list_"
			helper = helper "|list_|llist_|radix_tree_|refcount_|atomic|bitmap_|__asan_)"
		}
		function flush() {
			if (ours) print title
			title = ""; ours = 0; looking = 0
		}
		/==========/ { flush(); next }
		/BUG: KCSAN: / { flush(); title = $0 }
		!title { next }
		{ print >all }
		/ (to|at) 0x[0-9a-f]+ of [0-9]+ bytes by / { looking = 1; next }
		looking && match($0, /[^ ]+\+0x[0-9a-f]+\/0x[0-9a-f]+/) {
			if (substr($0, RSTART, RLENGTH) ~ helper) next
			if (/\[(dm_drr|dm_thin_pool)\]/) ours = 1
			looking = 0
		}
		END { flush() }
	' "$out/console.log"
}

not_allowed() {
	if [[ $allow ]]; then grep -avE "$allow"; else cat; fi
}

# KASAN, KCSAN and lockdep say BUG or WARNING; the others have words of their own. KUnit
# cases of the kernel itself aren't built.
trouble='Kernel panic|BUG: |WARNING: |Oops: |Internal error: |general protection fault|UBSAN: |ODEBUG: '
trouble+='|refcount_t: |INFO: (task |rcu|trying to register)|kernel BUG at|page allocation failure'
trouble+='|kmemleak: .*disabled|rust_kernel: panicked'
line=$(grep -aE "^\[ *[0-9.]+\](\[[^]]*\])? (.*($trouble)| *not ok [0-9]+ )" "$out/console.log" |
	grep -av 'BUG: KCSAN: ' | not_allowed | head -n 1) || true
[[ $line || $kernel != kcsan ]] || line=$(our_races | not_allowed | head -n 1) || true
[[ -z $line ]] || fail "the kernel said: $line" \
	"$(grep -aF -m 1 -A 60 -e "$line" "$out/console.log")"
if [[ $kill_after && $machine_rc = 137 ]]; then
	touch "$out/killed"
	exit 0
fi
recent=$(tail -n 40 "$out/console.log")
[[ $machine_rc != 124 && $machine_rc != 137 ]] ||
	fail "still running after $timeout s, killed" "$recent"
[[ -n $rc ]] || fail "the guest ended without a result (status $machine_rc of its machine)" \
	"$recent"
exit "$rc"
