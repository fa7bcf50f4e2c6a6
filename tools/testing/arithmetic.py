#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""Lists arithmetic that could overflow, and casts that could truncate, without a reason beside them.

usage: arithmetic.py [--list] FILE...

Looks at `+ - * <<`, their assignments, `>>` by what is no constant, and `as INTEGER` in Rust sources, without
tests. Not looked at: what the compiler works out itself (`const` items; operators between literals and
CONSTANTS). Relies on rustfmt's layout.

A reason is a comment with "RANGE:" (or, for casts, "CAST:") above the statement or in it. Of an
`if`, a `match` or a loop this is the head. Above a function it counts for all of the function.
--list prints those with a reason, too. Ends with status 1 when a reason is missing.
"""

import bisect
import re
import sys

TOKEN = re.compile(
    r"""
      (?P<space>\s+)
    | (?P<comment>//[^\n]*)
    | (?P<block>/\*)
    | (?P<string>(?:b|c|br|cr|r)?(?P<hashes>\#*)")
    | (?P<char>b?'(?:\\(?:x[0-9a-fA-F]{2}|u\{[0-9a-fA-F_]+\}|.)|[^\\'])')
    | (?P<lifetime>'[A-Za-z_]\w*)
    | (?P<number>\d(?:[\w]|\.(?=\d))*)
    | (?P<word>(?:r\#)?[A-Za-z_]\w*)
    | (?P<op><<=|>>=|(?<=\s)>>(?=\s)|\.\.\.|\.\.=|::|->|=>|<<|&&|\|\||[-+*/%^&|<>=!]=|\.\.|.)
    """,
    re.VERBOSE | re.DOTALL,
)
INTEGER = re.compile(r"[iu](8|16|32|64|128|size)|c_\w+|[a-z]+_t|_")
CONSTANT = re.compile(r"[A-Z][A-Z0-9_]*")
TYPE = re.compile(r"[A-Z]\w*[a-z]\w*|[A-Z]")
TRAITS_OF_CALLS = ("Fn", "FnMut", "FnOnce", "AsyncFn")
# of a constant, these are constants
METHODS = ("len", "ilog2", "trailing_zeros")
# a value doesn't end with these
KEYWORDS = set("as box break const continue dyn else extern fn for if impl in let loop match mod move mut pub ref "
               "return static struct trait type unsafe use where while yield".split())
# a reason for their heads is none for their blocks
BLOCKS = ("if", "else", "while", "for", "loop", "match", "mod", "impl", "trait")
OPERATORS = ("+", "-", "*", "/", "%", "<<", ">>")
BEFORE_PARENTHESES = OPERATORS + ("(", "=", ",", "return", "{", ";")
OPENERS = {"(": ")", "[": "]", "{": "}"}


class Token:
    """A word, number or operator; `line` counts from 1."""

    def __init__(self, kind, text, line, start):
        self.kind, self.text, self.line, self.start = kind, text, line, start
        self.partner = None  # of a bracket: the index of the other one


class Source:
    """The tokens of a file, and its comments by the index of the token that they stand at."""

    def __init__(self, name, text):
        self.name, self.tokens, self.comments = name, [], {}
        self.read(text)
        self.pair()
        self.skipped = set()
        self.skip_attributes()

    def read(self, text):
        starts = [0] + [m.end() for m in re.finditer("\n", text)]
        at = 0
        while at < len(text):
            match = TOKEN.match(text, at)
            kind, value, start = match.lastgroup, match.group(), at
            at = match.end()
            line = bisect.bisect_right(starts, start)
            if kind in ("block", "comment"):
                if kind == "block":
                    at = self.end_of_block(text, at)
                # one at the end of a line belongs to that line
                last = len(self.tokens) - 1
                of = last if last >= 0 and self.tokens[last].line == line else last + 1
                self.comments.setdefault(of, []).append(text[start:at])
            elif match.group("string"):
                at = self.end_of_string(text, at, "r" in value.split('"')[0], match.group("hashes"))
                self.tokens.append(Token("string", text[start:at], line, start))
            elif kind != "space":
                self.tokens.append(Token(kind, value, line, start))

    @staticmethod
    def end_of_block(text, at):
        depth = 1
        for match in re.finditer(r"/\*|\*/", text[at:]):
            depth += 1 if match.group() == "/*" else -1
            if not depth:
                return at + match.end()
        return len(text)

    @staticmethod
    def end_of_string(text, at, raw, hashes):
        if raw:
            return text.index('"' + hashes, at) + 1 + len(hashes)
        while text[at] != '"':
            at += 2 if text[at] == "\\" else 1
        return at + 1

    def pair(self):
        stack = []
        for i, token in enumerate(self.tokens):
            if token.text in OPENERS:
                stack.append(i)
            elif token.kind == "op" and token.text in ")]}":
                opener = stack.pop()
                if OPENERS[self.tokens[opener].text] != token.text:
                    raise ValueError(f"{self.name}:{token.line}: '{token.text}' closes another bracket")
                self.tokens[opener].partner, token.partner = i, opener

    def text(self, i):
        return self.tokens[i].text if 0 <= i < len(self.tokens) else ""

    def skip_attributes(self):
        """Leaves out attributes, what they keep for tests, and items that the compiler evaluates."""
        i = 0
        while i < len(self.tokens):
            if self.text(i) == "#" and (self.text(i + 1) == "[" or self.text(i + 1) + self.text(i + 2) == "!["):
                start = i
                bracket = i + 1 if self.text(i + 1) == "[" else i + 2
                end = self.tokens[bracket].partner
                words = [t.text for t in self.tokens[bracket:end]]
                test = "kunit_tests" in words or (
                    "cfg" in words and ("test" in words or "CONFIG_KUNIT" in words) and "not" not in words)
                i = end + 1
                if test:
                    i = self.end_of_item(i)
                self.skipped.update(range(start, i))
            elif self.text(i) in ("const", "static") and self.text(i + 1) != "fn" and (
                    CONSTANT.fullmatch(self.text(i + 1)) or self.text(i + 1) in ("_", "mut")) and (
                    self.text(i + 2) == ":" or self.text(i + 1) == "mut") and self.text(i - 1) not in "*&<,":
                end = self.end_of_item(i)
                self.skipped.update(range(i, end))
                i = end
            else:
                i += 1

    def end_of_item(self, i):
        const = False
        while i < len(self.tokens):
            text = self.text(i)
            const = const or text in ("const", "static")
            if text == ";":
                return i + 1
            if text in OPENERS and self.tokens[i].kind == "op":
                i = self.tokens[i].partner
                if text == "{" and not (const and self.text(i + 1) not in ("", "fn")):
                    return i + 1
            i += 1
        return i

    # --- sites ---

    def ends_value(self, i):
        """Says whether an operator after the token has a left operand."""
        token = self.tokens[i]
        if token.kind == "word":
            return token.text not in KEYWORDS
        return token.kind in ("number", "string", "char") or token.text in (")", "]", "?", "}")

    def is_bound(self, i):
        """Says whether the `+` stands between traits."""
        right = self.tokens[i + 1]
        if right.kind == "lifetime" or right.text == "?":
            return True
        left = self.tokens[i - 1]
        return right.kind == "word" and bool(TYPE.fullmatch(right.text)) and (
            self.text(i + 2) not in ("::", "(", "{") or right.text in TRAITS_OF_CALLS
            or bool(TYPE.fullmatch(left.text)) and self.text(i + 2) == "{")

    def is_repetition(self, i):
        """Says whether the `*` or `+` ends a `$( )` of a macro."""
        for close in (i - 1, i - 2):
            if self.text(close) == ")" and self.text(self.tokens[close].partner - 1) == "$":
                return True
        return False

    def is_constant_left(self, i):
        """Says whether the compiler knows the operand that ends at the token, and what it is a part of."""
        token, start = self.tokens[i], i
        if token.text == ")":
            start = token.partner
            known = self.text(start - 1) in BEFORE_PARENTHESES and self.is_constant(range(start + 1, i))
        elif token.kind == "word":
            known = CONSTANT.fullmatch(token.text) or TYPE.fullmatch(token.text) and self.text(i - 1) == "::"
            while self.text(start - 1) == "::":
                start -= 2
        else:
            known = token.kind in ("number", "char")
        if not known or self.text(start - 1) == ".":
            return False
        if self.text(start - 1) in OPERATORS and self.ends_value(start - 2):
            return self.is_constant_left(start - 2)
        return True

    def is_constant_right(self, i):
        """Says whether the compiler knows the operand that begins at the token."""
        token = self.tokens[i]
        if token.text == "(":
            i = token.partner
            known = self.is_constant(range(self.tokens[i].partner + 1, i))
        elif token.kind in ("number", "char"):
            known = self.text(i + 1) != "as"
        else:
            while self.text(i + 1) == "::" and self.tokens[i].kind == "word":
                i += 2
            known = CONSTANT.fullmatch(self.text(i))
            if known and self.text(i + 1) == "." and self.text(i + 2) in METHODS:
                i += 4
        if not known or self.text(i + 1) in (".", "(", "["):
            return False
        return self.text(i + 1) not in ("*", "/", "%") or self.is_constant_right(i + 2)

    def is_constant(self, indices):
        return all(
            t.kind == "number" or t.text in ("+", "-", "*", "/", "<<", ">>", "::", "(", ")", "as")
            or CONSTANT.fullmatch(t.text) or INTEGER.fullmatch(t.text) or self.text(i + 1) == "::"
            or "." in (t.text, self.text(i - 1)) and {t.text, self.text(i + 1)}.intersection(METHODS)
            for i, t in ((i, self.tokens[i]) for i in indices))

    def sites(self):
        """Yields the index and the kind of each operator and cast that needs a reason."""
        for i, token in enumerate(self.tokens):
            if i in self.skipped or not i:
                continue
            if token.text == "as" and token.kind == "word":
                end = i + 1
                while self.text(end + 1) == "::":
                    end += 2
                if INTEGER.fullmatch(self.text(end)) and not self.is_constant_left(i - 1) and \
                        not self.in_use(i):
                    yield i, "cast"
            elif token.text in ("+=", "-=", "*=", "<<="):
                yield i, "arithmetic"
            elif token.text in ("+", "-", "*", "<<") and self.ends_value(i - 1):
                if self.text(i - 1) == "}" and token.text == "*" and token.line > self.tokens[i - 1].line:
                    continue
                if token.text == "+" and self.is_bound(i) or token.text in "*+" and self.is_repetition(i):
                    continue
                if self.is_constant_left(i - 1) and self.is_constant_right(i + 1):
                    continue
                yield i, "arithmetic"
            elif token.text in (">>", ">>=") and not self.is_constant_right(i + 1):
                yield i, "arithmetic"

    def in_use(self, i):
        while i > 0 and self.text(i) not in (";", "}"):
            if self.text(i) == "use":
                return True
            i -= 1
        return False

    # --- reasons ---

    def statement(self, i):
        """Returns the index of the first token of the statement, or the arm, that the token is in."""
        arm = False
        while i > 0:
            before = self.tokens[i - 1]
            if before.kind != "op":
                i -= 1
            elif before.text in (";", "{") or before.text == "," and arm:
                return i
            elif before.text == "}" and before.line < self.tokens[i].line and self.starts_statement(i):
                return i
            elif before.text in ")]}":
                i = before.partner
            else:
                arm = arm or before.text == "=>"
                i -= 1
        return 0

    def starts_statement(self, i):
        token = self.tokens[i]
        return token.kind != "op" and token.text not in ("as", "else") or token.text in ("*", "(", "[", "#", "&", "|")

    def block(self, i):
        """Returns the index of the brace that opens the innermost block around the token, or -1."""
        i -= 1
        while i >= 0 and not (self.tokens[i].kind == "op" and self.text(i) == "{"):
            if self.tokens[i].kind == "op" and self.text(i) in (")", "]", "}"):
                i = self.tokens[i].partner
            i -= 1
        return i

    def reason(self, i, tags):
        """Returns the comment that gives the reason for the token."""
        start, end = self.statement(i), i
        while end + 1 < len(self.tokens) and self.tokens[end + 1].line == self.tokens[i].line:
            end += 1
        found = self.tagged(range(start, end + 1), tags)
        inside = True
        while not found and (brace := self.block(i)) >= 0:
            i = self.statement(brace)
            words = {self.text(k) for k in range(i, brace)}
            if "fn" in words:
                return self.tagged(range(i, brace), tags)
            # `unsafe { }` in a head is a part of it
            inside = inside and (self.text(brace - 1) == "unsafe" or not words.intersection(BLOCKS))
            if inside:
                found = self.tagged(range(i, brace), tags)
        return found

    def tagged(self, places, tags):
        for at in places:
            text = " ".join(comment.strip("/!* ") for comment in self.comments.get(at, ()))
            found = re.search(r"\b(?:" + "|".join(tags) + r") [\w`].*", text, re.DOTALL)
            if found:
                return found.group()
        return ""


def main():
    names = sys.argv[1:]
    everything = names[:1] == ["--list"]
    if everything:
        del names[0]
    if not names or names[0].startswith("-"):
        sys.exit("arithmetic.py: no files : give Rust sources, after --list to see those with a reason, too")
    with_reason = without = 0
    for name in names:
        with open(name, encoding="utf-8") as file:
            text = file.read()
        source = Source(name, text)
        lines = text.split("\n")
        for i, kind in source.sites():
            tags = ("RANGE:",) if kind == "arithmetic" else ("CAST:", "RANGE:")
            token = source.tokens[i]
            reason = source.reason(i, tags)
            with_reason += bool(reason)
            without += not reason
            if not reason:
                print(f"{name}:{token.line}: {kind} without a reason: {lines[token.line - 1].strip()}")
            elif everything:
                print(f"{name}:{token.line}: {kind}: {reason}")
    print(f"{with_reason} with a reason, {without} without")
    sys.exit(without > 0)


if __name__ == "__main__":
    main()
