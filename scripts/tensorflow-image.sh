#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# Makes the image of the containers with TensorFlow: four layers, each an archive of what it adds.
#
# usage: tensorflow-image.sh	prints a folder of the cache with
#   debian.tar		Debian's base system, without manuals and translations, as slim images are
#   python.tar		Python
#   tensorflow.tar	TensorFlow and what it depends on, from PyPI
#   app.tar		the service (tools/testing/bench/tensorflow_app.py) and its model
#   answer		what the service has to answer

set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
# shellcheck source=scripts/debian-root.sh
. "$DRR_TOP/scripts/debian-root.sh"
# shellcheck source=scripts/image-layers.sh
. "$DRR_TOP/scripts/image-layers.sh"

app=$DRR_TOP/tools/testing/bench/tensorflow_app.py
wheels=$DRR_TOP/tools/testing/bench/tensorflow-requirements.txt
image=$DRR_CACHE/tensorflow-image-$(cache_key 1 "$DEBIAN_SUITE" "${TENSORFLOW_PACKAGES[@]}" "@$wheels" "@$app")
root=$image.tmp/root

# pip is in a copy of the root only; the image gets what pip has installed. The host's settings for pip
# are in the environment and in /etc/pip.conf.
tensorflow_layer() {
	local pip=$image.tmp/pip
	cp -a "$root" "$pip"
	configure_apt "$pip"
	install_packages "$pip" python3-pip
	[[ ! -e /etc/pip.conf ]] || cp /etc/pip.conf "$pip/etc/"
	cp "$wheels" "$pip/requirements.txt"
	in_setup "$pip" pip install --require-hashes --no-deps --only-binary=:all: --no-cache-dir \
		--no-compile --ignore-installed --root /installed -r /requirements.txt
	cp -a "$pip/installed/." "$root/"
	remove_tree "$pip"
	# as pip does it: a file that is for another version of Python is no failure
	in_setup "$root" python3 -m compileall -q /usr/local/lib || true
	layer tensorflow
}

tensorflow_layers() {
	step tensorflow-debian "TensorFlow's image: Debian $DEBIAN_SUITE" debian_layer
	step tensorflow-python "TensorFlow's image: Python" python_layer "${TENSORFLOW_PACKAGES[@]}"
	step tensorflow-wheels "TensorFlow's image: TensorFlow" tensorflow_layer
	step tensorflow-app "TensorFlow's image: the service and its model" app_layer "$app" model
}

[[ -d $image ]] ||
	( make_image tensorflow-image "$SPACE_TENSORFLOW_IMAGE" "the image with TensorFlow" tensorflow_layers )
touch "$image"
echo "$image"
