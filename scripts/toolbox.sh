#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# Runs a command in the toolbox: a Debian root with the compilers that Debian
# builds its kernel with. Makes the root when it isn't there yet.
#
# usage: toolbox.sh [--] COMMAND [ARGUMENT]...	run it, in the current folder
#        toolbox.sh --path			print where the root is
#
# The command sees the checkout and the cache at their own paths.

set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
# shellcheck source=scripts/debian-root.sh
. "$DRR_TOP/scripts/debian-root.sh"

root=$DRR_CACHE/toolbox-$(cache_key 1 "$DEBIAN_SUITE" "${TOOLBOX_PACKAGES[@]}")

make_root() {
	local stale
	need_root
	need_amd64
	need_plain_paths
	need_space "$SPACE_TOOLBOX" "the toolbox"
	lock_cache toolbox
	[[ ! -d $root ]] || return 0
	for stale in "$DRR_CACHE"/toolbox-*.tmp; do
		remove_tree "$stale"
	done
	need_debootstrap
	step toolbox-base "toolbox: Debian $DEBIAN_SUITE base system" bootstrap "$root.tmp"
	step toolbox-lists "toolbox: package lists" configure_apt "$root.tmp"
	step toolbox-packages "toolbox: compilers, QEMU and tools (2.2 GB)" \
		install_packages "$root.tmp" "${TOOLBOX_PACKAGES[@]}"
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
