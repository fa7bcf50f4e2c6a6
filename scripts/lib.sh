# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=bash
# Common parts of the scripts: errors, progress, cache, locks, preflight.
# To be sourced. Everything but results goes to stderr.

DRR_TOP=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)
DRR_CACHE=${DRR_CACHE:-${HOME:-/root}/.cache/dm-drr}
DRR_LOGS=$DRR_CACHE/logs
export DRR_TOP DRR_CACHE

# shellcheck source=scripts/versions.conf
. "$DRR_TOP/scripts/versions.conf"
DRR_KERNEL=${DRR_KERNEL:-${KERNEL_SERIES[0]}}
# What is built for the first series has the short names, what is for another ends in -7.2 or the like.
DRR_SUFFIX=	# read by other scripts
# shellcheck disable=SC2034
[[ $DRR_KERNEL = "${KERNEL_SERIES[0]}" ]] || DRR_SUFFIX=-$DRR_KERNEL

# --- errors ---

die() {
	echo "dm-drr: $*" >&2
	exit 1
}

# Says in one line why a logged command failed, as far as its log tells.
# $1: what was being done, $2: log
explain_failure() {
	local what=$1 log=$2 line
	if (($(free_space) < 20)) || grep -qiE 'no space left on device|disk quota exceeded' "$log"; then
		die "$what: the disk is full : free some space, or set DRR_CACHE to a folder on a larger disk"
	elif line=$(grep -m 1 -E "Unable to locate package|has no installation candidate|404 +Not Found|Couldn't find|Version '.*' for '.*' was not found" "$log"); then
		die "$what: the mirror no longer has a package (${line#E: }) : look for a newer version of the project, or name the package's successor in scripts/versions.conf"
	elif grep -qE 'Temporary failure resolving|Could not resolve|Could not connect|Failed to fetch|Failed getting release|unable to connect|Invalid Release|Network is unreachable|Connection timed out' "$log"; then
		die "$what: the Debian mirror can't be reached : check the network (or http_proxy) and try again"
	fi
	die "$what failed : see $log"
}

# MiB free where the cache is.
free_space() {
	df -Pm "$DRR_CACHE" | awk 'NR == 2 { print $4 }'
}

# --- progress ---

# Runs a command with its output in a log and one line of progress.
# $1: name of the log, $2: text, rest: command
step() {
	local name=$1 text=$2 start=$SECONDS log rc=0 ticker=
	shift 2
	mkdir -p "$DRR_LOGS" 2>/dev/null ||
		die "can't write to $DRR_CACHE : set DRR_CACHE to a writable folder"
	log=$DRR_LOGS/$name.log
	if [[ -t 2 ]]; then
		( while :; do
			printf '\r  %-58s %4d s' "$text" $((SECONDS - start)) >&2
			sleep 1
		done ) &
		ticker=$!
	else
		printf '  %-58s' "$text" >&2
	fi
	set +e	# not "|| rc=$?": that would switch off set -e inside the command
	( set -e; "$@" ) >"$log" 2>&1 </dev/null
	rc=$?
	set -e
	if [[ -n $ticker ]]; then
		kill "$ticker"
		wait "$ticker" 2>/dev/null || true
		printf '\r  %-58s' "$text" >&2
	fi
	if [[ $rc != 0 ]]; then
		echo " FAILED" >&2
		explain_failure "$text" "$log"
	fi
	printf ' %4d s\n' $((SECONDS - start)) >&2
}

# --- cache ---

# Prints a short key of the arguments and, for "@FILE", of a file's content.
cache_key() {
	local arg
	for arg; do
		case $arg in
		@*) sha256sum <"${arg#@}" ;;
		*) echo "$arg" ;;
		esac
	done | sha256sum | cut -c1-12
}

# Prints a key of the content of all files below the given paths.
tree_key() {
	find "$@" -type f -print0 2>/dev/null | LC_ALL=C sort -z |
		xargs -0r sha256sum | sha256sum | cut -c1-12
}

# Holds a lock of the cache until the calling (sub)shell ends.
lock_cache() {
	local name=$1 fd
	mkdir -p "$DRR_CACHE/locks" 2>/dev/null ||
		die "can't write to $DRR_CACHE : set DRR_CACHE to a writable folder"
	exec {fd}>"$DRR_CACHE/locks/$name"
	flock -n "$fd" && return
	echo "  waiting for another dm-drr set-up to finish ($name)" >&2
	flock "$fd"
}

# Same for this checkout's build folder.
lock_build() {
	local fd
	mkdir -p "$DRR_TOP/build"
	exec {fd}>"$DRR_TOP/build/.lock-$1"
	flock "$fd"
}

# Removes a folder of the cache, never crossing into something mounted there.
remove_tree() {
	[[ ! -e $1 ]] || rm -rf --one-file-system -- "$1"
}

# Keeps the newest $1 of the given files or folders, removes the rest.
keep_newest() {
	local keep=$1 path
	shift
	# shellcheck disable=SC2012 # names are ours: no odd characters
	ls -1dt -- "$@" 2>/dev/null | tail -n +$((keep + 1)) |
		while read -r path; do remove_tree "$path"; done
}

# --- preflight ---

need_root() {
	[[ $(id -u) = 0 ]] || die "set-up needs root : run it as root, e.g. with sudo"
}

need_amd64() {
	[[ $(uname -m) = x86_64 ]] || die "only x86-64 machines are supported : use one of those"
}

# $1: MiB, $2: what for
need_space() {
	local free
	mkdir -p "$DRR_CACHE" 2>/dev/null ||
		die "can't write to $DRR_CACHE : set DRR_CACHE to a writable folder"
	free=$(free_space)
	((free >= $1)) ||
		die "$2 needs $1 MiB, $DRR_CACHE has $free MiB free : free some space, or set DRR_CACHE to a folder on a larger disk"
}

need_plain_paths() {
	local path
	for path in "$DRR_TOP" "$DRR_CACHE"; do
		[[ $path =~ ^/[A-Za-z0-9_./+,@-]*$ ]] ||
			die "kernel builds can't cope with the path '$path' : move it to one without spaces or special characters"
	done
}

# Whether $1 is another flavour of Debian's kernel than the first.
is_flavour() {
	[[ " ${KERNEL_FLAVOURS[*]:1} " = *" $1 "* ]]
}

# Whether $1 is a kernel that runs as a program.
is_uml() {
	[[ $1 = uml || $1 = demo ]]
}

# Ends with the kernels that there are, if $2 is none of them; $1: the script. For those that a script
# doesn't know by itself.
need_known_kernel() {
	is_flavour "$2" ||
		die "$1: unknown kernel '$2' : use debian, ${KERNEL_FLAVOURS[*]:1}, uml, demo, debug, kcsan, arm64 or arm64-16k"
}

# A series that DRR_TRY names is being tried by new-series.sh.
need_series() {
	[[ " ${KERNEL_SERIES[*]} ${DRR_TRY:-} " = *" $DRR_KERNEL "* ]] ||
		die "kernel $DRR_KERNEL isn't supported : set DRR_KERNEL to one of: ${KERNEL_SERIES[*]}"
}
