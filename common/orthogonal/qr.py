"""Gram-Schmidt's and Householder's maps: one QR factorization serves both."""

from collections.abc import Callable

import numpy as np
import tensorflow as tf

from ..private import is_compiled_by_xla
from .matrices import (
    epsilon,
    for_square_matrices,
    largest,
    matmul,
    once_differentiable,
    transpose,
    with_padded_rows,
)


@with_padded_rows
def _turned_by_rows(w: tf.Tensor, *neurons: tf.Tensor) -> tf.Tensor:
    """Returns ``D Q^T @ neurons`` of ``w^T = Q R``, or D Q^T itself without ``neurons``; D are the signs of R's diagonal."""

    @once_differentiable
    def turned(w: tf.Tensor, *neurons: tf.Tensor) -> tuple[tf.Tensor, Callable]:
        q, r, _ = _factors(transpose(w))
        signs = _signs(r)
        unsigned = matmul(q, *neurons, transpose_a=True) if neurons else transpose(q)

        def gradient(g: tf.Tensor) -> tuple[tf.Tensor, ...]:
            g *= signs
            dq = matmul(g, *neurons, transpose_b=True) if neurons else g
            dw = _pulled_back(q, r, dq, matmul(g, unsigned, transpose_b=True))
            return (dw, matmul(q, g)) if neurons else (dw,)

        return signs * unsigned, gradient

    return turned(w, *neurons)


@with_padded_rows
def _turned_by_columns(w: tf.Tensor, *neurons: tf.Tensor) -> tf.Tensor:
    """Returns ``Q D @ neurons`` of ``w = Q R``, or Q D itself without ``neurons``.

    D are the signs of R's diagonal, but for the last, which makes the determinant (-1)^(n-1).
    """

    @once_differentiable
    def turned(w: tf.Tensor, *neurons: tf.Tensor) -> tuple[tf.Tensor, Callable]:
        q, r, determinant = _factors(w)
        signs = _signs(r)[..., :-1, :]
        last = determinant()[..., tf.newaxis, tf.newaxis] * tf.reduce_prod(
            signs, axis=-2, keepdims=True
        )
        signs = tf.concat([signs, last * (-1) ** (w.shape[-1] - 1)], axis=-2)
        signed = [signs * f for f in neurons]

        def gradient(g: tf.Tensor) -> tuple[tf.Tensor, ...]:
            turned_g = matmul(q, g, transpose_a=True)
            dq = matmul(*signed, g, transpose_b=True) if neurons else signs * transpose(g)
            dqq = (
                matmul(*signed, turned_g, transpose_b=True)
                if neurons
                else signs * transpose(turned_g)
            )
            dw = transpose(_pulled_back(q, r, dq, dqq))
            return (dw, signs * turned_g) if neurons else (dw,)

        return matmul(q, *signed) if neurons else q * transpose(signs), gradient

    return turned(w, *neurons)


def _signs(r: tf.Tensor) -> tf.Tensor:
    """Returns the signs of the diagonal, ``[..., n, 1]``, of a zero 1."""
    diagonal = tf.linalg.diag_part(r)[..., tf.newaxis]
    return tf.where(diagonal < 0, -tf.ones_like(diagonal), tf.ones_like(diagonal))


def _pulled_back(q: tf.Tensor, r: tf.Tensor, dq: tf.Tensor, dqq: tf.Tensor) -> tf.Tensor:
    """Returns the transpose of the gradient of a = Q R (Roberts and Roberts, arXiv 2009.10071, for a square Q alone)::

        da^T = R^-1 (dQ^T - M Q^T),    M symmetric, with the lower triangle of dQ^T Q

    Args:
        q, r: the factors, each ``[..., n, n]``.
        dq, dqq: dQ^T and dQ^T Q. Where dQ^T is a product of thin matrices, both are.

    Where R is singular to working precision its diagonal is held at eps times its largest, which keeps this finite.
    """
    lower = np.tri(q.shape[-1], dtype=bool)
    numerator = dq - matmul(tf.where(lower, dqq, transpose(dqq)), q, transpose_b=True)
    pivots = tf.linalg.diag_part(r)
    least = tf.maximum(tf.abs(pivots), epsilon(q.dtype) * largest(pivots[..., tf.newaxis])[..., 0])
    r = tf.linalg.set_diag(r, tf.where(pivots < 0, -least, least))
    if is_compiled_by_xla():
        return matmul(_lower_inverse(transpose(r)), numerator, transpose_a=True)
    return tf.linalg.triangular_solve(r, numerator, lower=False)


def _factors(a: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, Callable[[], tf.Tensor]]:
    """Returns Q and R of ``a = Q R``, and what returns the sign of det Q, ``[...]``.

    By Householder's reflections, so that Q is orthogonal to rounding whatever ``a`` is. Block Gram-Schmidt with Cholesky
    factors, by matrix products, is no faster on two cores and keeps both busy; this leaves one to another layer.
    """
    # a narrow network in float32 follows the same run in float64 until a tie of a ReLU or a pool is decided otherwise, and
    # QR's rounding, some ten eps, is the largest that can; for small matrices float64 costs next to nothing
    wide = tf.cast(a, tf.float64) if a.shape[-1] <= 128 else a
    q, r, determinant = (_by_reflections if is_compiled_by_xla() else _by_library)(wide)
    return tf.cast(q, a.dtype), tf.cast(r, a.dtype), lambda: tf.cast(determinant(), a.dtype)


