#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""The table of the launches, from the figures of tools/demo/launch.sh, also as the entry
"launch" of result.json.

usage: launch_report.py ascii|utf8 FACTS RESULT
"""

import functools
import statistics
import sys
import textwrap

from reporting import Figures, Style, add_entry, read_figures, show, size

VARIANTS = {"thin": "dm-thin", "drr": "with DRR", "overlay": "overlayfs"}


class Launch:
    """One container's launch, from the mount to the service's answer."""

    def __init__(self, words):
        self.name, self.variant = words[:2]
        self.seconds = int(words[2]) / 1e9
        self.disk_bytes, self.drr_bytes = int(words[3]), int(words[4])
        self.right = words[5] == "1" and words[6] == "1"

    def as_json(self):
        return {
            "name": self.name,
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
        self.of_variant = {variant: [it for it in launches if it.variant == variant]
                           for variant in VARIANTS}
        self.cached = {words[0]: int(words[1]) for words in self.of("cached")}
        names = [[it.name for it in them] for them in self.of_variant.values()]
        if len(names[0]) < 2 or any(other != names[0] for other in names):
            raise ValueError("figures of some containers are missing")

    def later(self, variant):
        """Seconds that a container after the first takes, in the middle."""
        return statistics.median(it.seconds for it in self.of_variant[variant][1:])

    def total(self, variant, of):
        """The sum of something of all launches of a variant."""
        return sum(getattr(it, of) for it in self.of_variant[variant])

    def speedup(self):
        """Of the containers after the first, in the middle."""
        return self.later("thin") / self.later("drr")

    def disk_share_gone(self):
        """Of what the disk read without DRR, the part that it did not read with it."""
        return 1 - self.total("drr", "disk_bytes") / max(1, self.total("thin", "disk_bytes"))

    def all_right(self):
        return all(it.right for them in self.of_variant.values() for it in them)

    def as_json(self):
        return {
            "machine": self.facts["machine"],
            "model_bytes": int(self.facts["model_bytes"]),
            "disk_mib_per_s": float(self.facts["disk_mib_per_s"]),
            "speedup": round(self.speedup(), 2),
            "disk_reads_gone": round(self.disk_share_gone(), 4),
            "right": self.all_right(),
            **{variant: {
                "containers": [it.as_json() for it in them],
                "seconds": round(self.total(variant, "seconds"), 3),
                "disk_bytes": self.total(variant, "disk_bytes"),
                "page_cache_bytes": self.cached[variant],
            } for variant, them in self.of_variant.items()},
        }


def headline(run, style):
    """What was launched, and on what machine."""
    yield style.bold(f"{len(run.of_variant['drr'])} containers of one image in three layers, launched one after "
                     "the other: Debian, Python with")
    yield style.bold(f"NumPy, and a service that loads a model of {int(run.facts['model_bytes']) / 1e6:.0f} MB")
    yield ""
    yield from run.machine()


def table(run, style):
    """The launches of all variants, side by side."""
    yield style.faint(f"    {'':4}{'dm-thin':>8}{'from disk':>11}{'with DRR':>12}{'from disk':>11}"
                      f"{'siblings':>11}{'overlayfs':>13}{'from disk':>11}")
    for thin, drr, overlay in zip(*run.of_variant.values()):
        right = all(it.right for it in (thin, drr, overlay))
        yield (f"    {drr.name:<4}{thin.seconds:6.2f} s{size(thin.disk_bytes):>11}"
               f"{drr.seconds:10.2f} s{size(drr.disk_bytes):>11}{size(drr.drr_bytes):>11}"
               f"{overlay.seconds:11.2f} s{size(overlay.disk_bytes):>11}"
               f"{'' if right else style.bad('  WRONG')}")


def closing(run, style):
    """What it comes to."""
    first, last = (run.of_variant["drr"][at].name for at in (1, -1))
    text = (f"With DRR, {first} to {last} were ready {run.speedup():.1f} times as fast as on dm-thin alone, in the "
            f"middle, and {run.disk_share_gone() * 100:.0f} % of the disk's reads are gone.")
    yield from map(style.bold, textwrap.wrap(text, 88))
    yield from map(style.faint, textwrap.wrap(
        "A launch is the mount, chroot, and Python until its answer. On dm-thin alone there are drr "
        "devices, too, with no_donate and no_receive: they only count. All answers, and the "
        "files that a launch reads, " + ("are right." if run.all_right() else "are NOT right."), 88))


def main():
    charset, facts, result = sys.argv[1:]
    run = read_figures(Launches, facts)
    add_entry(result, "launch", run.as_json())
    show((functools.partial(part, run) for part in (headline, table, closing)), Style(charset))
    wrong = [f"{it.name} ({VARIANTS[variant]})"
             for variant, them in run.of_variant.items() for it in them if not it.right]
    if wrong:
        sys.exit(f"dm-drr: wrong data was read in {', '.join(wrong)} : "
                 f"this is a bug, please report it with {facts}")


if __name__ == "__main__":
    main()
