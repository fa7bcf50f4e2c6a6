#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# Runs cargo in the toolbox, for the programs in tools/ that run in user space.
#
# usage: cargo.sh [ARGUMENT]...	e.g. cargo.sh build --release -p drr-torture
#
# Crates are downloaded once, to the cache; what is built goes to build/cargo.

set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

mkdir -p "$DRR_CACHE/cargo" "$DRR_TOP/build/cargo"
exec nice "$DRR_TOP/scripts/toolbox.sh" -- env --chdir="$DRR_TOP/tools" \
	CARGO_HOME="$DRR_CACHE/cargo" CARGO_TARGET_DIR="$DRR_TOP/build/cargo" \
	SSL_CERT_FILE=/etc/ssl/certs/ca-certificates.crt \
	CARGO_RESOLVER_INCOMPATIBLE_RUST_VERSIONS=fallback CARGO_TERM_COLOR=never \
	cargo "$@"
