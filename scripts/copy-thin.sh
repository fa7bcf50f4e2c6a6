#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# Copies what dm-thin-pool.ko is made of from a kernel's source, patches it, and makes it an
# external module. Used by modules.sh in the toolbox, and by the package dm-drr-dkms.
#
# usage: copy-thin.sh SOURCE PATCHES DEST [PATCHES]...
#   DEST	has the files at their places in a kernel tree then; build DEST/drivers/md
#   more folders of patches are applied after the first

set -euo pipefail

source=$1 dest=$3 patches=("$2" "${@:4}")
md=$dest/drivers/md

rm -rf --one-file-system "$dest"
mkdir -p "$md/persistent-data" "$dest/include/linux"
cp "$source"/drivers/md/dm-thin*.[ch] "$source"/drivers/md/*.h "$md/"
cp "$source"/drivers/md/persistent-data/*.h "$md/persistent-data/"
for folder in "${patches[@]}"; do
	for patch in "$folder"/*.patch; do
		[[ -e $patch ]] || { echo "no patches in $folder" >&2; exit 1; }
		patch -d "$dest" -p1 --fuzz=0 --no-backup-if-mismatch -i "$(realpath "$patch")"
	done
done
cat >"$md/Kbuild" <<'END'
obj-m := dm-thin-pool.o
dm-thin-pool-y := dm-thin.o dm-thin-metadata.o
ccflags-y := -I$(src)/../../include
END
