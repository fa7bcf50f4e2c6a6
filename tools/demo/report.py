#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""The demo's table and result.json, from the figures of tools/demo/run.sh.

usage: report.py ascii|utf8 FACTS RESULT
"""

import json
import statistics
import sys
import textwrap

MIB = 1 << 20
BAR_WIDTH = 20


class Style:
    """Colour on a terminal only, and bars of what the terminal can show."""

    def __init__(self, charset):
        self.tty = sys.stdout.isatty()
        self.block = "█" if charset == "utf8" else "#"

    def paint(self, code, text):
        return f"\x1b[{code}m{text}\x1b[0m" if self.tty else text

    def bold(self, text):
        return self.paint("1", text)

    def good(self, text):
        return self.paint("32", text)

    def bad(self, text):
        return self.paint("1;31", text)

    def faint(self, text):
        return self.paint("2", text)

    def bar(self, share):
        return self.block * max(1, round(BAR_WIDTH * min(share, 1)))


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


class Run:
    """All that the guest wrote down."""

    def __init__(self, path):
        self.facts, self.rows, self.status = {}, [], []
        with open(path, encoding="ascii") as lines:
            for line in lines:
                kind, *words = line.rstrip("\n").split("\t")
                if kind == "fact":
                    self.facts[words[0]] = words[1]
                elif kind == "row":
                    self.rows.append(Row(words, self.file_bytes))
                elif kind == "status":
                    self.status.append(words)
        # Rows come as the checksums are done.
        self.rows.sort(key=lambda row: (not row.with_drr, row.name))
        self.without = [row for row in self.rows if not row.with_drr]
        self.drr = [row for row in self.rows if row.with_drr]
        if not self.drr or len(self.without) != len(self.drr):
            raise ValueError("figures of some containers are missing")

    @property
    def file_bytes(self):
        return int(self.facts["file_bytes"])

    @property
    def pagecache(self):
        return float(self.facts["pagecache_mib_per_s"])

    @property
    def disk(self):
        return float(self.facts["disk_mib_per_s"])

    def ratio(self, row):
        """How much faster than the same container without DRR."""
        return next(w.seconds for w in self.without if w.name == row.name) / row.seconds

    def speedup(self):
        """Of the containers after the first, in the middle."""
        return (statistics.median(row.rate for row in self.drr[1:]) /
                statistics.median(row.rate for row in self.without[1:]))

    def as_json(self):
        return {
            "containers": [row.as_json() for row in self.rows],
            "file_bytes": self.file_bytes,
            "pagecache_mib_per_s": self.pagecache,
            "disk_mib_per_s": self.disk,
            "speedup": round(self.speedup(), 2),
            "kernel": self.facts["kernel"],
        }


def size(number):
    """Bytes for people."""
    if number == 0:
        return "0"
    if number < MIB:
        return f"{number / 1024:.0f} KiB"
    return f"{number / MIB:.0f} MiB" if number % MIB == 0 else f"{number / MIB:.1f} MiB"


def headline(run, style):
    """What was read, and on what machine."""
    share = f"{run.disk / run.pagecache * 100:.1f} %"
    names = [row.name for row in run.drr]
    emulated = run.facts["emulated"] != "0"
    yield style.bold(f"{len(names)} containers of one image read the same {size(run.file_bytes)}, "
                     f"{names[0]} first and {names[-1]} last")
    yield ""
    yield f"  kernel       {run.facts['kernel']}, Debian's own"
    yield f"  page cache   {run.pagecache:7.1f} MiB/s" + \
        ("   (the CPU is emulated: a real one is many times as fast)" if emulated else "")
    yield f"  disk         {run.disk:7.1f} MiB/s   ({share} of that: throttled to a hard disk's share)"


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
    for name, line in run.status:
        yield style.bold(f"  dmsetup status {name}")
        yield from textwrap.wrap(line, 88, initial_indent="    ", subsequent_indent="    ",
                                 break_long_words=False, break_on_hyphens=False)


def main():
    charset, facts, result = sys.argv[1:]
    try:
        run = Run(facts)
    except (OSError, ValueError, KeyError, IndexError) as error:
        sys.exit(f"dm-drr: the demo's figures can't be used ({error}) : see {facts}")
    with open(result, "w", encoding="ascii") as out:
        json.dump(run.as_json(), out, indent=2)
        out.write("\n")
    style = Style(charset)
    sys.stdout.reconfigure(encoding="utf-8")
    for part in headline, table, closing, status:
        print()
        for line in part(run, style):
            print(line)
    sys.stdout.flush()
    wrong = [f"{row.name} {'with' if row.with_drr else 'without'} DRR"
             for row in run.rows if not row.checksum_ok]
    if wrong:
        sys.exit(f"dm-drr: wrong data was read in {', '.join(wrong)} : "
                 "this is a bug, please report it with build/out/demo")


if __name__ == "__main__":
    main()
