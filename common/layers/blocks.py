"""Rotations in blocks: how they are drawn, and how they rotate the rows of a matrix."""

import copy
from collections.abc import Callable
from typing import Any

import tensorflow as tf

from ..orthogonal import matmul


def drawn_one_by_one(initializer: Any, first: int = 0) -> Callable[..., tf.Tensor]:
    """Returns an initializer of ``[b, b]`` and ``[blocks, b, b]`` that draws each matrix by itself.

    Keras's Identity takes a single matrix, and its Orthogonal makes no orthogonal ones of a batch.
    Block number i, counted from ``first``, adds i to an initializer's seed.
    """

    def draw(shape, dtype=None):
        if len(shape) > 2:
            blocks = range(first, first + shape[0])
            return tf.stack([drawn_one_by_one(initializer, i)(shape[1:], dtype) for i in blocks])
        draws = copy.copy(initializer)
        if isinstance(getattr(draws, "seed", None), int):
            draws.seed += first
        return draws(shape, dtype=dtype)

    return draw


def split(matrices: list[tf.Tensor], rows: tf.Tensor) -> list[tf.Tensor]:
    """Returns the part of ``rows [n, c]`` that belongs to each matrix.

    It is ``[b, c]`` for a matrix ``[b, b]``, and ``[blocks, b, c]`` for ``[blocks, b, b]``.
    """
    counts = [matrix.shape[:-1].num_elements() for matrix in matrices]
    return [
        tf.reshape(part, [*matrix.shape[:-1], -1])
        for matrix, part in zip(matrices, tf.split(rows, counts), strict=True)
    ]


def joined(parts: list[tf.Tensor]) -> tf.Tensor:
    """Returns ``[n, c]``, the rows that `split` has split."""
    return tf.concat([tf.reshape(part, [-1, part.shape[-1]]) for part in parts], axis=0)


def rotated_back(matrices: list[tf.Tensor], rows: tf.Tensor) -> tf.Tensor:
    """Returns ``Q^T @ rows``, ``[n, c]``; Q has ``matrices`` as the blocks on its diagonal."""
    parts = zip(matrices, split(matrices, rows), strict=True)
    return joined([matmul(matrix, part, transpose_a=True) for matrix, part in parts])
