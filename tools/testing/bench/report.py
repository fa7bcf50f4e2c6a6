#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""The benchmark's bench.json, report.md and pictures, from the figures of bench.sh.

usage: report.py FACTS FOLDER
"""

import json
import pathlib
import statistics
import sys

import bars

PROFILES = ("ram", "ssd", "hdd")
RANDOM = ("buffered1", "buffered4", "direct1", "direct4")
# Of launches, and what their keys call them.
VARIANTS = {"thin": "thin", "drr": "drr", "overlay": "overlayfs", "erofs": "erofs"}
MISSES = [f"{profile}.{order}" for profile in PROFILES for order in ("seq", "random")]
UNSHARED = ("read", "randread", "write", "randwrite")


class Measured:
    """A figure of each turn."""

    def __init__(self, values):
        self.values = list(values)

    def median(self):
        return statistics.median(self.values)

    def spread(self):
        return min(self.values), max(self.values)

    def quartiles(self):
        """Between what half of the figures are, if there are enough to tell."""
        return statistics.quantiles(self.values)[::2] if len(self.values) >= 8 else None


class Samples:
    """What the guest has measured: facts, and a figure of each turn by what and which variant. A turn
    is a round, or a part of one where there are several."""

    def __init__(self, path):
        self.facts, self.rounds = {}, {}
        with open(path, encoding="ascii") as lines:
            for line in lines:
                kind, *words = line.rstrip("\n").split("\t")
                if kind == "fact":
                    self.facts[words[0]] = words[1]
                elif kind == "sample":
                    what, variant, turn, value = words
                    self.rounds.setdefault((what, variant), {})[turn] = float(value)

    def of(self, what, variant):
        """Its figures, or nothing if it wasn't measured."""
        rounds = self.rounds.get((what, variant))
        return rounds and Measured(rounds.values())

    def each(self, what, variants, formula):
        """A formula of several variants' figures of the same turn."""
        rounds = [self.rounds.get((what, variant)) for variant in variants]
        if not all(rounds):
            return None
        turns = set.intersection(*(set(of) for of in rounds))
        return Measured(formula(*(of[turn] for of in rounds)) for turn in sorted(turns))

    def ratio(self, what, above, below):
        return self.each(what, (above, below), lambda a, b: a / b)

    def across(self, above, below):
        """A ratio of figures of the same turn, each of its own what and variant."""
        rounds = [self.rounds.get(above), self.rounds.get(below)]
        if not all(rounds):
            return None
        return Measured(rounds[0][turn] / rounds[1][turn] for turn in sorted(set(rounds[0]) & set(rounds[1])))

    def overhead(self, what, without="thin", with_it="drr"):
        """Of a rate: how much longer it takes: with DRR, unless told otherwise."""
        return self.each(what, (without, with_it), lambda rate, slower: rate / slower - 1)


def percent(value):
    return f"{value * 100:.1f} %"


def mebibytes(value):
    return f"{value / (1 << 20):.0f} MiB"


def milliseconds(value):
    return f"{value * 1000:.1f} ms"


class Result:
    """A key of bench.json."""

    def __init__(self, key, text, measured, goal=None, most=False, number="{:.2f}".format):
        self.key, self.text, self.measured = key, text, measured
        self.goal, self.most, self.number = goal, most, number

    def met(self):
        if self.measured is None or self.goal is None:
            return None
        median = self.measured.median()
        return median <= self.goal if self.most else median >= self.goal

    def span(self, ends):
        return " to ".join(map(self.number, ends))

    def row(self):
        goal = "" if self.goal is None else f"{'≤' if self.most else '≥'} {self.number(self.goal)}"
        if self.measured is None:
            return f"| `{self.key}` | {self.text} | – | | {goal} | not measured |"
        spread = self.span(self.measured.spread())
        if self.measured.quartiles():
            spread += f", half {self.span(self.measured.quartiles())}"
        met = {True: "yes", False: "**no**", None: ""}[self.met()]
        return f"| `{self.key}` | {self.text} | {self.number(self.measured.median())} | " \
            f"{spread} | {goal} | {met} |"


def pick(of, results):
    """The result that is worst for us, of those that were measured."""
    known = [result for result in results if result is not None]
    return of(known, key=Measured.median) if known else None


