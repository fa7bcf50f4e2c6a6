#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""The program that the containers of the benchmark's part `tensorflow` run: a service of a TensorFlow
model, at the moment of its launch.

It imports TensorFlow, loads its model, makes sure that the model is whole, and answers a first
question, on one thread: ten of these share two CPUs. The answer goes to stdout, as one line of JSON.

usage: tensorflow_app.py MODEL		launch
       tensorflow_app.py --make MODEL	make a model of 104 MB, and answer
"""

import argparse
import json
import os
import sys
import zlib

os.environ["CUDA_VISIBLE_DEVICES"] = ""
os.environ["OMP_NUM_THREADS"] = "1"
os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"

import numpy  # noqa: E402
import tensorflow as tf  # noqa: E402  it reads the environment

ROWS, COLUMNS = 26_000, 1_000


def make(path):
    """Weights of four bytes, the same each time."""
    numpy.random.default_rng(2016).random((ROWS, COLUMNS), dtype=numpy.float32).tofile(path)


def answer(path):
    """Loads the model, and uses it."""
    weights = tf.reshape(tf.io.decode_raw(tf.io.read_file(path), tf.float32), (ROWS, COLUMNS))
    question = tf.ones(COLUMNS)
    scores = tf.nn.softmax(tf.linalg.matvec(weights, question))
    return {
        "best": int(tf.argmax(scores)),
        "crc32": zlib.crc32(weights.numpy()),
        "rows": int(weights.shape[0]),
        "tensorflow": tf.__version__,
    }


def main():
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--make", action="store_true")
    arguments.add_argument("model")
    arguments = arguments.parse_args()
    tf.config.threading.set_intra_op_parallelism_threads(1)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    if arguments.make:
        make(arguments.model)
    json.dump(answer(arguments.model), sys.stdout, sort_keys=True)
    print()


if __name__ == "__main__":
    main()
