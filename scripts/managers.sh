#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# Tests DRR under what manages thin pools, as Debian has it: containerd and LVM, on Debian's
# kernel. Nothing of theirs is changed or told of DRR.
#
# usage: managers.sh [SUITE]...	containerd, lvm; both by default. Prints TAP; the last line is
#				"N passed, N failed"

set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
# shellcheck source=scripts/debian-root.sh
. "$DRR_TOP/scripts/debian-root.sh"
# shellcheck source=scripts/tap.sh
. "$DRR_TOP/scripts/tap.sh"

scripts=$DRR_TOP/scripts
build=$DRR_TOP/build/managers
all=(containerd lvm)
suites=("$@")
(($#)) || suites=("${all[@]}")
for suite in "${suites[@]}"; do
	[[ -e $DRR_TOP/tools/testing/managers/$suite.sh ]] ||
		die "managers.sh: no suite '$suite' : use some of ${all[*]}"
done

# Archives as ctr imports them: the demo's Debian, and on top of it a file that all read.
make_image() {
	local base dir=$build/image
	base=$("$scripts/demo-image.sh")
	remove_tree "$dir"
	mkdir -p "$dir/payload/srv"
	head -c "${PAYLOAD_MIB}M" /dev/urandom >"$dir/payload/srv/payload"
	tar -c -C "$dir/payload" --numeric-owner --owner=0 --group=0 -f "$dir/payload.tar" srv
	remove_tree "$dir/payload"
	ln -s "$base/debian.tar" "$dir/debian.tar"
	sum() { sha256sum <"$dir/$1" | cut -d ' ' -f 1; }
	cat >"$dir/config.json" <<-END
	{ "architecture": "amd64", "os": "linux",
	  "config": { "Cmd": ["sha256sum", "/srv/payload"], "Env": ["PATH=/usr/bin:/bin"] },
	  "rootfs": { "type": "layers",
	    "diff_ids": ["sha256:$(sum debian.tar)", "sha256:$(sum payload.tar)"] } }
	END
	cat >"$dir/manifest.json" <<-END
	[{ "Config": "config.json", "RepoTags": ["drr.test/debian:payload"],
	   "Layers": ["debian.tar", "payload.tar"] }]
	END
	mkdir -p "$1"
	tar -c -h -C "$dir" -f "$1/image.tar" manifest.json config.json debian.tar payload.tar
	remove_tree "$dir"
}

make_disk() {
	make_image "$root/srv"
	install -D -m 644 "$DRR_TOP/tools/drrctl/system/11-dm-drr.rules" -t "$root/usr/lib/udev/rules.d"
	root_disk "$root" "$build/disk.img" 2G srv
}

need_root
PAYLOAD_MIB=48
lock_build managers
mkdir -p "$build"
cached_root managers "$SPACE_MANAGERS" "managers of thin pools" "${MANAGERS_PACKAGES[@]}"
step managers-disk "a disk with these, and an image" make_disk
for suite in "${suites[@]}"; do
	rc=0
	"$scripts/vm.sh" --disk-file "$build/disk.img" --mem 4G --timeout 1800 --name "$suite" \
		-- "/drr/managers/$suite.sh" || rc=$?
	count_tap "$suite" "$rc" "$DRR_TOP/build/out/$suite/output.log"
done
rm "$build/disk.img"
sum_up
