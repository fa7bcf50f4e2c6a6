#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0
"""Prints how functions differ between two versions of the kernel's source.

usage: changed-functions.py OLD NEW <NAMES
  OLD, NEW	folders with the sources
  NAMES		one a line; what is no function there is skipped

The differences, each with the whole function around it, and last a line "N functions, M differ".
"""

import difflib
import pathlib
import re
import sys

# Where the kernel has what a target can rest on.
FOLDERS = ("mm", "block", "drivers/md", "fs", "lib", "include/linux", "kernel/rcu")

# A definition begins with its type in the first column, and ends with a brace there.
DEFINITION = re.compile(r"^(?:[a-z_][^\n;{}()#]*[ *\n])?(\w+)\([^;{}]*\)\n?[^;{}()\n]*\{.*?^\}", re.M | re.S)


def functions(tree, names):
    """The functions with these names: (file, name) -> lines."""
    found = {}
    for folder in FOLDERS:
        for path in sorted(pathlib.Path(tree, folder).rglob("*.[ch]")):
            text = path.read_text(errors="replace")
            if not names.intersection(re.findall(r"\w+(?=\()", text)):
                continue
            for match in DEFINITION.finditer(text):
                if match[1] in names:
                    found[str(path.relative_to(tree)), match[1]] = match[0].splitlines()
    return found


def main():
    if len(sys.argv) != 3:
        sys.exit("changed-functions.py: two arguments are wanted : see the head of the script")
    names = set(sys.stdin.read().split())
    old, new = (functions(tree, names) for tree in sys.argv[1:])
    differ = 0
    for place in sorted(old.keys() | new.keys()):
        before, after = old.get(place, []), new.get(place, [])
        if before == after:
            continue
        differ += 1
        print("\n".join(difflib.unified_diff(before, after, *(f"{place[0]}: {place[1]}()",) * 2,
                                             n=1000, lineterm="")), end="\n\n")
    print(f"{len(old.keys() | new.keys())} functions, {differ} differ")


main()