def _by_library(matrix: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, Callable[[], tf.Tensor]]:
    """Returns what `_factors` does, without XLA."""
    q, r = tf.linalg.qr(
        matrix, full_matrices=True
    )  # for a square matrix no other result, but Eigen's shorter way to Q
    return q, r, lambda: tf.linalg.slogdet(q).sign


def _by_reflections(
    matrix: tf.Tensor, block: int = 4
) -> tuple[tf.Tensor, tf.Tensor, Callable[[], tf.Tensor]]:
    """Returns what `_factors` does, for XLA.

    XLA's own QR makes over two trips of its loops a column; this makes one for ``block`` of them. Their reflections
    I - 2 v v^T are found one by one, and their product I - V T V^T, where T^-1 = I / 2 + the strict upper triangle of
    V^T V, is applied to all of the matrix at once (Schreiber and Van Loan, 1989).
    """
    n, batch, dtype = matrix.shape[-1], tf.shape(matrix)[:-2], matrix.dtype
    block = min(block, n)
    trips = -(-n // block)
    size = trips * block
    scale = largest(matrix)
    # padded to whole blocks with an identity
    a = tf.pad(matrix / scale, [[0, 0]] * (matrix.shape.rank - 2) + [[0, size - n]] * 2)
    a += tf.linalg.diag(tf.concat([tf.zeros([n], dtype), tf.ones([size - n], dtype)], 0))

    def trip(i: tf.Tensor, a: tf.Tensor, q: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        panel = tf.gather(a, i * block + tf.range(block), axis=-1)
        vectors = []
        for j in range(block):
            k = i * block + j
            unit = tf.one_hot([k], size, axis=0, dtype=dtype)
            x = panel[..., j : j + 1] * tf.cast(tf.range(size)[:, tf.newaxis] >= k, dtype)
            length = tf.norm(x, axis=[-2, -1], keepdims=True)
            head = tf.reduce_sum(x * unit, axis=[-2, -1], keepdims=True)
            v = tf.where(length > 0, x + tf.where(head < 0, -length, length) * unit, unit)
            v /= tf.norm(v, axis=[-2, -1], keepdims=True)
            panel -= 2 * v * tf.reduce_sum(v * panel, axis=-2, keepdims=True)
            vectors.append(v)
        v = tf.concat(vectors, axis=-1)
        lower = tf.linalg.band_part(
            matmul(v, v, transpose_a=True), -1, 0
        )  # |v| = 1: a diagonal of ones
        t = _lower_inverse(lower - tf.eye(block, dtype=dtype) / 2)  # T^T
        a -= matmul(v, matmul(t, matmul(v, a, transpose_a=True)))
        q -= matmul(matmul(matmul(q, v), t, transpose_b=True), v, transpose_b=True)
        return i + 1, a, q

    start = [0, a, tf.eye(size, batch_shape=batch, dtype=dtype)]
    _, a, q = tf.while_loop(lambda *_: True, trip, start, maximum_iterations=trips)
    # block by block n reflections have been made, and one for each column of the padding, of determinant -1
    determinant = tf.fill(batch, tf.constant((-1.0) ** n, dtype))
    return q[..., :n, :n], scale * a[..., :n, :n], lambda: determinant


def _lower_inverse(lower: tf.Tensor) -> tf.Tensor:
    """Returns the inverse of lower triangular matrices by matrix products, for XLA, whose solver is a loop.

    Where X is the inverse of the diagonal blocks of one size and M what lies between two neighbours, X - X M X is the
    inverse of blocks of twice the size.
    """
    inverse = tf.linalg.diag(1 / tf.linalg.diag_part(lower))
    size = 1
    while size < lower.shape[-1]:
        block = tf.range(lower.shape[-1]) // size
        between = (block[:, tf.newaxis] == block + 1) & (block % 2 == 0)
        inverse -= matmul(inverse, matmul(lower * tf.cast(between, lower.dtype), inverse))
        size *= 2
    return inverse


@for_square_matrices
def gram_schmidt(w: tf.Tensor) -> tf.Tensor:
    """Gram-Schmidt on the rows of ``w``, in order (OPT (GS)).

    Row i less its projection on the rows before it, normalized: Q^T of ``w^T = Q R`` with R's diagonal positive.
    Where row i depends on the rows before it, it becomes one of the unit vectors that are orthogonal to them.

    Args:
        w: ``[..., n, n]``; n must be known when it is traced.

    Returns:
        ``[..., n, n]`` of the same dtype, orthogonal; finite for every finite ``w``, and so is its gradient.
    """
    return _turned_by_rows(w)


gram_schmidt.product = for_square_matrices(_turned_by_rows)


@for_square_matrices
def householder(w: tf.Tensor) -> tf.Tensor:
    """Q of Householder's QR factorization by n - 1 reflections, each sending its column x to +|x| e_1 (OPT (HR)).

    That is Gram-Schmidt on the columns of ``w``, except that the last column's sign makes det Q = (-1)^(n-1). The
    reflections themselves divide by zero where a column is a positive multiple of e_1 already, as at w = I; Q does
    not, and this is its limit there. A singular ``w`` is met as in :func:`gram_schmidt`.

    Args:
        w: ``[..., n, n]``; n must be known when it is traced.

    Returns:
        ``[..., n, n]`` of the same dtype, orthogonal; finite for every finite ``w``, and so is its gradient.
    """
    return _turned_by_columns(w)


householder.product = for_square_matrices(_turned_by_columns)
