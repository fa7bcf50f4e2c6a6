# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=bash
# Debian roots in folders: made with debootstrap, entered with chroot. To be sourced, after
# lib.sh. A root that is being made finds packages for it in the cache's folder debs.

# Runs a command chrooted; $1: root, $2: "setup" while the root is being made.
# The process of the caller becomes the command (exec): signals reach it.
# Mounts are in a namespace of its own: nothing stays mounted, however it ends.
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

# $1: root, rest: command
in_setup() {
	local dir=$1
	shift
	( in_root "$dir" setup "$@" )
}

# Makes sure of debootstrap. The host may lack it, or know only the keys of older releases.
need_debootstrap() {
	command -v apt-get >/dev/null ||
		die "apt-get not found : run this on Debian 12 or 13"
	! command -v debootstrap >/dev/null ||
		! compgen -G "/usr/share/keyrings/debian-archive-$DEBIAN_SUITE-automatic.*" >/dev/null ||
		return 0
	step toolbox-debootstrap "toolbox: installing debootstrap" install_debootstrap
}

install_debootstrap() {
	apt-get update || true	# a foreign source that is broken doesn't matter here
	DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends \
		debootstrap debian-archive-keyring
}

# Unpacks Debian's base system into a folder.
bootstrap() {
	local proxy
	# debootstrap knows proxies from the environment only
	proxy=$(apt-config dump 2>/dev/null |
		sed -n 's/^Acquire::http::Proxy "\(http.*\)";$/\1/p' | tail -n 1)
	[[ -z $proxy ]] || export http_proxy=${http_proxy:-$proxy}
	mkdir -p "$DRR_CACHE/debs"
	debootstrap --variant=minbase --cache-dir="$DRR_CACHE/debs" \
		"$DEBIAN_SUITE" "$1" ${DRR_MIRROR:+"$DRR_MIRROR"}
}

# Security updates, backports, and what the host knows about its network.
# The mirror is the one that debootstrap used. $1: root
configure_apt() {
	local root=$1 etc=$1/etc mirror
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
		mkdir -p "$root/usr/local/share"
		cp -rL /usr/local/share/ca-certificates "$root/usr/local/share/"
	fi
	in_setup "$root" apt-get update
}

# $1: root, rest: packages
install_packages() {
	local root=$1
	shift
	# a root that isn't finished is thrown away: no need to wait for the disk
	in_setup "$root" env DEBIAN_FRONTEND=noninteractive apt-get install -y \
		-o DPkg::Options::=--force-unsafe-io --no-install-recommends "$@"
}

# Makes sure of a root with the given packages in the cache, and sets $root to its path.
# $1: name, $2: MiB that it needs, $3: what to call it, rest: packages
cached_root() {
	local name=$1 space=$2 text=$3
	shift 3
	root=$DRR_CACHE/$name-$(cache_key 1 "$DEBIAN_SUITE" "$@")
	[[ -d $root ]] || ( make_root "$root" "$name" "$space" "$text" "$@" )
}

make_root() {
	local root=$1 name=$2 space=$3 text=$4 stale
	shift 4
	need_root
	need_amd64
	need_plain_paths
	need_space "$space" "$text"
	lock_cache toolbox	# they share the folder debs
	[[ ! -d $root ]] || return 0
	for stale in "$DRR_CACHE/$name"-*.tmp; do
		remove_tree "$stale"
	done
	need_debootstrap
	step "$name-base" "$text: Debian $DEBIAN_SUITE base system" bootstrap "$root.tmp"
	[[ "$*" != *:arm64* ]] || in_setup "$root.tmp" dpkg --add-architecture arm64
	step "$name-lists" "$text: package lists" configure_apt "$root.tmp"
	step "$name-packages" "$text: packages" install_packages "$root.tmp" "$@"
	mv "$root.tmp" "$root"
	remove_tree "$DRR_CACHE/debs"
	keep_newest 2 "$DRR_CACHE/$name"-*
}

# Makes a disk of what a running system needs of a root, without what is for building; compilers'
# libraries are there for bpftrace, which translates programs with them.
# $1: root, $2: image file, $3: its size, $4: folder with what comes on top, or nothing, rest: more
# folders of the root
root_disk() {
	local root=$1 image=$2 size=$3 extra=${4:-} top=$2.root without=()
	shift $(($# < 4 ? $# : 4))
	[[ -e $root/usr/bin/bpftrace ]] || without=(--exclude='*/libLLVM*' --exclude='*/libclang*')
	remove_tree "$top"
	mkdir -p "$top"
	tar -c -C "$root" "${without[@]}" --exclude='*/librustc*' \
		--exclude='*.a' --exclude='*/gcc/*' --exclude='*/llvm-*/*' --exclude='*/rustlib/*' \
		bin sbin lib lib64 etc usr/bin usr/sbin usr/lib usr/lib64 "$@" | tar -x -C "$top"
	mkdir -p "$top"/{dev,proc,root,run,sys,tmp,var/tmp}
	[[ -z $extra ]] || cp -a "$extra/." "$top/"
	rm -f "$image"
	truncate -s "$size" "$image"
	"$DRR_TOP/scripts/toolbox.sh" mke2fs -q -t ext4 -d "$top" "$image"
	remove_tree "$top"
}
