#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""The table of the reads, from the figures of tools/demo/reads.sh, also as an entry of result.json.

usage: report.py ascii|utf8 FACTS RESULT ENTRY
"""

import functools
import statistics
import sys
import textwrap

from reporting import BAR_WIDTH, MIB, Figures, Style, add_entry, read_figures, show, size


class Row:
    """One container's read of the file."""

    def __init__(self, words, file_bytes):
        self.name = words[0]
        self.with_drr = words[1] == "1"
        self.seconds = int(words[2]) / 1e9
        self.rate = file_bytes / MIB / self.seconds
        self.disk_bytes = int(words[3])
        self.drr_bytes = int(words[4])
        self.donors = [] if words[5] == "-" else [
            (name, int(size)) for name, size in
            (donor.split(":") for donor in words[5].split(","))]
        self.checksum_ok = words[6] == "1"
        self.setup_bytes = int(words[7])

    def donor(self):
        """Who served most of it."""
        return max(self.donors, key=lambda d: d[1])[0] if self.donors else None

    def as_json(self):
        return {
            "name": self.name,
            "with_drr": self.with_drr,
            "seconds": round(self.seconds, 4),
            "mib_per_s": round(self.rate, 1),
            "disk_bytes": self.disk_bytes,
            "drr_bytes": self.drr_bytes,
            "donor": self.donor(),
            "checksum_ok": self.checksum_ok,
        }


class Run(Figures):
    """All that the guest wrote down."""

    def __init__(self, path):
        super().__init__(path)
        self.file_bytes = int(self.facts["file_bytes"])
        # Rows come as the checksums are done.
        self.rows = sorted((Row(words, self.file_bytes) for words in self.of("row")),
                           key=lambda row: (not row.with_drr, row.name))
        self.without = [row for row in self.rows if not row.with_drr]
        self.drr = [row for row in self.rows if row.with_drr]
        if not self.drr or len(self.without) != len(self.drr):
            raise ValueError("figures of some containers are missing")

    def ratio(self, row):
        """How much faster than the same container without DRR."""
        return next(w.seconds for w in self.without if w.name == row.name) / row.seconds

    def speedup(self):
        """Of the containers after the first, in the middle."""
        return (statistics.median(row.rate for row in self.drr[1:]) /
                statistics.median(row.rate for row in self.without[1:]))

    def as_json(self):
        return {
            "machine": self.facts["machine"],
            "containers": [row.as_json() for row in self.rows],
            "file_bytes": self.file_bytes,
            "pagecache_mib_per_s": float(self.facts["pagecache_mib_per_s"]),
            "disk_mib_per_s": float(self.facts["disk_mib_per_s"]),
            "speedup": round(self.speedup(), 2),
            "kernel": self.facts["kernel"],
        }


def headline(run, style):
    """What was read, and on what machine."""
    names = [row.name for row in run.drr]
    yield style.bold(f"{len(names)} containers of one image read the same {size(run.file_bytes)}, "
                     f"{names[0]} first and {names[-1]} last")
    yield ""
    yield from run.machine()


def table(run, style):
    """The containers of both runs."""
    fastest = max(row.rate for row in run.rows)

    def line(row):
        served = ", ".join(f"{size(part)} of {name}" for name, part in row.donors) or "-"
        verdict = style.good("right") if row.checksum_ok else style.bad("WRONG")
        cells = (f"    {row.name}{row.seconds:9.2f} s{row.rate:9.1f} MiB/s"
                 f"  {style.bar(row.rate / fastest):<{BAR_WIDTH}}"
                 f"{size(row.disk_bytes):>10}   {served:<14}  {verdict}")
        if row.with_drr:
            text = f"{run.ratio(row):7.1f}x"
            cells += style.bold(text) if run.ratio(row) >= 1.5 else text
        return cells

    yield style.faint(f"    {'':2}{'time':>11}{'rate':>15}{'':{BAR_WIDTH + 2}}"
                      f"{'from disk':>10}   {'from sibling':<14}  md5sum speed-up")
    for title, rows in ("without DRR", run.without), ("with DRR", run.drr):
        yield f"  {style.bold(title)}"
        yield from map(line, rows)


def closing(run, style):
    """What it comes to."""
    later = run.drr[1:]
    disk, before = (sum(row.disk_bytes for row in rows) for rows in (run.drr, run.without))
    names = f"{later[0].name} to {later[-1].name}"
    text = f"With DRR, {names} read the file {run.speedup():.1f} times as fast, "
    late = sum(row.disk_bytes for row in later)
    text += f"with {size(late)} from the disk: " if late else "with not a byte of it from the disk: "
    text += f"all together read {size(disk)} there, instead of {size(before)}."
    yield from map(style.bold, textwrap.wrap(text, 88))
    setups = [row.setup_bytes for row in run.rows]
    yield from map(style.faint, textwrap.wrap(
        f"Before the clock started, each container mounted its file system and looked the file "
        f"up: that read {size(min(setups))} to {size(max(setups))} of metadata from the disk.", 88))


def status(run, style):
    """The module's own words."""
    for name, line in run.of("status"):
        yield style.bold(f"  dmsetup status {name}")
        yield from textwrap.wrap(line, 88, initial_indent="    ", subsequent_indent="    ",
                                 break_long_words=False, break_on_hyphens=False)


def main():
    charset, facts, result, entry = sys.argv[1:]
    run = read_figures(Run, facts)
    add_entry(result, entry, run.as_json())
    show((functools.partial(part, run) for part in (headline, table, closing, status)),
         Style(charset))
    wrong = [f"{row.name} {'with' if row.with_drr else 'without'} DRR"
             for row in run.rows if not row.checksum_ok]
    if wrong:
        sys.exit(f"dm-drr: wrong data was read in {', '.join(wrong)} : "
                 f"this is a bug, please report it with {facts}")


if __name__ == "__main__":
    main()
