#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""What the demo comes to, from the entries of result.json that are there: bars of the launches' time, reads and
memory, and the speed of the reads.

usage: summary.py ascii|utf8 RESULT
"""

import functools
import json
import sys
import textwrap

from reporting import Style, show, size

NAMES = {"thin": "dm-thin", "drr": "DRR", "overlay": "overlayfs"}
MACHINES = {
    "uml": "at this machine's own speed, in User-mode Linux",
    "cpu": "at this machine's own speed, on Debian's kernel",
    "tcg": "on Debian's kernel and an emulated CPU, which runs programs slower than it copies",
}


def seconds(number):
    return f"{number:.1f} s"


def bars(launch, style):
    """Time, disk and memory of the launches."""
    count = len(launch["drr"]["containers"])
    yield style.bold(f"{count} containers of one image, one after the other")
    yield style.faint(MACHINES[launch["machine"]])
    for title, key, text in (("all of them ready", "seconds", seconds),
                             ("read from the disk", "disk_bytes", size),
                             ("page cache in use", "page_cache_bytes", size)):
        most = max(launch[variant][key] for variant in NAMES)
        yield ""
        for variant, name in NAMES.items():
            value = launch[variant][key]
            line = f"  {title:<20}{name:<11}{style.bar(value / most):<22}{text(value)}"
            yield style.bold(line) if variant == "drr" else line
            title = ""


def reads(result):
    """How fast the later containers read."""
    for entry in ("reads", "debian"):
        if entry in result:
            run = result[entry]
            yield (f"A file of {size(run['file_bytes'])} that a sibling has read comes {run['speedup']:.1f} times "
                   f"as fast as from dm-thin, {MACHINES[run['machine']]}.")


def closing(result, style):
    """The reads, and where to read on."""
    for text in reads(result):
        yield from textwrap.wrap(text, 96, initial_indent="  ", subsequent_indent="  ")
    if "launch" in result:
        yield style.faint("  DRR's copies are each container's own, as dm-thin's are; they go first where memory is "
                          "short. README.md,")
        yield style.faint("  \"When to use what\", compares DRR with overlayfs and others.")


def main():
    charset, path = sys.argv[1:]
    with open(path, encoding="ascii") as file:
        result = json.load(file)
    parts = [functools.partial(bars, result["launch"])] if "launch" in result else []
    show(parts + [functools.partial(closing, result)], Style(charset))


if __name__ == "__main__":
    main()
