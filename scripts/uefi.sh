#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# UEFI firmware for guests, with Secure Boot on.
#
# usage: uefi.sh code			prints the firmware's path
#        uefi.sh vars OUT KERNEL [CERT]...	makes OUT, the firmware's variables: Secure Boot allows what has
#					signed the image KERNEL, and the given certificates (PEM or DER)

set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
# shellcheck source=scripts/debian-root.sh
. "$DRR_TOP/scripts/debian-root.sh"

need_root
cached_root uefi "$SPACE_UEFI" "UEFI firmware" "${UEFI_PACKAGES[@]}"
firmware=$root/usr/share/OVMF

# The certificate in the signature of an image, as PEM.
signer() {
	( in_root "$root" run sbattach --detach "$2/signature" "$1" )
	( in_root "$root" run openssl pkcs7 -inform DER -in "$2/signature" -print_certs ) | openssl_pem
}

# The first certificate of a text that has several.
openssl_pem() { sed -n '/^-----BEGIN/,/^-----END/p' | sed '/^-----END/q'; }

make_vars() {
	local out=$1 kernel=$2 work cert words=()
	shift 2
	work=$(mktemp -d)
	# shellcheck disable=SC2064 # expanded now
	trap "rm -rf '$work'" EXIT
	signer "$kernel" "$work" >"$work/signer.pem"
	for cert in "$work/signer.pem" "$@"; do
		words+=(--add-db "$owner" "$cert")
	done
	( in_root "$root" run virt-fw-vars --input "/usr/share/OVMF/OVMF_VARS_4M.fd" --output "$out" \
		--set-pk "$owner" "$work/signer.pem" --add-kek "$owner" "$work/signer.pem" "${words[@]}" --secure-boot )
}

owner=c5f24ba7-6d8b-4bd6-a2dd-7d7b1bb0ec71	# any number
case ${1:-} in
code) echo "$firmware/OVMF_CODE_4M.secboot.fd" ;;
vars) make_vars "${@:2}" ;;
*) die "uefi.sh: unknown word '${1:-}' : say code or vars" ;;
esac
