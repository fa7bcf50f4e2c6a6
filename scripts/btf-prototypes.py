#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0
"""Prints the prototypes of a module's functions, as its type information (BTF) has them.

usage: btf-prototypes.py BASE MODULE FUNCTION...
  BASE		section .BTF of the kernel, which the module's types build upon
  MODULE	section .BTF of the module

One line a function, in the given order: its prototype without names of parameters, or
"FUNCTION: not there".
"""

import struct
import sys

MAGIC = 0xEB9F
INT, PTR, ARRAY, STRUCT, UNION, ENUM, FWD, TYPEDEF, VOLATILE, CONST = range(1, 11)
RESTRICT, FUNC, FUNC_PROTO, VAR, DATASEC, FLOAT, DECL_TAG, TYPE_TAG, ENUM64 = range(11, 20)

# Bytes behind a type's three words: a constant, and for each of its members.
MORE = {
    INT: (4, 0), PTR: (0, 0), ARRAY: (12, 0), STRUCT: (0, 12), UNION: (0, 12), ENUM: (0, 8),
    FWD: (0, 0), TYPEDEF: (0, 0), VOLATILE: (0, 0), CONST: (0, 0), RESTRICT: (0, 0), FUNC: (0, 0),
    FUNC_PROTO: (0, 8), VAR: (4, 0), DATASEC: (0, 12), FLOAT: (0, 0), DECL_TAG: (4, 0),
    TYPE_TAG: (0, 0), ENUM64: (0, 12),
}
TAGS = {STRUCT: "struct ", UNION: "union ", ENUM: "enum ", ENUM64: "enum "}


class Btf:
    """Types by number: (kind, name, size or type, what is behind). 0 is void."""

    def __init__(self, path, base=None):
        with open(path, "rb") as file:
            data = file.read()
        if len(data) < 24 or struct.unpack_from("<H", data)[0] != MAGIC:
            sys.exit(f"btf-prototypes.py: {path} is no BTF : take section .BTF")
        header, types, types_len, strings, strings_len = struct.unpack_from("<5I", data, 4)
        self.base = base
        self.first = base.end if base else 0
        self.strings = data[header + strings:header + strings + strings_len]
        self.strings_first = base.strings_end if base else 0
        self.strings_end = self.strings_first + strings_len
        self.types = [] if base else [(0, 0, 0, b"")]
        at, end = header + types, header + types + types_len
        while at < end:
            name, info, other = struct.unpack_from("<3I", data, at)
            kind, members = info >> 24 & 0x1F, info & 0xFFFF
            if kind not in MORE:
                sys.exit(f"btf-prototypes.py: {path}: unknown kind {kind} : teach it to this script")
            more = MORE[kind][0] + MORE[kind][1] * members
            self.types.append((kind, name, other, data[at + 12:at + 12 + more]))
            at += 12 + more
        self.end = self.first + len(self.types)

    def type(self, number):
        """The type with this number."""
        return self.types[number - self.first] if number >= self.first else self.base.type(number)

    def text(self, at):
        """The string at this place."""
        if at < self.strings_first:
            return self.base.text(at)
        at -= self.strings_first
        return self.strings[at:self.strings.index(b"\0", at)].decode()

    def spell(self, number):
        """A type, as C has it."""
        kind, name, other, more = self.type(number)
        if kind == 0:
            return "void"
        if kind == PTR:
            if self.type(other)[0] == FUNC_PROTO:
                return self.prototype(other, "(*)")
            pointed = self.spell(other)
            return pointed + ("*" if pointed.endswith("*") else " *")
        if kind == ARRAY:
            element, _, count = struct.unpack("<3I", more)
            return f"{self.spell(element)}[{count}]"
        if kind == FWD:
            return "struct " + self.text(name)
        if kind in (CONST, VOLATILE, RESTRICT):
            return {CONST: "const ", VOLATILE: "volatile ", RESTRICT: "restrict "}[kind] + self.spell(other)
        if kind == TYPE_TAG:
            return self.spell(other)
        return TAGS.get(kind, "") + self.text(name)

    def prototype(self, number, name):
        """A function's, given that of its prototype."""
        _, _, result, more = self.type(number)
        params = [self.spell(kind) if kind else "..." for _, kind in struct.iter_unpack("<2I", more)]
        return f"{self.spell(result)} {name}({', '.join(params) or 'void'})"


def main():
    if len(sys.argv) < 4:
        sys.exit("btf-prototypes.py: too few arguments : see the head of the script")
    module = Btf(sys.argv[2], Btf(sys.argv[1]))
    known = {module.text(name): other for kind, name, other, _ in module.types if kind == FUNC}
    for name in sys.argv[3:]:
        print(module.prototype(known[name], name) if name in known else f"{name}: not there")


main()