def results(samples):
    """All keys, in the order of the report."""
    size = float(samples.facts["file_bytes"])
    limits = {of: samples.ratio(f"read.{of}", "ramdisk", "thin") for of in PROFILES}

    yield Result("read.ram.vs_ramdisk", "a hit against ext4 on a RAM disk",
                 samples.ratio("read.ram", "drr", "ramdisk"), 1.0)
    for profile in PROFILES:
        limit = limits[profile]
        yield Result(f"limit.{profile}", "ext4 on a RAM disk against dm-thin", limit)
        goal = 1.25 if profile == "ram" else limit and 0.95 * limit.median()
        yield Result(f"read.{profile}.vs_thin", "first read of a file that a sibling has",
                     samples.ratio(f"read.{profile}", "drr", "thin"), goal)
        yield Result(f"read.{profile}.vs_loop", "the same against dm-thin on a buffered loop device",
                     samples.ratio(f"read.{profile}", "drr", "loop"))
    yield Result("read4.ram.vs_thin", "the same, four readers at once",
                 samples.ratio("read4.ram", "drr", "thin"), 1.5)
    yield Result("read.vs_pagecache", "a hit against reading one's own page cache",
                 samples.ratio("read.ram", "drr", "pagecache"))
    yield Result("parallel.hit_scaling", "two receivers on two CPUs against one CPU",
                 samples.ratio("parallel", "cpus0,1", "cpus0"), 1.8)

    random = {of: samples.ratio(f"randread.ram.{of}", "drr", "thin") for of in RANDOM}
    yield Result("randread.ram.vs_thin", "random reads of 4 KiB; the worst of these",
                 pick(min, random.values()), 2)
    for mode, ratio in random.items():
        yield Result(f"randread.ram.{mode}.vs_thin", "", ratio)
        yield Result(f"limit.randread.{mode}", "ext4 on a RAM disk against dm-thin",
                     samples.ratio(f"randread.ram.{mode}", "ramdisk", "thin"))

    storms = {of: samples.each(f"storm.{of}.bytes", ("drr",), lambda read: read / size)
              for of in ("ssd", "hdd")}
    yield Result("storm.disk_amplification", "eight cold readers: read / unique; the worse of these",
                 pick(max, storms.values()), 1.02, most=True)
    for profile, read in storms.items():
        yield Result(f"storm.{profile}.disk_amplification", "", read)
    yield Result("storm.cold.disk_amplification", "the same, file systems mounted anew",
                 samples.each("storm.cold.bytes", ("drr",), lambda read: read / size), 1.02, most=True)
    yield Result("storm.thin.disk_amplification", "the same on dm-thin",
                 samples.each("storm.ssd.bytes", ("thin",), lambda read: read / size))
    yield Result("storm.hdd.time_vs_one", "their time against one alone",
                 samples.ratio("storm.hdd", "drr", "one"), 1.15, most=True)
    yield Result("md5.hdd.vs_thin", "md5sum of a file that a sibling has, speed",
                 samples.ratio("md5.hdd", "thin", "drr"), 2.7)
    yield Result("limit.md5", "md5sum of a file in the reader's own page cache, against dm-thin",
                 samples.ratio("md5.hdd", "thin", "pagecache"))

    for name, modes, text in (("miss", MISSES, "nobody has the file"),
                              ("unshared", UNSHARED, "unshared blocks")):
        overheads = {of: samples.overhead(f"{name}.{of}") for of in modes}
        yield Result(f"{name}.overhead", f"{text}: more time; the worst of these",
                     pick(max, overheads.values()), 0.01, most=True, number=percent)
        for mode, overhead in overheads.items():
            yield Result(f"{name}.{mode}.overhead", "", overhead, number=percent)
            yield Result(f"{name}.{mode}.vs_linear", "more time than dm-linear in its place",
                         samples.overhead(f"{name}.{mode}", "linear"), number=percent)
            yield Result(f"{name}.{mode}.sample_vs_linear", "the sample target: more time than dm-linear",
                         samples.overhead(f"{name}.{mode}", "linear", "passthrough"), number=percent)
    yield Result("bystander.overhead", "another file system's page cache: more time",
                 samples.each("bystander", ("with", "without"), lambda a, b: a / b - 1),
                 0.005, most=True, number=percent)

    for profile in PROFILES:
        yield Result(f"cpu.{profile}.vs_thin", "CPU time of the guest for the first read of a file",
                     samples.ratio(f"cpu.{profile}", "drr", "thin"),
                     1.0 if profile == "hdd" else None, most=True)
    pages = samples.facts.get("tracked_pages")
    yield Result("memory.bytes_per_page", "all metadata for each tracked page",
                 pages and Measured([int(samples.facts["table_bytes"]) / int(pages)]), 10, most=True)
    yield Result("smallwrite.hdd.vs_thin", "random writes of 4 KiB into shared blocks",
                 samples.ratio("smallwrite.hdd", "drr", "thin"), 2)
    yield Result("pressure.disk_amplification", "four re-read with memory for two: read / unique",
                 samples.each("pressure.bytes", ("drr",), lambda read: read / size),
                 1.1, most=True)
    yield Result("pressure.thin.disk_amplification", "the same on dm-thin",
                 samples.each("pressure.bytes", ("thin",), lambda read: read / size))
    unique = float(samples.facts.get("mixed_bytes", 1))
    mixed = "two thirds of the same and files of their own, memory for 1.5 of it: read / unique"
    yield Result("pressure.mixed.disk_amplification", mixed,
                 samples.each("mixed.bytes", ("drr",), lambda read: read / unique), 1.2, most=True)
    yield Result("pressure.mixed.thin.disk_amplification", "the same on dm-thin",
                 samples.each("mixed.bytes", ("thin",), lambda read: read / unique))
    yield Result("pressure.mixed.vs_thin", "their time against dm-thin",
                 samples.ratio("mixed", "drr", "thin"))

    yield Result("launch.hdd.vs_thin", "ten containers launched at once: time",
                 samples.ratio("launch.hdd", "drr", "thin"), 0.53, most=True)
    yield Result("launch.hdd.vs_overlayfs", "the same against overlayfs",
                 samples.ratio("launch.hdd", "drr", "overlay"), 1.1, most=True)
    yield Result("launch.hdd.vs_erofs", "the same against overlayfs on EROFS",
                 samples.ratio("launch.hdd", "drr", "erofs"))
    for key, of, text in (("disk_bytes", "bytes", "what that reads from the disk"),
                          ("cache_bytes", "cached", "what it leaves in page caches")):
        for variant, name in VARIANTS.items():
            yield Result(f"launch.{key}.{name}", text, samples.of(f"launch.hdd.{of}", variant),
                         number=mebibytes)
    for what, text in (("ssd", "ten at once, ssd"),
                       ("relatime", "ten at once, mounted with relatime"),
                       ("serial", "ten, one after the other, relatime"),
                       ("xfs", "ten at once, xfs, relatime"),
                       ("xfsserial", "ten, one after the other, xfs, relatime")):
        for below, name in VARIANTS.items():
            ratio = samples.ratio(f"launch.{what}", "drr", below)
            if below != "drr" and (ratio or below == "thin"):
                yield Result(f"launch.{what}.vs_{name}", text, ratio)
    for what, text in (("serial", ""), ("xfsserial", ", xfs")):
        yield Result(f"launch.{what}.first_reads", f"reads from the disk by the first of ten{text}",
                     samples.of(f"launch.{what}.first", "drr"), number="{:.0f}".format)
        yield Result(f"launch.{what}.later_reads", f"by each of the others, on the average{text}",
                     samples.of(f"launch.{what}.later", "drr"), 10 if not text else None, most=True,
                     number="{:.1f}".format)

    yield Result("density.vs_thin", "containers that fit into 2 GiB, against dm-thin",
                 samples.ratio("density", "drr", "thin"), 3)
    for variant in ("thin", "drr", "overlay"):
        yield Result(f"density.{VARIANTS[variant]}", "containers that fit",
                     samples.of("density", variant), number="{:.0f}".format)

    yield Result("neighbours.write.vs_linear", "writes beside a throttled neighbour: rate against dm-linear's",
                 samples.ratio("neighbours.write", "drr", "linear"), 0.9)
    yield Result("neighbours.p999.vs_linear", "the same: time that one in a thousand takes longer than",
                 samples.ratio("neighbours.p999", "drr", "linear"), 2, most=True)
    for what, text, goal in (
            ("attach", "attaching a device", 1.5), ("hit", "32 MiB that another has", 1.5),
            ("evict", "dropping 32 MiB of page cache", 1.5), ("remove", "removing an attached device", None),
            ("delete", "deleting a thin device", None), ("list", "drrctl list", None),
            ("layers", "drrctl layers", None), ("export", "drrctl export", None)):
        yield Result(f"growth.{what}.300_vs_10", f"{text}: time with 300 devices against 10",
                     samples.ratio(f"growth.{what}", "300", "10"), goal, most=True)
        for count in ("1", "10", "100", "300"):
            yield Result(f"growth.{what}.{count}", "", samples.of(f"growth.{what}", count),
                         number=milliseconds)

    for key, of, text, goal in (
            ("hitrate", "all", "page reads served / those of which a clean copy was cached", 0.995),
            ("hitrate.single", "single", "the same, reads of one page", None),
            ("hitrate.runs", "runs", "reads of 2 to 32 pages", None)):
        yield Result(f"{key}.vs_oracle", text, samples.ratio(f"hitrate.{of}", "hit", "possible"), goal,
                     number="{:.4f}".format)

    if ("tensorflow.hdd", "drr") in samples.rounds:
        yield from tensorflow(samples)


