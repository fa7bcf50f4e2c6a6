#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# Makes the image of the demo's containers: three layers, each an archive of what it adds.
#
# usage: demo-image.sh	prints a folder of the cache with
#   debian.tar	Debian's base system, without manuals and translations, as slim images are
#   python.tar	Python with NumPy
#   app.tar	the service (tools/demo/app.py) and its model
#   answer	what the service has to answer

set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
# shellcheck source=scripts/debian-root.sh
. "$DRR_TOP/scripts/debian-root.sh"

app=$DRR_TOP/tools/demo/app.py
image=$DRR_CACHE/demo-image-$(cache_key 1 "$DEBIAN_SUITE" "${DEMO_PACKAGES[@]}" "@$app")
root=$image.tmp/root

# Removes what slim images leave out, and what only this machine needs.
slim() {
	rm -rf "$root"/usr/share/{doc,info,locale,man}/* "$root"/var/lib/apt/lists/* \
		"$root"/var/cache/apt/*.bin "$root"/var/log/*.log "$root"/var/log/apt/* \
		"$root/etc/apt/apt.conf.d/80host"
}

# Archives what has changed in the root since the last call.
# $1: the layer's name
layer() {
	local stamp=$image.tmp/stamp newer=()
	[[ ! -e $stamp ]] || newer=(-cnewer "$stamp")
	(cd "$root" && find . -xdev "${newer[@]}" -print0) | LC_ALL=C sort -z >"$image.tmp/list"
	tar -c -C "$root" --numeric-owner --no-recursion --null -T "$image.tmp/list" \
		-f "$image.tmp/$1.tar"
	touch "$stamp"
	sleep 1		# the file system's clock is a coarse one
}

debian_layer() {
	bootstrap "$root"
	slim
	layer debian
}

python_layer() {
	configure_apt "$root"
	install_packages "$root" "${DEMO_PACKAGES[@]}"
	slim
	layer python
}

# The service makes the model itself, where it will run.
app_layer() {
	mkdir -p "$root/srv/app"
	cp "$app" "$root/srv/app/"
	in_setup "$root" python3 -B /srv/app/app.py --make /srv/app/model.npy >"$image.tmp/answer"
	layer app
}

if [[ ! -d $image ]]; then
	(
		need_root
		need_amd64
		need_plain_paths
		lock_cache toolbox	# they share the folder debs
		[[ ! -d $image ]] || exit 0
		need_space "$SPACE_DEMO_IMAGE" "the containers' image"
		need_debootstrap
		remove_tree "$image.tmp"
		mkdir -p "$image.tmp"
		step demo-debian "containers' image: Debian $DEBIAN_SUITE" debian_layer
		step demo-python "containers' image: Python" python_layer
		step demo-app "containers' image: the service and its model" app_layer
		remove_tree "$root"
		rm "$image.tmp/list" "$image.tmp/stamp"
		mv "$image.tmp" "$image"
		remove_tree "$DRR_CACHE/debs"
		keep_newest 2 "$DRR_CACHE"/demo-image-*
	)
fi
touch "$image"
echo "$image"
