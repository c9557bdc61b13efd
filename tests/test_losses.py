"""The original's loss, and the gradient of OPT (OR)'s penalty."""

import numpy as np
import pytest
import tensorflow as tf

from common import losses, regularizers


@pytest.mark.parametrize("shape", [(5,), (5, 1)])
def test_smoothed_cross_entropy(shape):
    random = np.random.default_rng(0)
    logits, labels = random.normal(size=(5, 7)), random.integers(0, 7, 5)
    p = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True) + 1e-4
    target = 0.99 * np.eye(7)[labels] + 0.01 / 7
    expected = -(target * np.log(p)).sum(-1)
    actual = losses.smoothed_cross_entropy(labels.reshape(shape), tf.constant(logits))
    assert actual.dtype == tf.float64
    np.testing.assert_allclose(actual, expected, rtol=1e-14)


def test_orthogonality_penalty_has_a_gradient_at_the_identity():
    identity = tf.eye(4)
    with tf.GradientTape() as tape:
        tape.watch(identity)
        value = regularizers.OrthogonalityPenalty()(identity)
    assert float(value) == 0
    np.testing.assert_array_equal(tape.gradient(value, identity), np.zeros((4, 4)))
