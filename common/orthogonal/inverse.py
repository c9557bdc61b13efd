"""Inverses by matrix products alone, for XLA, whose solvers are loops."""

import tensorflow as tf

from .matrices import matmul

# matrices of at most so many rows are eliminated by one kernel per row; other ways take some 35
FEW_ROWS = 36


def inverse_of_positive(a: tf.Tensor, bound: tf.Tensor, least: float) -> tf.Tensor:
    """Returns the inverse of symmetric positive definite matrices ``a [..., n, n]``.

    Newton's iteration X <- X (2 - a X) takes an eigenvalue z of a X to z (2 - z). Here each step is
    scaled: c z (low + high - z), for z from low to high, is smallest at both ends. ``bound [...]``
    is not less than the largest eigenvalue, and none should be below ``least * bound``.
    """
    bound = bound[..., tf.newaxis, tf.newaxis]
    a /= bound
    x, low, high = None, least, 1.0
    while low < 0.999:
        # the new range lies around 1
        c = 2 / (low * high + (low + high) ** 2 / 4)
        x = _newton_step(a, x, c * (low + high), c)
        low, high = c * low * high, c * (low + high) ** 2 / 4
    return _newton_step(a, x, 2.0, 1.0) / bound


def _newton_step(a: tf.Tensor, x: tf.Tensor | None, first: float, second: float) -> tf.Tensor:
    """Returns ``first * x - second * x @ a @ x``; x is I where it is None."""
    if x is None:
        return first * tf.eye(a.shape[-1], dtype=a.dtype) - second * a
    return first * x - second * matmul(x, matmul(a, x))


def largest_row_sum(a: tf.Tensor) -> tf.Tensor:
    """Returns the largest sum of |a| over a row, ``[...]``: no eigenvalue is larger."""
    return tf.reduce_max(tf.reduce_sum(tf.abs(a), axis=-1), axis=-1)


def eliminated(m: tf.Tensor, above: bool = False) -> tuple[tf.Tensor, tf.Tensor]:
    """Returns ``m [..., n, c]`` after Gauss's elimination, and the pivots, ``[..., n, 1]``.

    Multiples of row k are added to the rows below it, and with ``above`` to those above it too.
    Rows are neither exchanged nor divided by their pivots.
    """
    n, pivots = m.shape[-2], []
    for k in range(n):
        row, pivot = m[..., k : k + 1, :], m[..., k : k + 1, k : k + 1]
        others = tf.constant([[float(i > k or (above and i < k))] for i in range(n)], m.dtype)
        m -= others * (m[..., k : k + 1] / pivot) * row
        pivots.append(pivot)
    return m, tf.concat(pivots, axis=-2)
