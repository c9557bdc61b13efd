"""Accuracy, the test, and averages of batch normalization for it."""

from collections.abc import Callable, Iterable

import keras
import numpy as np
import tensorflow as tf

from .. import datasets

TEST_BATCH = 500  # images of 32x32; fewer of larger ones, so that they take the same memory
RENEWAL = 100  # batches for the averages of `renew_averages`; of a shorter run as many as it had


def accuracy(labels: tf.Tensor, logits: tf.Tensor) -> tf.Tensor:
    """Returns the fraction of ``logits [batch, classes]`` whose largest is the label's, float32."""
    hits = tf.equal(tf.argmax(logits, axis=-1, output_type=tf.int32), tf.cast(labels, tf.int32))
    return tf.reduce_mean(tf.cast(hits, tf.float32))


def make_test(model: keras.Model, data: datasets.Dataset, jit: bool) -> Callable[[], float]:
    """Returns a function that returns the model's accuracy on the test set."""
    count, size = data.test_images.shape[:2]
    batch = max(1, TEST_BATCH * 32**2 // size**2)

    @tf.function(jit_compile=jit)
    def hits(images: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
        return accuracy(labels, model(images, training=False)) * labels.shape[0]

    def test() -> float:
        parts = [slice(i, i + batch) for i in range(0, count, batch)]
        right = sum(float(hits(data.test_images[p], data.test_labels[p])) for p in parts)
        return round(right) / count  # of float32 shares

    return test


def renew_averages(model: keras.Model, data: datasets.Dataset, draws: Iterable, jit: bool) -> None:
    """Sets the averages of a plain model's batch normalization to the means over drawn batches.

    Those of training lag behind the weights, since they are averages over some 1,000 steps. (This
    is PreciseBN of Wu and Johnson, Rethinking "Batch" in BatchNorm, arXiv 2105.07576.)
    """
    layers = [layer for layer in model.layers if isinstance(layer, keras.layers.BatchNormalization)]
    averages = [v for layer in layers for v in (layer.moving_mean, layer.moving_variance)]
    for layer in layers:
        layer.momentum = 0.0  # the averages are then those of the last batch
    forward = tf.function(lambda images: model(images, training=True), jit_compile=jit)
    found = []
    for drawn in draws:
        images = tf.constant(data.train_images[drawn[:, 0]])  # not all, which take memory again
        places = np.column_stack([np.arange(len(drawn), dtype=drawn.dtype), drawn[:, 1:]])
        forward(datasets.augment(images, tf.constant(places)))
        found.append([average.numpy() for average in averages])
    for average, values in zip(averages, zip(*found, strict=True), strict=True):
        average.assign(np.mean(values, axis=0))
