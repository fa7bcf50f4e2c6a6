# SPDX-License-Identifier: GPL-2.0
"""The program of the containers of the density benchmark: keeps 20 MiB of its own, so that it has less than 30 with
Python's, and goes through a file of its image when told to, once by read() and once by a mapping that stays.

usage: dense.py FILE	reads lines from stdin; for each prints the seconds that the turn took, and the file's
			checksum
"""

import mmap
import sys
import time
import zlib

OWN_BYTES = 20 << 20
PIECE_BYTES = 1 << 20


def read_through(path):
    """By read()."""
    checksum = 0
    with open(path, "rb", buffering=0) as file:
        while piece := file.read(PIECE_BYTES):
            checksum = zlib.crc32(piece, checksum)
    return checksum


def main():
    path = sys.argv[1]
    own = bytearray(b"\1" * OWN_BYTES)
    with open(path, "rb") as file:
        mapped = mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ)
    for _ in sys.stdin:
        start = time.monotonic()
        checksums = {read_through(path), zlib.crc32(mapped)}
        assert len(checksums) == 1 and len(own) == OWN_BYTES
        print(f"{time.monotonic() - start:.6f} {checksums.pop()}", flush=True)


main()
