#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# Packs programs of the toolbox, with the libraries that they need, into an archive for vm.sh --archive: those
# that are too large for the image of all guests. Prints where the archive is.
#
# usage: pack-programs.sh PROGRAM...	e.g. /usr/bin/fio

set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

scripts=$DRR_TOP/scripts
(($#)) || die "pack-programs.sh: no program : name one, e.g. /usr/bin/fio"

# $1: archive, rest: programs
pack() {
	local archive=$1
	shift
	remove_tree "$archive.d"
	mkdir -p "$archive.d"
	# shellcheck disable=SC2016 # expanded by the inner shell
	"$scripts/toolbox.sh" bash -euo pipefail -c '
		archive=$1
		shift
		{ printf "%s\n" "$@"; ldd "$@" | grep -o "/[^ ):]*"; } | sort -u | while read -r path; do
			path=$(readlink -f "$(dirname "$path")")/$(basename "$path")
			file=$(readlink -f "$path")
			mkdir -p "$archive.d$(dirname "$path")" "$archive.d$(dirname "$file")"
			cp "$file" "$archive.d$file"
			[[ $path = "$file" ]] || ln -sf "$file" "$archive.d$path"
		done
		cd "$archive.d" && find . -mindepth 1 | sort | cpio --quiet -o -H newc -R 0:0 >"$archive.tmp"
	' - "$archive" "$@"
	remove_tree "$archive.d"
	mv "$archive.tmp" "$archive"
}

need_root
toolbox=$("$scripts/toolbox.sh" --path)
mkdir -p "$DRR_TOP/build/programs"
archive=$DRR_TOP/build/programs/$(cache_key "${toolbox##*/}" "@${BASH_SOURCE[0]}" "$@").cpio
if [[ ! -e $archive ]]; then
	names=("${@##*/}")
	step "pack-${names[0]}" "${names[*]} for the guest" pack "$archive" "$@"
fi
echo "$archive"
