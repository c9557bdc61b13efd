"""Shows that the input pipeline is not what a training step waits for.

    python -m benchmarks.input

Prints how many pictures a second the pipeline alone (shuffle, crop, flip) makes, and how many the plain network,
the fastest of all methods, trains on. The pictures are random; their number and size are CIFAR-100's.
"""

import itertools
import time

import numpy as np
import tensorflow as tf

from baseline.architecture import METHOD
from common import datasets, optimizers
from common.training.steps import make_train_step

BATCH = 128


def pictures_per_second(function, arguments, seconds: float) -> float:
    """Returns the rate at which ``function`` deals with batches of 128, one call for each of ``arguments``."""
    function(next(arguments))
    start, calls = time.perf_counter(), 0
    while time.perf_counter() - start < seconds:
        tf.nest.map_structure(lambda t: t.numpy(), function(next(arguments)))
        calls += 1
    return calls * BATCH / (time.perf_counter() - start)


def main(seconds: float = 10.0) -> None:
    images = tf.constant(np.random.default_rng(0).integers(0, 256, (50_000, 32, 32, 3), np.uint8))
    picks = datasets.draws(seed=0, iteration=0, count=len(images), batch_size=BATCH)
    pipeline = pictures_per_second(
        tf.function(lambda batch: datasets.augment(images, batch)), picks, seconds
    )
    step = make_train_step(METHOD, METHOD.build_model(), optimizers.Momentum(0.1))
    batch = tf.cast(images[:BATCH], tf.float32), tf.zeros([BATCH], tf.int32)
    network = pictures_per_second(lambda b: step(*b), itertools.repeat(batch), seconds)
    print(f"input pipeline: {pipeline:,.0f} pictures a second")
    print(f"plain CNN-6 training step: {network:,.0f} pictures a second")
    print(f"ratio: {pipeline / network:.0f}")


if __name__ == "__main__":
    main()
