#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# Runs a command in the toolbox: a Debian root with the compilers that Debian
# builds its kernel with. Makes the root when it isn't there yet.
#
# usage: toolbox.sh [--] COMMAND [ARGUMENT]...	run it, in the current folder
#        toolbox.sh --path			print where the root is
#
# The command sees the checkout and the cache at their own paths. Its mounts are
# in a namespace of its own, so nothing stays mounted, however it ends.

set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

root=$DRR_CACHE/toolbox-$(cache_key 1 "$DEBIAN_SUITE" "${TOOLBOX_PACKAGES[@]}")

# Runs a command chrooted; $1: root, $2: "setup" while the root is being made.
# The process of the caller becomes the command (exec): signals reach it.
in_root() {
	local dir=$1 mode=$2
	shift 2
	export DRR_IN_TOOLBOX=1
	unset MAKEFLAGS MFLAGS MAKELEVEL MAKEOVERRIDES
	# shellcheck disable=SC2016 # expanded by the inner shell
	exec unshare --mount --propagation private bash -euc '
		root=$1 mode=$2 cwd=$3
		shift 3
		bind() {
			if [[ -d $1 ]]; then
				mkdir -p "$root$2"
			else
				mkdir -p "$root$(dirname "$2")"
				[[ -e $root$2 ]] || : >"$root$2"
			fi
			mount --rbind "$1" "$root$2"
		}
		mount -t proc proc "$root/proc"
		mount --rbind /sys "$root/sys"
		mount --rbind /dev "$root/dev"
		[[ ! -e /etc/resolv.conf ]] || bind /etc/resolv.conf /etc/resolv.conf
		if [[ $mode = setup ]]; then
			mkdir -p "$DRR_CACHE/debs"
			bind "$DRR_CACHE/debs" /var/cache/apt/archives
		else
			certs=/etc/ssl/certs/ca-certificates.crt
			[[ ! -s $certs ]] || bind "$certs" "$certs"
			bind /tmp /tmp
			bind "$DRR_CACHE" "$DRR_CACHE"
			bind "$DRR_TOP" "$DRR_TOP"
		fi
		cd "$root$cwd" 2>/dev/null || cwd=/
		export PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LC_ALL=C.UTF-8
		exec chroot "$root" env --chdir="$cwd" "$@"
	' toolbox "$dir" "$mode" "$PWD" "$@"
}

in_setup() {
	( in_root "$root.tmp" setup "$@" )
}

# The host may lack debootstrap, or know only the keys of older releases.
install_debootstrap() {
	apt-get update || true	# a foreign source that is broken doesn't matter here
	DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends \
		debootstrap debian-archive-keyring
}

bootstrap() {
	local proxy
	# debootstrap knows proxies from the environment only
	proxy=$(apt-config dump 2>/dev/null |
		sed -n 's/^Acquire::http::Proxy "\(http.*\)";$/\1/p' | tail -n 1)
	[[ -z $proxy ]] || export http_proxy=${http_proxy:-$proxy}
	mkdir -p "$DRR_CACHE/debs"
	debootstrap --variant=minbase --cache-dir="$DRR_CACHE/debs" \
		"$DEBIAN_SUITE" "$root.tmp" ${DRR_MIRROR:+"$DRR_MIRROR"}
}

# Security updates, backports, and what the host knows about its network.
# The mirror is the one that debootstrap used.
configure_apt() {
	local etc=$root.tmp/etc mirror
	mirror=$(awk '$1 == "deb" { print $2; exit }' "$etc/apt/sources.list")
	cat >"$etc/apt/sources.list" <<-EOF
	deb $mirror $DEBIAN_SUITE main
	deb $mirror $DEBIAN_SUITE-backports main
	deb ${mirror%/}-security $DEBIAN_SUITE-security main
	EOF
	apt-config dump 2>/dev/null |
		grep -E '^Acquire::https?::Proxy(::[^ ]+)? "' \
		>"$etc/apt/apt.conf.d/80host" || true
	if [[ -s /etc/ssl/certs/ca-certificates.crt ]]; then
		mkdir -p "$etc/ssl/certs"
		cp -L /etc/ssl/certs/ca-certificates.crt "$etc/ssl/certs/"
	fi
	if [[ -d /usr/local/share/ca-certificates ]]; then
		mkdir -p "$root.tmp/usr/local/share"
		cp -rL /usr/local/share/ca-certificates "$root.tmp/usr/local/share/"
	fi
	in_setup apt-get update
}

install_packages() {
	in_setup env DEBIAN_FRONTEND=noninteractive apt-get install -y \
		--no-install-recommends "${TOOLBOX_PACKAGES[@]}"
}

make_root() {
	local stale
	need_root
	need_amd64
	need_plain_paths
	need_space "$SPACE_TOOLBOX" "the toolbox"
	lock_cache toolbox
	[[ ! -d $root ]] || return 0
	command -v apt-get >/dev/null ||
		die "apt-get not found : run this on Debian 12 or 13"
	for stale in "$DRR_CACHE"/toolbox-*.tmp; do
		remove_tree "$stale"
	done
	if ! command -v debootstrap >/dev/null ||
		! compgen -G "/usr/share/keyrings/debian-archive-$DEBIAN_SUITE-automatic.*" >/dev/null; then
		step toolbox-debootstrap "toolbox: installing debootstrap" install_debootstrap
	fi
	step toolbox-base "toolbox: Debian $DEBIAN_SUITE base system" bootstrap
	step toolbox-lists "toolbox: package lists" configure_apt
	step toolbox-packages "toolbox: compilers, QEMU and tools (2.2 GB)" install_packages
	mv "$root.tmp" "$root"
	remove_tree "$DRR_CACHE/debs"
	keep_newest 2 "$DRR_CACHE"/toolbox-*
}

[[ ${1:-} != --path ]] || { [[ -d $root ]] || ( make_root ); echo "$root"; exit; }
[[ ${1:-} != -- ]] || shift
(($#)) || die "toolbox.sh: no command : give one, e.g. scripts/toolbox.sh bash"

[[ -z ${DRR_IN_TOOLBOX:-} ]] || exec "$@"
need_root
[[ -d $root ]] || ( make_root )
in_root "$root" run "$@"