def tensorflow(samples):
    """The part with the paper's workload. Goals are what the paper's prototype reached."""
    seconds = "{:.1f} s".format
    names = (("thin", "thin"), ("drr", "drr"), ("overlay", "overlayfs"))
    every = samples.facts["launched"]
    for what, floor, text, goal in (
            ("hdd", "floor", f"{every} TensorFlows launched at once, hdd", 0.53),
            ("ssd", "floor", f"{every} at once, ssd", None),
            ("serial", "serialfloor", f"{every}, one after the other, hdd", None)):
        key = f"tensorflow.{what}"
        yield Result(f"{key}.vs_thin", f"{text}: time", samples.ratio(key, "drr", "thin"), goal, most=True)
        yield Result(f"{key}.vs_overlayfs", "the same against overlayfs", samples.ratio(key, "drr", "overlay"))
        for variant, name in names:
            yield Result(f"{key}.{name}", f"{text}: {name}", samples.of(key, variant), number=seconds)
        for variant, name in names:
            yield Result(f"{key}.{name}.floor", "the same, all in the containers' own page caches",
                         samples.of(f"tensorflow.{floor}", variant), number=seconds)
        yield Result(f"{key}.disk.vs_thin", f"{text}: bytes from the disk",
                     samples.ratio(f"{key}.bytes", "drr", "thin"), 1 / 3, most=True)
        for variant, name in names:
            yield Result(f"{key}.{name}.disk_bytes", f"{text}: from the disk, {name}",
                         samples.of(f"{key}.bytes", variant), number=mebibytes)
        yield Result(f"{key}.requests.vs_thin", "requests to the disk",
                     samples.ratio(f"{key}.reads", "drr", "thin"))
        yield Result(f"{key}.cpu.vs_thin", f"{text}: the guest's CPU time",
                     samples.ratio(f"{key}.cpu", "drr", "thin"))
    for variant, name in names:
        yield Result(f"tensorflow.{name}.floor_disk_bytes", "read from the disk while a floor is measured",
                     samples.of("tensorflow.floor.bytes", variant), number=mebibytes)
        yield Result(f"tensorflow.serial.{name}.later_reads", "requests by each but the first, on the average",
                     samples.of("tensorflow.serial.later", variant), number="{:.1f}".format)

    for profile, read, miss in (("hdd", 10, 0.975), ("ssd", 2.38, 0.933)):
        key = f"tensorflow.read.{profile}"
        yield Result(f"{key}.vs_thin", f"first read of the model, which a sibling has, {profile}",
                     samples.ratio(key, "drr", "thin"), read)
        yield Result(f"{key}.vs_pagecache", "the same against the reader's own page cache",
                     samples.ratio(key, "drr", "pagecache"), 0.48 if profile == "hdd" else 0.51)
        yield Result(f"{key}.cpu.vs_thin", "the same: the guest's CPU time",
                     samples.ratio(f"{key}.cpu", "drr", "thin"))
        key = f"tensorflow.md5.{profile}"
        yield Result(f"{key}.vs_thin", f"md5sum of it, speed, {profile}", samples.ratio(key, "thin", "drr"),
                     2.7 if profile == "hdd" else None)
        yield Result(f"{key}.limit", "md5sum of it in the reader's own page cache, against dm-thin",
                     samples.ratio(key, "thin", "pagecache"))
        key = f"tensorflow.miss.{profile}"
        yield Result(f"{key}.vs_thin", f"read of the model, which nobody has, {profile}",
                     samples.ratio(key, "drr", "thin"), miss, number="{:.3f}".format)
        yield Result(f"{key}.vs_linear", "the same against dm-linear in its place",
                     samples.ratio(key, "drr", "linear"), number="{:.3f}".format)
        yield Result(f"{key}.cpu.vs_thin", "the same: the guest's CPU time",
                     samples.ratio(f"{key}.cpu", "drr", "thin"))


