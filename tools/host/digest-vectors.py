#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""Works out the test vectors of drr/access/digest.rs, from the formula in its head and with Python's
own integers. With --check it sees that the file has those of the random key."""

import pathlib
import sys

WORD = (1 << 64) - 1
WORDS = 4096 // 8
TAIL = 6


def mix(value):
    value = ((value ^ (value >> 30)) * 0xBF58476D1CE4E5B9) & WORD
    value = ((value ^ (value >> 27)) * 0x94D049BB133111EB) & WORD
    return value ^ (value >> 31)


def digest(key, page):
    pairs = range(0, WORDS, 2)
    nh = sum(((page[i] + key[i]) & WORD) * ((page[i + 1] + key[i + 1]) & WORD) for i in pairs)
    low, high = nh & WORD, (nh >> 64) & WORD
    a0, a1, a2 = (key[WORDS + i] | key[WORDS + i + 1] << 64 for i in (0, 2, 4))
    return ((a0 + a1 * low + a2 * high) >> 64) & WORD


def main():
    keys = [
        [0] * (WORDS + TAIL),
        [WORD] * (WORDS + TAIL),
        [mix(i) for i in range(WORDS + TAIL)],
    ]
    pages = [
        [0] * WORDS,
        [WORD] * WORDS,
        list(range(WORDS)),
        [mix(i ^ 0x5555) for i in range(WORDS)],
    ]
    rows = [[digest(key, page) for page in pages] for key in keys]
    if sys.argv[1:] != ["--check"]:
        for row in rows:
            print(", ".join(f"0x{value:016x}" for value in row))
        return
    path = pathlib.Path(__file__).resolve().parents[2] / "drr" / "access" / "digest.rs"
    text = path.read_text().replace("_", "")
    for value in rows[-1]:
        if f"0x{value:016x}" not in text:
            sys.exit(f"{path} lacks the vector 0x{value:016x}")


main()
