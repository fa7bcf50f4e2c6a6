#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""The table of the launches, from the figures of tools/demo/launch.sh, also as the entry
"launch" of result.json.

usage: launch_report.py ascii|utf8 FACTS RESULT
"""

import functools
import json
import statistics
import sys
import textwrap

from reporting import BAR_WIDTH, Figures, Style, show, size


class Launch:
    """One container's launch, from the mount to the service's answer."""

    def __init__(self, words):
        self.name = words[0]
        self.with_drr = words[1] == "1"
        self.seconds = int(words[2]) / 1e9
        self.disk_bytes, self.drr_bytes = int(words[3]), int(words[4])
        self.right = words[5] == "1" and words[6] == "1"

    def as_json(self):
        return {
            "name": self.name,
            "with_drr": self.with_drr,
            "seconds": round(self.seconds, 3),
            "disk_bytes": self.disk_bytes,
            "drr_bytes": self.drr_bytes,
            "right": self.right,
        }


class Launches(Figures):
    """All that the guest wrote down."""

    def __init__(self, path):
        super().__init__(path)
        launches = [Launch(words) for words in self.of("launch")]
        self.without = [it for it in launches if not it.with_drr]
        self.drr = [it for it in launches if it.with_drr]
        if len(self.drr) < 2 or [it.name for it in self.drr] != [it.name for it in self.without]:
            raise ValueError("figures of some containers are missing")

    def speedup(self):
        """Of the containers after the first, in the middle."""
        return (statistics.median(it.seconds for it in self.without[1:]) /
                statistics.median(it.seconds for it in self.drr[1:]))

    def disk_share_gone(self):
        """Of what the disk read without DRR, the part that it did not read with it."""
        return 1 - (sum(it.disk_bytes for it in self.drr) /
                    max(1, sum(it.disk_bytes for it in self.without)))

    def as_json(self):
        return {
            "containers": [it.as_json() for it in self.without + self.drr],
            "model_bytes": int(self.facts["model_bytes"]),
            "disk_mib_per_s": float(self.facts["disk_mib_per_s"]),
            "speedup": round(self.speedup(), 2),
            "disk_reads_gone": round(self.disk_share_gone(), 4),
        }


def headline(run, style):
    """What was launched, and on what machine."""
    yield style.bold(f"{len(run.drr)} containers of one image in three layers, launched one after "
                     "the other: Debian, Python with")
    yield style.bold(f"NumPy, and a service that loads a model of {int(run.facts['model_bytes']) / 1e6:.0f} MB")
    yield ""
    yield from run.machine()


def table(run, style):
    """The launches of both runs, side by side."""
    slowest = max(it.seconds for it in run.without + run.drr)
    yield style.faint(f"    {'':4}{'without DRR':>12}{'from disk':>12}   "
                      f"{'with DRR':>10}{'':{BAR_WIDTH + 2}}{'from disk':>11}{'served':>12}")
    for before, after in zip(run.without, run.drr):
        verdict = "" if before.right and after.right else style.bad("  WRONG")
        yield (f"    {after.name:<4}{before.seconds:10.1f} s{size(before.disk_bytes):>12}   "
               f"{after.seconds:8.1f} s  {style.bar(after.seconds / slowest):<{BAR_WIDTH}}"
               f"{size(after.disk_bytes):>11}{size(after.drr_bytes):>12}{verdict}")


def closing(run, style):
    """What it comes to."""
    disk, before = (sum(it.disk_bytes for it in them) for them in (run.drr, run.without))
    later = f"{run.drr[1].name} to {run.drr[-1].name}"
    text = (f"With DRR, {later} were ready {run.speedup():.1f} times as fast, in the middle, and "
            f"{run.disk_share_gone() * 100:.0f} % of the disk's reads are gone: {size(disk)} "
            f"instead of {size(before)}.")
    yield from map(style.bold, textwrap.wrap(text, 88))
    yield from map(style.faint, textwrap.wrap(
        "A launch is the mount, chroot, and Python until its answer. Without DRR stands for drr "
        "devices with no_donate and no_receive, which only count. All answers, and the "
        "files that a launch reads, " +
        ("are right." if all(it.right for it in run.without + run.drr) else "are NOT right."), 88))


def main():
    charset, facts, result = sys.argv[1:]
    try:
        run = Launches(facts)
        with open(result, encoding="ascii") as file:
            whole = json.load(file)
    except (OSError, ValueError, KeyError, IndexError) as error:
        sys.exit(f"dm-drr: the demo's figures can't be used ({error}) : see {facts}")
    whole["launch"] = run.as_json()
    with open(result, "w", encoding="ascii") as out:
        json.dump(whole, out, indent=2)
        out.write("\n")
    show((functools.partial(part, run) for part in (headline, table, closing)), Style(charset))
    wrong = [f"{it.name} {'with' if it.with_drr else 'without'} DRR"
             for it in run.without + run.drr if not it.right]
    if wrong:
        sys.exit(f"dm-drr: wrong data was read in {', '.join(wrong)} : "
                 "this is a bug, please report it with build/out/demo-launch")


if __name__ == "__main__":
    main()
