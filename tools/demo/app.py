#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""The program that the demo's containers run: a small service, at the moment of its launch.

It imports what such a service imports, loads its model, makes sure that the model is whole,
and answers a first question. The answer goes to stdout, as one line of JSON.

usage: app.py MODEL		launch
       app.py --make MODEL	make a model of 104 MB, and answer
"""

import argparse
import asyncio  # noqa: F401  a service imports more than its first answer needs
import http.server  # noqa: F401
import json
import logging
import sqlite3  # noqa: F401
import sys
import zlib

import numpy

ROWS, COLUMNS = 26_000, 1_000


def make(path):
    """Weights of four bytes, the same each time."""
    random = numpy.random.default_rng(2016)
    numpy.save(path, random.random((ROWS, COLUMNS), dtype=numpy.float32))


def answer(path):
    """Loads the model, and uses it."""
    model = numpy.load(path)
    question = numpy.ones(COLUMNS, dtype=numpy.float32)
    scores = model[:1000] @ question
    return {
        "crc32": zlib.crc32(model),
        "best": int(scores.argmax()),
        "rows": len(model),
    }


def main():
    logging.basicConfig(level=logging.WARNING)
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--make", action="store_true")
    arguments.add_argument("model")
    arguments = arguments.parse_args()
    if arguments.make:
        make(arguments.model)
    json.dump(answer(arguments.model), sys.stdout, sort_keys=True)
    print()


if __name__ == "__main__":
    main()
