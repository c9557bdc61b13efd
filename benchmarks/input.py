"""Shows that a training step does not wait for the input pipeline.

    python -m benchmarks.input

Prints how many images per second the pipeline alone (shuffle, crop, flip) makes, and how many the
plain network, the fastest of all methods, trains on. The images are random; their number and size
are those of CIFAR-100.
"""

import itertools
import time

import numpy as np

from common.training.startup import import_tensorflow

tf = import_tensorflow()

from baseline.architecture import METHOD
from common import datasets, optimizers
from common.training.steps import make_train_step

BATCH = 128


def images_per_second(function, arguments, seconds: float) -> float:
    """Returns how many images per second ``function`` takes.

    Each call takes a batch of 128 images, with the next of ``arguments``.
    """
    function(next(arguments))
    start, calls = time.perf_counter(), 0
    while time.perf_counter() - start < seconds:
        tf.nest.map_structure(lambda t: t.numpy(), function(next(arguments)))
        calls += 1
    return calls * BATCH / (time.perf_counter() - start)


def main(seconds: float = 10.0) -> None:
    images = tf.constant(np.random.default_rng(0).integers(0, 256, (50_000, 32, 32, 3), np.uint8))
    batches = datasets.draws(seed=0, iteration=0, count=len(images), batch_size=BATCH)
    pipeline = images_per_second(
        tf.function(lambda batch: datasets.augment(images, batch)), batches, seconds
    )
    step = make_train_step(METHOD, METHOD.build_model(), optimizers.Momentum(0.1))
    batch = tf.cast(images[:BATCH], tf.float32), tf.zeros([BATCH], tf.int32)
    network = images_per_second(lambda b: step(*b), itertools.repeat(batch), seconds)
    print(f"input pipeline: {pipeline:,.0f} images per second")
    print(f"plain CNN-6 training step: {network:,.0f} images per second")
    print(f"ratio: {pipeline / network:.0f}")


if __name__ == "__main__":
    main()
