#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# Tests the Debian packages: installs them in a Debian root, with DKMS building the modules,
# boots Debian's kernel with what is installed, uses it, and purges it again. What is upgraded
# from is this source as a lower version.
#
# usage: deb-test.sh		prints TAP; the last line is "N passed, N failed"
#
# The root and the prepared kernel tree of an earlier run are kept in the cache; the latter
# as it is on a machine where the package is upgraded.

set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
# shellcheck source=scripts/debian-root.sh
. "$DRR_TOP/scripts/debian-root.sh"
# shellcheck source=scripts/tap.sh
. "$DRR_TOP/scripts/tap.sh"

scripts=$DRR_TOP/scripts
out=$DRR_TOP/build/out/deb
build=$DRR_TOP/build/deb-test
machine=$build/root

# --- set-up ---

# What the packages need, by name: nothing else is in the root, so nothing can be missed.
depends() {
	for deb; do
		"$scripts/toolbox.sh" dpkg-deb -f "$deb" Depends Pre-Depends
	done | sed -e 's/^[A-Za-z-]*: //' -e 's/([^)]*)//g' -e 's/|[^,]*//g' |
		tr -s ', ' '\n' | grep . | LC_ALL=C sort -u
}

# A copy of the root, with the packages in /srv. Nothing of it is to be started.
make_machine() {
	remove_tree "$machine"
	mkdir -p "$build"
	cp -a --reflink=auto "$root" "$machine"
	cp "${debs[@]}" "${older[@]}" "$machine/srv/"
	printf '#!/bin/sh\nexit 101\n' >"$machine/usr/sbin/policy-rc.d"
	chmod +x "$machine/usr/sbin/policy-rc.d"
}

# The prepared kernel tree takes minutes to make, so one of an earlier build is used again,
# as it is when the package is upgraded.
give_tree() {
	[[ ! -d $kept ]] || cp -a --reflink=auto "$kept" "$machine/var/cache/dm-drr"
}

keep_tree() {
	[[ ! -d $kept ]] || return 0
	remove_tree "$kept.tmp"
	cp -a --reflink=auto "$machine/var/cache/dm-drr" "$kept.tmp"
	mv "$kept.tmp" "$kept"
	keep_newest 1 "$DRR_CACHE"/deb-tree-*[!p]
}

on_machine() {
	in_setup "$machine" env DEBIAN_FRONTEND=noninteractive "$@"
}

apt_get() {
	on_machine apt-get -y --no-install-recommends "$@" 2>&1
}

# Whether DKMS sees the supported kernel's headers.
headers() {
	case $1 in
	hidden) mv "$modules/build" "$build/hidden" ;;
	shown) mv "$build/hidden" "$modules/build" ;;
	esac
}

# Everything in the machine that a package can leave behind: name, type, mode, size, target.
# Not what dpkg and apt write, initramfs files, which are made anew, nor DKMS' own signing
# key, which stays with DKMS.
listing() {
	(cd "$machine" && find . -xdev \( -path ./var/lib/dpkg -o -path ./var/log \
		-o -path ./var/cache/apt -o -path ./var/lib/apt -o -path ./var/cache/ldconfig \
		-o -path './boot/initrd*' -o -path ./tmp -o -path ./run -o -path ./var/cache/dm-drr \
		-o -name 'mok.*' -o -name 'ld.so.cache' -o -name '__pycache__' \) -prune -o \
		-printf '%p %y %m %l ' \( -type f -printf '%s' -o -true \) -printf '\n') | sort
}

# --- cases ---

# The packages themselves: a .changes file, which is for uploads, can't have overrides.
lints() {
	( in_root "$packaging" run lintian --fail-on error,warning --tag-display-limit 0 \
		"${debs[@]}" )
}

# apt ends well, and whoever reads it learns what to install instead.
refuses_other_kernels() {
	headers hidden
	on_exit "headers shown"
	apt_get install "${debs[@]/#*\//\/srv/}" | tee "$out/refused.log"
	grep -qF "kernel $other isn't supported : install Debian kernel" "$out/refused.log" ||
		flunk "not a word about the supported kernels"
	not_built
}

not_built() {
	local status
	status=$(on_machine dkms status -m dm-drr)
	[[ $status = *": added" ]] || flunk "dkms: $status"
}

# goes_on TEXT COMMANDS: the kernel's headers are installed again while COMMANDS have broken something, in mounts of
# their own. apt ends well, nothing is left half configured, and a line says why there are no modules.
goes_on() {
	local hooks=$modules/updates/dkms
	on_machine dkms unbuild -m dm-drr -v "$version" -k "$release" || true
	on_machine bash -euc "$2"'
		apt-get -y --reinstall install "$@"' - "linux-headers-$release" 2>&1 | tee "$out/goes-on.log"
	[[ ! $(on_machine dpkg --audit) ]] || flunk "$(on_machine dpkg --audit)"
	not_built
	grep -qE "^dm-drr: kernel ${release/+/[+]}.*$1" "$out/goes-on.log" || flunk "not a word of: $1"
	[[ ! -e $hooks ]] || [[ ! $(ls -A "$hooks") ]] || flunk "there are modules: $(ls "$hooks")"
	is_kernels_own
}

