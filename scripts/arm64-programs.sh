#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# Unpacks the programs of the guests for arm64, with all packages that they depend on. Runs in the root
# of cross.sh, for guest-image.sh.
#
# usage: arm64-programs.sh FOLDER PACKAGE...
#   FOLDER.programs lists the files of the named packages

set -euo pipefail

dest=$1
shift
debs=$dest.debs

mkdir -p "$debs/partial" "$dest"
apt-get update
apt-get -y --no-install-recommends --download-only -o APT::Architecture=arm64 -o APT::Architectures=arm64 \
	-o Dir::State::status=/dev/null -o Dir::Cache::archives="$debs" install base-files "$@"
dpkg-deb -x "$debs"/base-files_*.deb "$dest"
for deb in "$debs"/*.deb; do
	dpkg-deb -x "$deb" "$dest"
done
for package; do
	dpkg-deb --fsys-tarfile "$debs/${package}"_*.deb | tar -t | sed 's,^\.,,'
done >"$dest.programs"
rm -r "$debs"
