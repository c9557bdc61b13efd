"""Gram-Schmidt's and Householder's maps, which share one QR factorization."""

from collections.abc import Callable

import numpy as np
import tensorflow as tf

from ..private import is_compiled_by_xla
from .elimination import orthogonal_rows
from .matrices import (
    disturbed,
    epsilon,
    for_square_matrices,
    matmul,
    once_differentiable,
    scale_invariant,
    transpose,
    with_padded_rows,
)


@scale_invariant(-1)
@with_padded_rows
def _rotated_by_rows(w: tf.Tensor, *neurons: tf.Tensor) -> tf.Tensor:
    """Returns ``D Q^T @ neurons`` of ``w^T = Q R``, or D Q^T itself without ``neurons``.

    D holds the signs of R's diagonal.
    """

    @once_differentiable
    def rotated(w: tf.Tensor, *neurons: tf.Tensor) -> tuple[tf.Tensor, Callable]:
        q, signs, solve, _ = _factors(transpose(w))
        unsigned = matmul(q, *neurons, transpose_a=True) if neurons else transpose(q)

        def gradient(g: tf.Tensor) -> tuple[tf.Tensor, ...]:
            g *= signs
            dq = matmul(g, *neurons, transpose_b=True) if neurons else g
            dw = _pulled_back(q, solve, dq, matmul(g, unsigned, transpose_b=True))
            return (dw, matmul(q, g)) if neurons else (dw,)

        return signs * unsigned, gradient

    return rotated(w, *neurons)


@scale_invariant(-2)
@with_padded_rows
def _rotated_by_columns(w: tf.Tensor, *neurons: tf.Tensor) -> tf.Tensor:
    """Returns ``Q D @ neurons`` of ``w = Q R``, or Q D itself without ``neurons``.

    D holds the signs of R's diagonal, except for the last: that one makes the determinant
    (-1)^(n-1).
    """

    @once_differentiable
    def rotated(w: tf.Tensor, *neurons: tf.Tensor) -> tuple[tf.Tensor, Callable]:
        q, signs, solve, determinant = _factors(w, determinant=True)
        signs = signs[..., :-1, :]
        others = tf.reduce_prod(signs, axis=-2, keepdims=True)
        last = determinant[..., tf.newaxis, tf.newaxis] * others * (-1) ** (w.shape[-1] - 1)
        signs = tf.concat([signs, last], axis=-2)
        signed = [signs * f for f in neurons]

        def gradient(g: tf.Tensor) -> tuple[tf.Tensor, ...]:
            rotated_g = matmul(q, g, transpose_a=True)
            dq, dqq = (
                matmul(signed[0], x, transpose_b=True) if neurons else signs * transpose(x)
                for x in (g, rotated_g)
            )
            dw = transpose(_pulled_back(q, solve, dq, dqq))
            return (dw, signs * rotated_g) if neurons else (dw,)

        return matmul(q, *signed) if neurons else q * transpose(signs), gradient

    return rotated(w, *neurons)


def _pulled_back(q: tf.Tensor, solve: Callable, dq: tf.Tensor, dqq: tf.Tensor) -> tf.Tensor:
    """Returns the transpose of the gradient of a = Q R, ``[..., n, n]``:

        da^T = R^-1 (dQ^T - M Q^T),    M symmetric, with the lower triangle of dQ^T Q

    (Roberts and Roberts, arXiv 2009.10071; here Q is square and only Q has a gradient.) ``solve``
    takes y ``[..., n, n]`` to R^-1 y; ``dq`` and ``dqq`` are dQ^T and dQ^T Q.
    """
    lower = np.tri(q.shape[-1], dtype=bool)
    return solve(dq - matmul(tf.where(lower, dqq, transpose(dqq)), q, transpose_b=True))


def _factors(
    a: tf.Tensor, determinant: bool = False
) -> tuple[tf.Tensor, tf.Tensor, Callable[[tf.Tensor], tf.Tensor], tf.Tensor]:
    """Returns the factors of ``a = Q R``, where Q is orthogonal up to rounding for every ``a``.

    They are Q; the signs of R's diagonal, ``[..., n, 1]``; a function that takes y ``[..., n, n]``
    to R^-1 y, without NaN also where R is singular; and det Q, ``[...]``, if asked for.
    """
    # QR's error, some ten eps, is the largest of a narrow network's; for small matrices float64
    # costs almost nothing
    wide = tf.cast(a, tf.float64) if a.shape[-1] <= 128 else a
    find = _by_products if is_compiled_by_xla() else _by_library
    q, signs, solve, sign = find(wide, determinant)

    def narrow_solve(y: tf.Tensor) -> tf.Tensor:
        return tf.cast(solve(tf.cast(y, wide.dtype)), a.dtype)

    return tf.cast(q, a.dtype), tf.cast(signs, a.dtype), narrow_solve, tf.cast(sign, a.dtype)


