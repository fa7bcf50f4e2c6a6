#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# Runs cargo in the toolbox, for the programs in tools/ that run in user space.
#
# usage: cargo.sh [--arm64] [ARGUMENT]...	e.g. cargo.sh build --release -p drr-torture
#   --arm64	for the target aarch64-unknown-linux-gnu, which the arguments must name: in the root of
#		cross.sh, into build/cargo-arm64
#
# Crates are downloaded once, to the cache; what is built goes to build/cargo.

set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

root=toolbox.sh built=$DRR_TOP/build/cargo words=()
if [[ ${1:-} = --arm64 ]]; then
	shift
	root=cross.sh built+=-arm64
	words=(CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER=aarch64-linux-gnu-gcc PKG_CONFIG_ALLOW_CROSS=1
		PKG_CONFIG_LIBDIR_aarch64_unknown_linux_gnu=/usr/lib/aarch64-linux-gnu/pkgconfig)
fi

mkdir -p "$DRR_CACHE/cargo" "$built"
exec nice "$DRR_TOP/scripts/$root" -- env --chdir="$DRR_TOP/tools" \
	CARGO_HOME="$DRR_CACHE/cargo" CARGO_TARGET_DIR="$built" "${words[@]}" \
	SSL_CERT_FILE=/etc/ssl/certs/ca-certificates.crt \
	CARGO_RESOLVER_INCOMPATIBLE_RUST_VERSIONS=fallback CARGO_TERM_COLOR=never \
	cargo "$@"
