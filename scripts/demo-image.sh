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
# shellcheck source=scripts/image-layers.sh
. "$DRR_TOP/scripts/image-layers.sh"

app=$DRR_TOP/tools/demo/app.py
image=$DRR_CACHE/demo-image-$(cache_key 1 "$DEBIAN_SUITE" "${DEMO_PACKAGES[@]}" "@$app")
root=$image.tmp/root

demo_layers() {
	step demo-debian "containers' image: Debian $DEBIAN_SUITE" debian_layer
	step demo-python "containers' image: Python" python_layer "${DEMO_PACKAGES[@]}"
	step demo-app "containers' image: the service and its model" app_layer "$app" model.npy
}

[[ -d $image ]] || ( make_image demo-image "$SPACE_DEMO_IMAGE" "the containers' image" demo_layers )
touch "$image"
echo "$image"
