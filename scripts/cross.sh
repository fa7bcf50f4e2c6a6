#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# Runs a command in a Debian root with the toolbox's compilers for arm64, and its emulator. Makes the
# root when it isn't there yet.
#
# usage: cross.sh [--] COMMAND [ARGUMENT]...	run it, in the current folder
#        cross.sh --path			print where the root is

set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
# shellcheck source=scripts/debian-root.sh
. "$DRR_TOP/scripts/debian-root.sh"

cross_root() {
	cached_root cross "$SPACE_CROSS" "compilers for arm64" "${CROSS_PACKAGES[@]}"
}

[[ ${1:-} != --path ]] || { cross_root; echo "$root"; exit; }
[[ ${1:-} != -- ]] || shift
(($#)) || die "cross.sh: no command : give one, e.g. scripts/cross.sh bash"
need_root
cross_root
in_root "$root" run "$@"