def beside_the_paper(samples):
    """Rows of what the paper measured: its figure, ours, and the best that anything could have here: everything
    in the containers' own page caches, or each byte read once."""
    every = int(samples.facts["launched"])
    rows = []
    for what, floor, text, paper in (
            ("hdd", "floor", f"{every} launched at once, hdd: time / dm-thin's", "0.53 at best"),
            ("ssd", "floor", f"{every} launched at once, ssd: time / dm-thin's", ""),
            ("serial", "serialfloor", f"{every} launched in a row, hdd: time / dm-thin's", "")):
        key = f"tensorflow.{what}"
        rows += [(text, paper, samples.ratio(key, "drr", "thin"),
                  samples.across((f"tensorflow.{floor}", "drr"), (key, "thin"))),
                 ("its bytes from the disk / dm-thin's", "0.33", samples.ratio(f"{key}.bytes", "drr", "thin"),
                  Measured([1 / every])),
                 ("its time / overlayfs's", "", samples.ratio(key, "drr", "overlay"), None),
                 ("its CPU time / dm-thin's", "", samples.ratio(f"{key}.cpu", "drr", "thin"), None)]
    for profile, paper in (("hdd", ("10", "0.48", "2.7", "0.975")), ("ssd", ("2.38", "0.51", "", "0.933"))):
        key = f"tensorflow.read.{profile}"
        rows += [(f"reading the model that a sibling has, {profile}: rate / dm-thin's", paper[0],
                  samples.ratio(key, "drr", "thin"), samples.ratio(key, "pagecache", "thin")),
                 ("the same / a page cache's of its own", paper[1], samples.ratio(key, "drr", "pagecache"), None),
                 ("its CPU time / dm-thin's", "", samples.ratio(f"{key}.cpu", "drr", "thin"), None)]
        key = f"tensorflow.md5.{profile}"
        rows.append((f"md5sum of it, {profile}: rate / dm-thin's", paper[2], samples.ratio(key, "thin", "drr"),
                     samples.ratio(key, "thin", "pagecache")))
        key = f"tensorflow.miss.{profile}"
        rows += [(f"reading it if nobody has it, {profile}: rate / dm-thin's", paper[3],
                  samples.ratio(key, "drr", "thin"), samples.ratio(key, "linear", "thin")),
                 ("its CPU time / dm-thin's", "", samples.ratio(f"{key}.cpu", "drr", "thin"), None)]
    for text, paper, ours, best in rows:
        if ours is not None:
            yield f"| {text} | {paper} | {ours.median():.2f} | " \
                f"{' to '.join(f'{end:.2f}' for end in ours.spread())} | {f'{best.median():.2f}' if best else ''} |"


