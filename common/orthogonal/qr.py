"""Gram-Schmidt's and Householder's maps, which share one QR factorization."""

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
    """Returns ``D Q^T @ neurons`` of ``w^T = Q R``, or D Q^T itself without ``neurons``.

    D holds the signs of R's diagonal.
    """

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

    D holds the signs of R's diagonal, except for the last: that one makes the determinant
    (-1)^(n-1).
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
            dq = matmul(signed[0], g, transpose_b=True) if neurons else signs * transpose(g)
            dqq = (
                matmul(signed[0], turned_g, transpose_b=True)
                if neurons
                else signs * transpose(turned_g)
            )
            dw = transpose(_pulled_back(q, r, dq, dqq))
            return (dw, signs * turned_g) if neurons else (dw,)

        return matmul(q, *signed) if neurons else q * transpose(signs), gradient

    return turned(w, *neurons)


def _signs(r: tf.Tensor) -> tf.Tensor:
    """Returns the signs of the diagonal, ``[..., n, 1]``; the sign of zero is 1 here."""
    diagonal = tf.linalg.diag_part(r)[..., tf.newaxis]
    return tf.where(diagonal < 0, -tf.ones_like(diagonal), tf.ones_like(diagonal))


def _pulled_back(q: tf.Tensor, r: tf.Tensor, dq: tf.Tensor, dqq: tf.Tensor) -> tf.Tensor:
    """Returns the transpose of the gradient of a = Q R, ``[..., n, n]``::

        da^T = R^-1 (dQ^T - M Q^T),    M symmetric, with the lower triangle of dQ^T Q

    (Roberts and Roberts, arXiv 2009.10071; here Q is square and only Q has a gradient.)

    Args:
        q, r: the factors, each ``[..., n, n]``.
        dq, dqq: dQ^T and dQ^T Q, each ``[..., n, n]``.

    The diagonal of R is never taken below eps times its largest entry. This keeps the gradient
    finite if R is singular to working precision.
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
    """Returns Q and R of ``a = Q R``, and a function that returns the sign of det Q, ``[...]``.

    It uses Householder's reflections, so Q is orthogonal up to rounding for every ``a``. Block
    Gram-Schmidt with Cholesky factors, by matrix products, is no faster on two cores and needs both
    of them. This needs one and leaves the other to another layer.
    """
    # A narrow network in float32 stays close to the same run in float64 until a rounding error
    # changes which side of a ReLU or which entry of a pool wins. QR's error, some ten eps, is the
    # largest of them. For small matrices float64 costs almost nothing.
    wide = tf.cast(a, tf.float64) if a.shape[-1] <= 128 else a
    q, r, determinant = (_by_reflections if is_compiled_by_xla() else _by_library)(wide)
    return tf.cast(q, a.dtype), tf.cast(r, a.dtype), lambda: tf.cast(determinant(), a.dtype)


def _by_library(matrix: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, Callable[[], tf.Tensor]]:
    """Returns what `_factors` does, without XLA."""
    # full_matrices changes no result for a square matrix, but Eigen then finds Q in a shorter way
    q, r = tf.linalg.qr(matrix, full_matrices=True)
    return q, r, lambda: tf.linalg.slogdet(q).sign


def _by_reflections(
    matrix: tf.Tensor, block: int = 4
) -> tuple[tf.Tensor, tf.Tensor, Callable[[], tf.Tensor]]:
    """Returns what `_factors` does, for XLA.

    XLA's own QR needs more than two loop iterations per column; this needs one per ``block`` of
    columns. Their reflections I - 2 v v^T are found one by one. Their product I - V T V^T, where
    T^-1 = I / 2 + the strict upper triangle of V^T V, is applied to the whole matrix at once
    (Schreiber and Van Loan, 1989).
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
        # |v| = 1, so the diagonal holds ones
        lower = tf.linalg.band_part(matmul(v, v, transpose_a=True), -1, 0)
        t = _lower_inverse(lower - tf.eye(block, dtype=dtype) / 2)  # T^T
        a -= matmul(v, matmul(t, matmul(v, a, transpose_a=True)))
        q -= matmul(matmul(matmul(q, v), t, transpose_b=True), v, transpose_b=True)
        return i + 1, a, q

    start = [0, a, tf.eye(size, batch_shape=batch, dtype=dtype)]
    _, a, q = tf.while_loop(lambda *_: True, trip, start, maximum_iterations=trips)
    # Each of the n columns has had one reflection, of determinant -1. So has each padding column,
    # whose reflection changes the padding alone.
    determinant = tf.fill(batch, tf.constant((-1.0) ** n, dtype))
    return q[..., :n, :n], scale * a[..., :n, :n], lambda: determinant


def _lower_inverse(lower: tf.Tensor) -> tf.Tensor:
    """Returns the inverse of lower triangular matrices by matrix products.

    For XLA, whose triangular solver is a loop. If X is the inverse of diagonal blocks of one size,
    and M what lies between two neighbours, then X - X M X is the inverse of blocks of twice the
    size.
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

    From row i, subtract its projection on the rows before it, and normalize. This is Q^T of
    ``w^T = Q R``, with R's diagonal positive. If row i depends on the rows before it, it becomes
    some unit vector that is orthogonal to them.

    Args:
        w: ``[..., n, n]``, of a floating-point dtype; n must be known when the map is traced.

    Returns:
        ``[..., n, n]`` of the same dtype, orthogonal. The map and its gradient are finite for every
        finite ``w``.

    Raises:
        ValueError: if ``w`` is not a batch of square matrices of a floating-point dtype.
    """
    return _turned_by_rows(w)


gram_schmidt.product = for_square_matrices(_turned_by_rows)  # type: ignore[attr-defined]


@for_square_matrices
def householder(w: tf.Tensor) -> tf.Tensor:
    """Q of Householder's QR factorization by n - 1 reflections (OPT (HR)).

    Each reflection sends its column x to +|x| e_1. The result is Gram-Schmidt on the columns of
    ``w``, except for the last column: its sign makes det Q = (-1)^(n-1). The formula of a
    reflection divides by zero if the column is already a positive multiple of e_1, as at w = I. Q
    has a limit there, and this returns it. A singular ``w`` is treated as in :func:`gram_schmidt`.

    Args:
        w: ``[..., n, n]``, of a floating-point dtype; n must be known when the map is traced.

    Returns:
        ``[..., n, n]`` of the same dtype, orthogonal. The map and its gradient are finite for every
        finite ``w``.

    Raises:
        ValueError: if ``w`` is not a batch of square matrices of a floating-point dtype.
    """
    return _turned_by_columns(w)


householder.product = for_square_matrices(_turned_by_columns)  # type: ignore[attr-defined]
