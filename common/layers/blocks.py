"""Rotations in blocks: how they are drawn, and how they turn the rows of a matrix."""

import copy
import functools
from collections.abc import Callable
from typing import Any

import tensorflow as tf

from ..orthogonal import matmul


def drawn_one_by_one(initializer: Any, first: int = 0) -> Callable[..., tf.Tensor]:
    """Returns an initializer of ``[b, b]`` and ``[blocks, b, b]`` that draws each matrix by itself.

    Keras's Identity takes a single matrix, and its Orthogonal makes no orthogonal ones of a batch.
    An initializer with a seed draws the same numbers each time, so that block number i, counted
    from ``first``, adds i to it.
    """

    def draw(shape, dtype=None):
        if len(shape) > 2:
            blocks = range(first, first + shape[0])
            return tf.stack([drawn_one_by_one(initializer, i)(shape[1:], dtype) for i in blocks])
        own = copy.copy(initializer)
        if isinstance(getattr(own, "seed", None), int):
            own.seed += first
        return own(shape, dtype=dtype)

    return draw


def by_blocks(
    turn: Callable[[tf.Tensor, tf.Tensor], tf.Tensor], matrices: list[tf.Tensor], rows: tf.Tensor
) -> tf.Tensor:
    """Returns ``rows [n, c]``, each block of them turned by its own matrix.

    Args:
        turn: takes ``[..., b, b]`` and ``[..., b, c]``, and returns the latter turned.
        matrices: ``[b, b]`` or ``[blocks, b, b]`` each, with n rows in all.
        rows: ``[n, c]``.
    """
    counts = [matrix.shape[:-1].num_elements() for matrix in matrices]
    turned = [
        tf.reshape(turn(matrix, tf.reshape(part, [*matrix.shape[:-1], -1])), [count, -1])
        for matrix, part, count in zip(matrices, tf.split(rows, counts), counts, strict=True)
    ]
    return tf.concat(turned, axis=0)


def turned_back(matrices: list[tf.Tensor], rows: tf.Tensor) -> tf.Tensor:
    """Returns ``Q^T @ rows``, ``[n, c]``; Q has ``matrices`` as its blocks, as in `by_blocks`."""
    return by_blocks(functools.partial(matmul, transpose_a=True), matrices, rows)
