# SPDX-License-Identifier: GPL-2.0
"""What the demo's reports share: figures from the guest, and how they look."""

import json
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
    return f"{number / MIB:.0f} MiB" if number % MIB == 0 or number >= 1000 * MIB \
        else f"{number / MIB:.1f} MiB"


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
        emulated = self.facts["machine"] == "tcg"
        kernel = {
            "uml": "User-mode Linux: at this machine's own speed",
            "cpu": "Debian's own, at this machine's own speed",
            "tcg": "Debian's own, on an emulated CPU",
        }[self.facts["machine"]]
        yield f"  kernel       {self.facts['kernel']}, {kernel}"
        yield f"  page cache   {pagecache:7.1f} MiB/s" + \
            ("   (a real CPU is many times as fast)" if emulated else "")
        yield f"  disk         {disk:7.1f} MiB/s   (like a hard disk, with seeks" + \
            (f", as much slower as the CPU: {self.facts['slower']} times)" if emulated else ")")


def show(parts, style):
    """Prints the parts of a report, which are functions of the style that yield lines."""
    sys.stdout.reconfigure(encoding="utf-8")
    for part in parts:
        print()
        for line in part(style):
            print(line)
    sys.stdout.flush()


def read_figures(kind, path):
    """The figures of one act, as that kind of Figures."""
    try:
        return kind(path)
    except (OSError, ValueError, KeyError, IndexError) as error:
        sys.exit(f"dm-drr: the demo's figures can't be used ({error}) : see {path}")


def add_entry(path, name, entry):
    """Adds an entry to result.json, or replaces it."""
    try:
        with open(path, encoding="ascii") as file:
            whole = json.load(file)
    except FileNotFoundError:
        whole = {}
    whole[name] = entry
    with open(path, "w", encoding="ascii") as out:
        json.dump(whole, out, indent=2)
        out.write("\n")
