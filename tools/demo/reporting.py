# SPDX-License-Identifier: GPL-2.0
"""What the demo's reports share: figures from the guest, and how they look."""

import sys

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


def size(number):
    """Bytes for people."""
    if number == 0:
        return "0"
    if number < MIB:
        return f"{number / 1024:.0f} KiB"
    return f"{number / MIB:.0f} MiB" if number % MIB == 0 else f"{number / MIB:.1f} MiB"


class Figures:
    """What the guest wrote down: facts by name, and other lines as lists of words."""

    def __init__(self, path):
        self.facts, self.lines = {}, []
        with open(path, encoding="ascii") as lines:
            for line in lines:
                kind, *words = line.rstrip("\n").split("\t")
                if kind == "fact":
                    self.facts[words[0]] = words[1]
                else:
                    self.lines.append((kind, words))

    def of(self, wanted):
        return [words for kind, words in self.lines if kind == wanted]

    def machine(self):
        """What this ran on."""
        pagecache, disk = (float(self.facts[name]) for name in
                           ("pagecache_mib_per_s", "disk_mib_per_s"))
        share = f"{disk / pagecache * 100:.1f} %"
        emulated = self.facts["emulated"] != "0"
        yield f"  kernel       {self.facts['kernel']}, Debian's own"
        yield f"  page cache   {pagecache:7.1f} MiB/s" + \
            ("   (the CPU is emulated: a real one is many times as fast)" if emulated else "")
        yield f"  disk         {disk:7.1f} MiB/s   ({share} of that: " \
            "throttled to a hard disk's share)"


def show(parts, style):
    """Prints the parts of a report, which are functions of the style that yield lines."""
    sys.stdout.reconfigure(encoding="utf-8")
    for part in parts:
        print()
        for line in part(style):
            print(line)
    sys.stdout.flush()
