# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=bash
# Images of containers, in layers that are archives of what each adds. To be sourced, after
# debian-root.sh.
#
# The script that makes an image sets $image, a folder of the cache, and $root, $image.tmp/root, where
# the image grows. The folder has the layers, and the file answer: what the image's service has to
# answer.
image='' root=

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

# The first layer: Debian's base system.
debian_layer() {
	bootstrap "$root"
	slim
	layer debian
}

# The second, Python; rest: packages
python_layer() {
	configure_apt "$root"
	install_packages "$root" "$@"
	slim
	layer python
}

# The last, the service and its model, which the service makes itself, where it will run.
# $1: the service, $2: the model's name
app_layer() {
	mkdir -p "$root/srv/app"
	cp "$1" "$root/srv/app/app.py"
	in_setup "$root" python3 -B /srv/app/app.py --make "/srv/app/$2" >"$image.tmp/answer"
	layer app
}

# Makes the image, if there is none.
# $1: what the folders of all its versions begin with, $2: MiB that it needs, $3: what to call it,
# $4: a function with a step for each layer
make_image() {
	local name=$1 space=$2 text=$3 layers=$4
	need_root
	need_amd64
	need_plain_paths
	lock_cache toolbox	# they share the folder debs
	[[ ! -d $image ]] || return 0
	need_space "$space" "$text"
	need_debootstrap
	remove_tree "$image.tmp"
	mkdir -p "$image.tmp"
	"$layers"
	remove_tree "$root"
	rm "$image.tmp/list" "$image.tmp/stamp"
	mv "$image.tmp" "$image"
	remove_tree "$DRR_CACHE/debs"
	keep_newest 2 "$DRR_CACHE/$name"-*
}