def _by_library(
    a: tf.Tensor, determinant: bool
) -> tuple[tf.Tensor, tf.Tensor, Callable[[tf.Tensor], tf.Tensor], tf.Tensor]:
    """Does the same as `_factors`, without XLA."""
    n = a.shape[-1]
    is_counted = determinant and n > 128
    q, r = _by_counted_reflections(a) if is_counted else _by_reflections(a)

    def sign_of(q: tf.Tensor) -> tf.Tensor:
        return tf.linalg.slogdet(q).sign if determinant else tf.ones_like(q[..., 0, 0])

    def usual() -> tuple[tf.Tensor, ...]:
        return q, r, (-1.0) ** (n - 1) * tf.ones_like(q[..., 0, 0]) if is_counted else sign_of(q)

    def singular() -> tuple[tf.Tensor, ...]:
        q, r = _by_reflections(disturbed(a))
        # smaller values are rounding errors
        pivots = tf.linalg.diag_part(r)
        safe = tf.sign(pivots) * tf.maximum(tf.abs(pivots), epsilon(a.dtype))
        factors = q, tf.linalg.set_diag(r, safe), sign_of(q)
        return tuple(tf.cast(factor, a.dtype) for factor in factors)

    least = tf.reduce_min(tf.abs(tf.linalg.diag_part(r)))
    q, r, sign = tf.cond(least > n * epsilon(a.dtype), usual, singular)
    signs = tf.sign(tf.linalg.diag_part(r))[..., tf.newaxis]

    def solve(y: tf.Tensor) -> tf.Tensor:
        x = tf.linalg.triangular_solve(r, y, lower=False)
        has_nan = tf.math.is_nan(tf.reduce_sum(x))
        return tf.cond(has_nan, lambda: _without_overflow(x, y), lambda: x)

    return q, signs, solve, sign


def _without_overflow(x: tf.Tensor, y: tf.Tensor) -> tf.Tensor:
    """Returns ``x = R^-1 y``, which can grow like 2^n, with 0 for NaN unless it is from ``y``."""
    return tf.where(tf.math.is_nan(x), tf.reduce_sum(0 * y), x)


def _by_reflections(a: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    # full_matrices changes no result for a square matrix, but Eigen then finds Q in a shorter way
    return tf.linalg.qr(a, full_matrices=True)


def _by_counted_reflections(a: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Returns Q and R of ``a = Q R``, where det Q is (-1)^(n-1) unless ``a`` is singular.

    Eigen and LAPACK reflect a column unless all of it below the diagonal is zero, so det Q can be
    had by counting. In `_mirrored` only a singular ``a`` has such a column, but for one entry that
    rounds to zero. So QR ends before the last two columns, and a rotation does the rest.
    """
    mirrored = _mirrored(a)
    q, r = _by_reflections(mirrored[..., :-2])
    last = matmul(q, mirrored[..., -2:], transpose_a=True)
    x, y = last[..., -2:-1, :1], last[..., -1:, :1]
    length = tf.sqrt(x**2 + y**2)
    cos, sin = tf.where(length > 0, x / length, 1), tf.where(length > 0, y / length, 0)
    turn = tf.concat([tf.concat([cos, sin], -1), tf.concat([-sin, cos], -1)], axis=-2)
    q = tf.concat([q[..., :-2], matmul(q[..., -2:], turn, transpose_b=True)], axis=-1)
    last = tf.concat([last[..., :-2, :], matmul(turn, last[..., -2:, :])], axis=-2)
    return _mirrored(q), tf.concat([r, last], axis=-1)


def _mirrored(a: tf.Tensor) -> tf.Tensor:
    """Returns each matrix with its columns reflected: no structure is left, such as zeros below.

    The entries of the hyperplane's normal grow, or else a first reflection could undo this one.
    """
    normal = np.sort(np.random.default_rng(0).uniform(1, 2, (a.shape[-1], 1)), axis=0)
    normal = tf.constant(normal / np.linalg.norm(normal), a.dtype)
    return a - 2 * normal * tf.reduce_sum(normal * a, axis=-2, keepdims=True)


def _by_products(
    a: tf.Tensor, determinant: bool
) -> tuple[tf.Tensor, tf.Tensor, Callable[[tf.Tensor], tf.Tensor], tf.Tensor]:
    """Does the same as `_factors`, for XLA; R's diagonal is positive."""
    rows, inverse, sign = orthogonal_rows(transpose(a), determinant)
    signs = tf.ones_like(rows[..., :1])

    def solve(y: tf.Tensor) -> tf.Tensor:
        return _without_overflow(matmul(inverse, y, transpose_a=True), y)

    return transpose(rows), signs, solve, sign


@for_square_matrices
def gram_schmidt(w: tf.Tensor) -> tf.Tensor:
    """Gram-Schmidt on the rows of ``w``, in order (OPT (GS); Liu et al., CVPR 2021).

    From row i, subtract its projection on the rows before it, and normalize. This is Q^T of
    ``w^T = Q R``, with R's diagonal positive. If row i depends on the rows before it, it becomes
    some unit vector that is orthogonal to them.

    Args:
        w: ``[..., n, n]``, of a floating-point dtype; n must be known when the map is traced.

    Returns:
        ``[..., n, n]`` of the same dtype, orthogonal. The map and its gradient are finite for every
        finite ``w``. The gradient of a row of zeros is 0.

    Raises:
        ValueError: if ``w`` is not a batch of square matrices of a floating-point dtype.
    """
    return _rotated_by_rows(w)


gram_schmidt.product = for_square_matrices(_rotated_by_rows)  # type: ignore[attr-defined]


@for_square_matrices
def householder(w: tf.Tensor) -> tf.Tensor:
    """Q of Householder's QR factorization by n - 1 reflections (OPT (HR); Liu et al., CVPR 2021).

    Each reflection sends its column x to +|x| e_1. The result is Gram-Schmidt on the columns of
    ``w``, except for the last column: its sign makes det Q = (-1)^(n-1). Where the formula of a
    reflection is 0 / 0, as at w = I, Q is the limit. A singular ``w`` is as in `gram_schmidt`.

    Args:
        w: ``[..., n, n]``, of a floating-point dtype; n must be known when the map is traced.

    Returns:
        ``[..., n, n]`` of the same dtype, orthogonal. The map and its gradient are finite for every
        finite ``w``. The gradient of a column of zeros is 0.

    Raises:
        ValueError: if ``w`` is not a batch of square matrices of a floating-point dtype.
    """
    return _rotated_by_columns(w)


householder.product = for_square_matrices(_rotated_by_columns)  # type: ignore[attr-defined]