is_kernels_own() {
	local file
	file=$(on_machine modinfo -k "$release" -F filename dm-thin-pool)
	[[ $file = */kernel/drivers/md/* ]] || flunk "modprobe takes $file"
}

goes_on_when_it_does_not_compile() {
	local file=$machine/usr/src/dm-drr-$version/drr/drr.rs
	cp -a "$file" "$build/drr.rs"
	on_exit "cp -a '$build/drr.rs' '$file'"
	echo "this is not Rust" >>"$file"
	goes_on "look at .*make.log" :
}

goes_on_when_the_source_is_missing() {
	local file=$machine/usr/src/linux-source-$series.tar.xz
	mv "$file" "$build/source.tar.xz"
	on_exit "mv '$build/source.tar.xz' '$file'"
	goes_on "install linux-source-$series" 'mount -t tmpfs none /var/cache/dm-drr'
}

goes_on_when_the_disk_is_full() {
	goes_on "the build needs .* MB .* free some space" 'mount -t tmpfs -o size=64M none /var/cache/dm-drr'
	goes_on "the disk is full : free some space" 'cp -a /var/lib/dkms /tmp/dkms
		mount -t tmpfs -o size=8M none /var/lib/dkms
		cp -a /tmp/dkms/. /var/lib/dkms
		rm -r /tmp/dkms
		cat /dev/zero >/var/lib/dkms/filler || true'
}

# What was mended is built at the next occasion.
builds_once_mended() {
	on_machine /usr/libexec/dm-drr/install-modules
	built "$version"
}

# Source and headers of a supported kernel come later, and dpkg tells the package.
builds_when_the_source_comes() {
	give_tree
	on_machine dpkg-trigger --by-package=dkms "/usr/src/linux-source-$series.tar.xz"
	on_machine dpkg --configure -a
	built "$version"
	keep_tree
}

# $1: the version that is built, and no other
built() {
	local status
	status=$(on_machine dkms status -m dm-drr)
	[[ $status = "dm-drr/$1, $release, x86_64: installed"* && $status != *$'\n'* ]] ||
		flunk "dkms: $status"
	[[ -e $modules/updates/dkms/dm-drr.ko.xz && -e $modules/updates/dkms/dm-thin-hooks.ko.xz ]] ||
		flunk "installed: $(ls "$modules/updates/dkms")"
}

installs() {
	give_tree
	apt_get install "${older[@]/#*\//\/srv/}" | tee "$out/installed.log"
	built "$older_version"
}

# dpkg has the old version remove its modules before it unpacks the new one, and configures it again if that fails.
failed_upgrade() {
	# shellcheck disable=SC2016 # expanded by the inner shell
	on_machine bash -euc 'dpkg-deb -R "$1" /srv/broken
		printf "#!/bin/sh\nexit 1\n" >/srv/broken/DEBIAN/preinst
		chmod +x /srv/broken/DEBIAN/preinst
		sed -i "s/^Version: .*/Version: 99/" /srv/broken/DEBIAN/control
		dpkg-deb -b /srv/broken /srv/broken.deb' - "${older[0]/#*\//\/srv/}"
	on_exit "rm -r '$machine'/srv/broken*"
	expect_fail on_machine dpkg -i /srv/broken.deb
	built "$older_version"
}

# As if dkms had been killed while it made its tree.
killed_dkms() {
	rm "$machine/var/lib/dkms/dm-drr/$older_version/source"
	apt_get --reinstall install "${older[@]/#*\//\/srv/}"
	built "$older_version"
}

# The kernel's package brings another build of the same release: the hooks are for the old one.
another_build() {
	local file=$modules/kernel/drivers/md/dm-thin-pool.ko.xz id
	id=$(hooks_are_for)
	cp -a "$file" "$build/pool.ko.xz"
	on_exit "cp -a '$build/pool.ko.xz' '$file'"
	"$scripts/toolbox.sh" python3 - "$file" <<-END
	import lzma, sys
	module = lzma.open(sys.argv[1]).read()
	at = module.index(b"\x04\0\0\0\x14\0\0\0\x03\0\0\0GNU\0") + 16
	with lzma.open(sys.argv[1], "wb", check=lzma.CHECK_CRC32) as to:
	    to.write(module[:at] + bytes([0x5a] * 20) + module[at + 20:])
	END
	on_machine /usr/share/kernel/header_postinst.d/dm-drr "$release"
	[[ $(hooks_are_for) = *5a5a5a5a* ]] || flunk "the hooks are for $(hooks_are_for)"
	cp -a "$build/pool.ko.xz" "$file"
	on_machine /usr/share/kernel/postinst.d/dm-drr "$release"
	[[ $(hooks_are_for) = "$id" ]] || flunk "the hooks are for $(hooks_are_for)"
}

hooks_are_for() { on_machine modinfo -k "$release" -F dm_thin_pool dm-thin-hooks; }

# The hooks of several packages may run at once.
two_at_once() {
	local pids=() pid i
	on_machine dkms unbuild -m dm-drr -v "$older_version" -k "$release"
	for i in 1 2; do
		on_machine /usr/libexec/dm-drr/install-modules "$release" >"$out/at-once.$i" 2>&1 &
		pids+=($!)
	done
	for pid in "${pids[@]}"; do
		wait "$pid"
	done
	cat "$out"/at-once.?
	! grep "goes on without" "$out"/at-once.? || flunk "one has failed"
	built "$older_version"
}

# The old version's modules and source go; what was configured and the kernel tree stay.
upgrades() {
	local config=$machine/etc/drrctl/drrctl.toml tree=$machine/var/cache/dm-drr/$release/ready
	local before
	echo "# the operator's own line" >>"$config"
	before=$(stat -c %Y "$tree")
	apt_get install "${debs[@]/#*\//\/srv/}" </dev/null | tee "$out/upgraded.log"
	built "$version"
	[[ ! -e $machine/usr/src/dm-drr-$older_version ]] || flunk "the old version's source is left"
	[[ $(tail -n 1 "$config") = "# the operator's own line" ]] || flunk "its configuration is gone"
	expect "when the kernel tree was prepared" "$(stat -c %Y "$tree")" "$before"
}

# Both are what modprobe takes, made for this kernel, and signed; and dm-thin-pool is the kernel's.
fit_the_kernel() {
	local module field
	for module in dm-thin-hooks dm-drr; do
		field=$(on_machine modinfo -k "$release" -F filename "$module")
		[[ $field = */updates/dkms/$module.ko* ]] || flunk "modprobe takes $field"
		field=$(on_machine modinfo -k "$release" -F vermagic "$module")
		[[ $field = "$release "* ]] || flunk "$module is for $field"
		[[ $(on_machine modinfo -k "$release" -F signer "$module") = "DKMS module signing key" ]] ||
			flunk "$module isn't signed"
	done
	is_kernels_own
	[[ ! -e $machine/lib/modules/$other/updates ]] || flunk "built for $other, too"
}

tool_is_there() {
	local file
	[[ $(on_machine drrctl --version) = "drrctl "* ]] || flunk "$(on_machine drrctl --version)"
	for file in man/man1/drrctl.1.gz bash-completion/completions/drrctl \
		zsh/vendor-completions/_drrctl fish/vendor_completions.d/drrctl.fish drrctl/grafana/{drr.json,alerts.yml}; do
		[[ -s $machine/usr/share/$file ]] || flunk "no /usr/share/$file"
	done
	# its units are there for who enables them
	file=$(find "$machine/etc/systemd/system" -name 'drr*' 2>/dev/null)
	[[ ! $file ]] || flunk "enabled by the installation: $file"
}

# Nothing is left but what was there before.
purges() {
	apt_get purge dm-drr-dkms drrctl
	on_machine dpkg --verify "linux-modules-$release" dkms | tee "$out/verify.log"
	[[ ! -s $out/verify.log ]] || flunk "a package's files have changed"
	listing >"$out/after"
	diff "$out/before" "$out/after" || flunk "purge has left these (>), or taken these (<)"
	[[ ! -e $machine/var/cache/dm-drr ]] || flunk "the kernel tree is left"
	is_kernels_own
	expect_fail on_machine modinfo -k "$release" dm-drr
}

# --- the machine, booted ---

# $1: suite, rest: its command. $more has further options for vm.sh.
more=()
boots() {
	local suite=$1 rc=0
	shift
	"$scripts/vm.sh" --stock --mem 3G --disk-file "$build/disk.img" --timeout 3000 --name "$suite" \
		"${more[@]}" -- "$@" || rc=$?
	count_tap "$suite" "$rc" "$DRR_TOP/build/out/$suite/output.log"
}

secure_boot() {
	local key=$build/mok.pub
	cp "$machine/var/lib/dkms/mok.pub" "$key"
	"$scripts/uefi.sh" vars "$build/locked.fd" "$image/vmlinuz"
	"$scripts/uefi.sh" vars "$build/enrolled.fd" "$image/vmlinuz" "$key"
}

# The same machine with what others have besides: the packages' tests are made without these.
everyday() {
	local before=$machine machine=$build/everyday
	remove_tree "$machine"
	cp -a --reflink=auto "$before" "$machine"
	apt_get install systemd-sysv udev dmsetup e2fsprogs bpftrace linux-perf lvm2 mdadm \
		multipath-tools
	root_disk "$machine" "$build/disk.img" 3G
	remove_tree "$machine"
}

# A machine at work on which nothing of DRR has been installed, with all that its packages need.
at_work() {
	local machine=$build/work
	remove_tree "$machine"
	cp -a --reflink=auto "$root" "$machine"
	cp "${debs[@]}" "$machine/srv/"
	give_tree
	apt_get install systemd-sysv udev dmsetup e2fsprogs
	rm -f "$build/disk.img"
	truncate -s 8G "$build/disk.img"
	"$scripts/toolbox.sh" mke2fs -q -t ext4 -d "$machine" "$build/disk.img"
	remove_tree "$machine"
}

# --- main ---

need_root
read -r -a debs <<<"$("$scripts/deb.sh")"
older_version=0.0.1
read -r -a older <<<"$("$scripts/deb.sh" --as $older_version)"
packaging=$("$scripts/deb.sh" --root)
version=$("$scripts/toolbox.sh" dpkg-deb -f "${debs[0]}" Version)
image=$("$scripts/kernel.sh" image)
release=$(<"$image/release")
series=$DRR_KERNEL
mapfile -t packages < <(depends "${debs[@]}")
# The kernel of the stable release is the one that isn't supported.
cached_root deb-test "$SPACE_DEB_TEST" "test machine" "${packages[@]}" \
	linux-{base,binary,modules,headers}-"$release"/"$DEBIAN_SUITE-backports" \
	"linux-headers-$KERNEL_FLAVOUR/$DEBIAN_SUITE"
kept=$DRR_CACHE/deb-tree-$(cache_key "$root" "$(tree_key "$DRR_TOP/packaging/dkms" \
	"$scripts/prepare-kernel.sh")")
modules=$machine/lib/modules/$release

# cases are as in the guest, but nothing of device-mapper is looked at here
export DRR=none
# shellcheck source=tools/testing/lib.sh
. "$DRR_TOP/tools/testing/lib.sh"
lock_build deb-test
rm -rf "$out"
mkdir -p "$out"
LOG=$out/case.log
step deb-machine "a machine to install the packages on" make_machine
other=$(basename "$(ls -d "$machine"/lib/modules/6*)")
listing >"$out/before"

# $1: name of the suite, rest: its cases, "NAME=FUNCTION"
suite() {
	local name=$1 each rc=0
	shift
	SUITE=$name CASES=0 FAILED=0
	{
		for each; do
			run_case "${each%=*}" "${each#*=}"
		done
		finish || rc=$?
	} > >(tee "$out/$name")
	wait $!
	count_tap "$name" "$rc" "$out/$name"
}

suite deb-install \
	"lintian finds nothing=lints" \
	"a kernel that isn't supported is refused=refuses_other_kernels" \
	"modules are built when source and headers come=builds_when_the_source_comes" \
	"a build that fails keeps nothing from being installed=goes_on_when_it_does_not_compile" \
	"nor does a missing source=goes_on_when_the_source_is_missing" \
	"nor a full disk=goes_on_when_the_disk_is_full" \
	"what was mended is built=builds_once_mended" \
	"purge leaves nothing=purges" \
	"installation builds both modules=installs" \
	"an upgrade that fails leaves the modules there=failed_upgrade" \
	"what a killed dkms has left is cleared away=killed_dkms" \
	"another build of the same release gets new modules=another_build" \
	"two builds at once=two_at_once" \
	"an upgrade builds them anew, and keeps what is configured=upgrades" \
	"the modules fit the kernel, and are signed=fit_the_kernel" \
	"drrctl, its man page and completions are there=tool_is_there"
step deb-disk "the machine's disk" root_disk "$machine" "$build/disk.img" 1536M
boots deb-guest /drr/deb/guest.sh
# Secure Boot: the key that DKMS has made for the machine isn't enrolled, and is
step deb-firmware "firmware with Secure Boot" secure_boot
more=(--uefi "$build/locked.fd")
boots deb-rejected /drr/deb/rejected.sh
more=(--uefi "$build/enrolled.fd")
boots deb-secure /drr/deb/guest.sh
more=()
step deb-everyday "a machine with systemd, perf, bpftrace and LVM" everyday
boots deb-everyday /drr/deb/boot.sh everyday.sh
boots deb-lvm /drr/deb/boot.sh lvm.sh
more=(--disk 6G --mem 1G)
boots deb-rootfs /drr/deb/boot.sh rootfs.sh thin
more=()
step deb-work "a machine at work" at_work
boots deb-live /drr/deb/boot.sh live.sh
rm "$build/disk.img"
suite deb-purge "purge leaves nothing=purges"
remove_tree "$machine"
sum_up