def lost_hits(samples):
    """Of the pages that could have been hits, how many weren't, by reason; in all rounds together."""
    return {variant: int(sum(rounds.values()))
            for (what, variant), rounds in samples.rounds.items() if what == "hitrate.lost"}


def draw(samples, folder):
    """The pictures; returns their names and titles."""
    charts = [
        ("reads", "One reader of 200 MiB, MiB/s", [
            (f"{profile}: {text}", samples.of(f"read.{profile}", variant))
            for profile in PROFILES
            for variant, text in (("thin", "dm-thin"), ("loop", "on a loop device"), ("drr", "DRR"),
                                  ("ramdisk", "RAM disk"))]),
        ("random", "Random reads of 4 KiB, MiB/s", [
            (f"{mode}: {text}", samples.of(f"randread.ram.{mode}", variant))
            for mode in RANDOM
            for variant, text in (("thin", "dm-thin"), ("drr", "DRR"), ("ramdisk", "RAM disk"))]),
        ("storm", "Eight cold readers at once, MiB from the disk for 200 MiB", [
            (text, samples.each(f"storm.{profile}.bytes", (variant,), lambda read: read / (1 << 20)))
            for profile, variant, text in (("ssd", "thin", "dm-thin"), ("ssd", "drr", "DRR, ssd"),
                                           ("hdd", "drr", "DRR, hdd"))]),
        ("launch", "Ten containers launched at once, hdd, seconds", [
            (text, samples.of("launch.hdd", variant))
            for variant, text in (("thin", "dm-thin"), ("drr", "DRR"), ("overlay", "overlayfs"),
                                  ("erofs", "overlayfs on EROFS"))]),
        ("density", "Containers that fit into 2 GiB", [
            (text, samples.of("density", variant))
            for variant, text in (("thin", "dm-thin"), ("drr", "DRR"), ("overlay", "overlayfs"))]),
        ("tensorflow", "TensorFlows launched, seconds", [
            (f"{what}: {text}", samples.of(f"tensorflow.{key}", variant))
            for key, what in (("hdd", "hdd"), ("ssd", "ssd"), ("floor", "cached"), ("serial", "in order"),
                              ("serialfloor", "in order, cached"))
            for variant, text in (("thin", "dm-thin"), ("drr", "DRR"), ("overlay", "overlayfs"))]),
        ("pressure", "Four re-read with little memory, MiB from the disk", [
            (f"{what}: {text}", samples.each(f"{key}.bytes", (variant,), lambda read: read / (1 << 20)))
            for key, what in (("pressure", "a file"), ("mixed", "a file and own"))
            for variant, text in (("thin", "dm-thin"), ("drr", "DRR"))]),
    ]
    for name, title, rows in charts:
        rows = [(label, measured.median(), *measured.spread())
                for label, measured in rows if measured is not None]
        if rows:
            (folder / f"{name}.svg").write_text(bars.chart(title, rows), encoding="utf-8")
            yield name, title


