#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# Builds drrctl, its man pages and its shell completions, into build/drrctl.
#
# usage: drrctl.sh		build
#        drrctl.sh install	copy what was built, below $DESTDIR$PREFIX (/usr/local)

set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

out=$DRR_TOP/build/drrctl

build() {
	local program=$DRR_TOP/build/cargo/release/drrctl
	"$DRR_TOP/scripts/cargo.sh" build --release --locked -p drrctl
	rm -rf "$out"
	mkdir -p "$out/completions"
	"$DRR_TOP/scripts/toolbox.sh" strip -o "$out/drrctl" "$program"
	# in the toolbox, as the libraries of the host may be older
	# shellcheck disable=SC2016 # expanded by the inner shell
	"$DRR_TOP/scripts/toolbox.sh" bash -euc 'cd "$1"
		./drrctl man man
		./drrctl completion bash >completions/drrctl
		./drrctl completion zsh >completions/_drrctl
		./drrctl completion fish >completions/drrctl.fish' - "$out"
	echo "$out/drrctl"
}

install_built() {
	local prefix=${DESTDIR:-}${PREFIX:-/usr/local}
	[[ -x $out/drrctl ]] || die "drrctl is not built : run make drrctl first"
	install -D -m 755 -t "$prefix/sbin" "$out/drrctl"
	install -D -m 644 -t "$prefix/share/man/man1" "$out"/man/*.1
	install -D -m 644 -t "$prefix/share/bash-completion/completions" "$out/completions/drrctl"
	install -D -m 644 -t "$prefix/share/zsh/site-functions" "$out/completions/_drrctl"
	install -D -m 644 -t "$prefix/share/fish/vendor_completions.d" "$out/completions/drrctl.fish"
	install_system "$DRR_TOP/tools/drrctl/system" "$prefix/lib"
}

# Units, rules and configuration; a configuration that is there stays.
# $1: where they are, $2: the folder of libraries
install_system() {
	local file dir config=${DESTDIR:-}/etc/drrctl/drrctl.toml
	install -d "$2/systemd/system" "$2/udev/rules.d"
	for file in "$1"/*.service "$1"/*.rules; do
		case $file in
		*.service) dir=$2/systemd/system ;;
		*.rules) dir=$2/udev/rules.d ;;
		esac
		sed "s,/usr/sbin/drrctl,${PREFIX:-/usr/local}/sbin/drrctl,g" "$file" >"$dir/$(basename "$file")"
		chmod 644 "$dir/$(basename "$file")"
	done
	[[ -e $config ]] || install -D -m 644 "$1/drrctl.toml" "$config"
}

case ${1:-} in
'') build ;;
install) install_built ;;
*) die "drrctl.sh: unknown word '$1' : use install, or nothing" ;;
esac
