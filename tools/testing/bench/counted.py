#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""A table of counted instructions, from the figures of counted.sh.

usage: counted.py FACTS
"""

import sys

VARIANTS = {"bare": "dm-thin, no DRR loaded", "thin": "dm-thin", "linear": "dm-linear on it",
            "passthrough": "samples/", "miss": "DRR, miss", "hit": "DRR, hit",
            "ramdisk": "ext4 on a RAM disk", "pagecache": "page cache"}
ROWS = {"read": "32 MiB in order", "randread": "4 MiB at random, 4 KiB direct",
        "fault": "4 MiB at random, 4 KiB buffered", "own.read": "4 MiB unshared, in order, direct",
        "own.randread": "4 MiB unshared, at random, direct",
        "own.write": "4 MiB written in order, unshared", "own.randwrite": "4 MiB written at random, unshared",
        "fresh": "4 MiB written at random, into fresh blocks"}
PLACES = {"digest": "digest", "first_copy": "copy to DRR's page", "second_copy": "copy to the reader",
          "drr": "rest of DRR"}

# Million instructions between two samples of perf.
SAMPLE = 0.05


def read_facts(path):
    """By what and variant: counts; counts while perf took samples; and its samples by place."""
    counts, profiled, samples = {}, {}, {}
    with open(path, encoding="ascii") as lines:
        for line in lines:
            kind, what, variant, number, *place = line.rstrip("\n").split("\t")
            if kind == "count":
                counts[what, variant] = int(number) / 1e6
            elif kind == "profiled":
                profiled[what, variant] = int(number) / 1e6
            else:
                samples.setdefault((what, variant), {})[place[0]] = int(number)
    return counts, profiled, samples


def print_row(cells):
    print("| " + " | ".join(cells) + " |")


def print_counts(counts):
    """Million instructions, some with the ratio to another variant: a miss and the sample to dm-linear in their
    place, dm-thin to itself before anything of DRR was loaded."""
    print_row(["million instructions", *VARIANTS.values()])
    print_row(["---"] * (1 + len(VARIANTS)))
    for what, title in ROWS.items():
        of = {variant: counts.get((what, variant)) for variant in VARIANTS}
        if not any(of.values()):
            continue
        cells = {variant: "" if count is None else f"{count:.2f}" for variant, count in of.items()}
        for target, base in (("passthrough", "linear"), ("miss", "linear"), ("thin", "bare")):
            if of[target] and of[base]:
                cells[target] += f" ({(of[target] / of[base] - 1) * 100:+.1f} %)"
        print_row([title, *cells.values()])


def print_profile(counts, profiled, samples):
    """What DRR's parts take of that. Copies are DRR's in a hit; in a miss they are the disk's."""
    print_row(["of these", *PLACES.values(), "without the digest and one copy"])
    print_row(["---"] * (2 + len(PLACES)))
    for (what, variant), places in samples.items():
        if variant not in ("miss", "hit"):
            continue
        count = counts[what, variant]
        # Samples that perf's own work delays stand for less.
        each = SAMPLE * count / profiled[what, variant]
        taken = {place: places.get(place, 0) * each for place in PLACES
                 if variant == "hit" or "copy" not in place}
        rest = count - taken["digest"] - taken.get("second_copy", 0)
        print_row([f"{ROWS[what]}: {VARIANTS[variant]}",
                   *(f"{taken[place]:.2f}" if place in taken else "" for place in PLACES), f"{rest:.2f}"])


def main():
    counts, profiled, samples = read_facts(sys.argv[1])
    print_counts(counts)
    if samples:
        print()
        print_profile(counts, profiled, samples)


main()