def main():
    samples, folder = Samples(sys.argv[1]), pathlib.Path(sys.argv[2])
    every = list(results(samples))
    machine = f"Linux {samples.facts['kernel']}, {samples.facts['cpus']} CPUs, " \
        f"{samples.facts['rounds']} rounds in turn"

    known = {result.key: result.measured for result in every}
    document = {key: measured and round(measured.median(), 4) for key, measured in known.items()}
    document["spread"] = {key: [round(value, 4) for value in measured.spread()]
                          for key, measured in known.items() if measured is not None}
    document["quartiles"] = {key: [round(value, 4) for value in measured.quartiles()]
                             for key, measured in known.items() if measured and measured.quartiles()}
    document["missed"] = [result.key for result in every if result.met() is False]
    lost = lost_hits(samples)
    document["hitrate_lost"] = lost
    document["machine"] = samples.facts
    (folder / "bench.json").write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")

    lines = ["# DRR against dm-thin", "", f"{machine}. Medians of the rounds' ratios.", "",
             "| key | what | median | spread | goal | met |", "| --- | --- | --- | --- | --- | --- |",
             *(result.row() for result in every), ""]
    if ("tensorflow.hdd", "drr") in samples.rounds:
        lines += ["## Beside the paper", "", "| what | paper | here | spread | best |",
                  "| --- | --- | --- | --- | --- |", *beside_the_paper(samples), ""]
    if lost:
        lines += ["Pages that could have been hits and weren't, of "
                  f"{sum(samples.of('hitrate.all', 'possible').values):.0f}: " +
                  (", ".join(f"{reason} {pages}" for reason, pages in lost.items()
                             if pages and reason != "few") or "none") +
                  f". Of these in a row of one to three in a longer request: {lost.get('few', 0)}.", ""]
    for name, title in draw(samples, folder):
        lines += [f"![{title}]({name}.svg)", ""]
    (folder / "report.md").write_text("\n".join(lines), encoding="utf-8")

    for result in every:
        if result.measured is not None and result.goal is not None:
            print(f"  {result.key:28} {result.number(result.measured.median()):>8}  "
                  f"{'met' if result.met() else 'missed'}")
    print(f"  {folder / 'report.md'}")


main()
