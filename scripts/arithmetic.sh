#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# Lists the kernel code's arithmetic that could overflow, and casts that could truncate, which have no
# reason beside them. tools/testing/arithmetic.py says what is looked at, and what a reason is.
#
# usage: arithmetic.sh [--list] [FILE]...	--list: those with a reason, too; without files: all

set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

list=()
[[ ${1:-} != --list ]] || { list=(--list); shift; }
program=$DRR_TOP/tools/testing/arithmetic.py
if ((!$#)); then
	cd "$DRR_TOP"
	# `make KDIR=...` leaves its bindings here
	mapfile -t files < <(find rust drr -name '*.rs' ! -name bindings_generated.rs | sort)
	set -- "${files[@]}"
fi
exec "$DRR_TOP/scripts/toolbox.sh" -- python3 -B "$program" "${list[@]}" "$@"
