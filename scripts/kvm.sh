#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# Tells whether KVM is there and works: /dev/kvm may exist and hang. Tried once per boot of the host.
#
# usage: kvm.sh		exits with 0 if it does; DRR_ACCEL=tcg in the environment: it doesn't

set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

[[ ${DRR_ACCEL:-} != tcg && -w /dev/kvm ]] || exit 1
known=$DRR_CACHE/kvm-$(</proc/sys/kernel/random/boot_id)
if [[ ! -e $known ]]; then
	image=$("$DRR_TOP/scripts/kernel.sh" image)/vmlinuz
	rm -f "$DRR_CACHE"/kvm-*
	# a kernel without a root file system: says hello, panics, ends QEMU
	said=$(timeout -k 1 20 "$DRR_TOP/scripts/toolbox.sh" qemu-system-x86_64 -accel kvm \
		-cpu host -smp 2 -m 512M -nodefaults -display none -no-reboot \
		-serial stdio -kernel "$image" -append "console=ttyS0 panic=-1" \
		</dev/null 2>/dev/null | tr -d '\0') || true
	[[ $said = *"Kernel panic"* ]] && said=yes || said=no
	echo "$said" >"$known.$$"
	mv "$known.$$" "$known"
fi
[[ $(<"$known") = yes ]]
