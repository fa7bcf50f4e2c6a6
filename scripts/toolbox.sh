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

toolbox_root() {
	cached_root toolbox "$SPACE_TOOLBOX" toolbox "${TOOLBOX_PACKAGES[@]}"
}

[[ ${1:-} != --path ]] || { toolbox_root; echo "$root"; exit; }
[[ ${1:-} != -- ]] || shift
(($#)) || die "toolbox.sh: no command : give one, e.g. scripts/toolbox.sh bash"

[[ -z ${DRR_IN_TOOLBOX:-} ]] || exec "$@"
need_root
toolbox_root
in_root "$root" run "$@"
