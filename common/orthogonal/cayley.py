"""Cayley's map, by an LU factorization or, under XLA, by matrix products."""

import math
from collections.abc import Callable

import tensorflow as tf

from ..private import is_compiled_by_xla
from .inverse import FEW_ROWS, eliminated, inverse_of_positive, largest_row_sum
from .matrices import (
    for_square_matrices,
    matmul,
    once_differentiable,
    transpose,
    vanishes_squared,
    with_padded_rows,
)
from .polar import polar_by_products


@for_square_matrices
def cayley(w: tf.Tensor) -> tf.Tensor:
    """Cayley's transform ``(I + S)(I - S)^-1`` of ``S = triu(w) - triu(w)^T`` (OPT (CP)).

    I - S is invertible for every ``w``. The diagonal of ``w`` and what is below it are not used.

    Args:
        w: ``[..., n, n]``, of a floating-point dtype; n must be known when the map is traced.

    Returns:
        ``[..., n, n]`` of the same dtype, orthogonal, with no eigenvalue -1. The map and its
        gradient are finite for every finite ``w`` whose squares do not overflow.

    Raises:
        ValueError: if ``w`` is not a batch of square matrices of a floating-point dtype.
    """
    return _cayley_formed(w)


@once_differentiable
def _cayley_formed(w: tf.Tensor) -> tuple[tf.Tensor, Callable]:
    """Returns Q; with (I - S)^-1 = (I + Q) / 2, dS = (I + Q)^T G (I + Q)^T / 2."""
    identity = tf.eye(w.shape[-1], batch_shape=tf.shape(w)[:-2], dtype=w.dtype)
    q = _cayley(w, identity)
    # LU leaves an error of eps |S|; one Newton-Schulz step squares that error
    q += matmul(q, identity - matmul(q, q, transpose_a=True)) / 2

    def gradient(g: tf.Tensor) -> tf.Tensor:
        half = g + matmul(g, q, transpose_b=True)
        ds = half + matmul(q, half, transpose_a=True)
        return tf.linalg.band_part(ds - transpose(ds), 0, -1) / 2

    return q, gradient


@with_padded_rows
def _cayley(w: tf.Tensor, neurons: tf.Tensor) -> tf.Tensor:
    if is_compiled_by_xla():
        return _cayley_by_products(w, neurons)
    if w.dtype == tf.float64:
        return _cayley_by_lu(w, neurons)
    return _cayley_in_float32(w, neurons)


cayley.product = for_square_matrices(_cayley)  # type: ignore[attr-defined]


def _skew(w: tf.Tensor) -> tf.Tensor:
    upper = tf.linalg.band_part(w, 0, -1)
    return upper - transpose(upper)


def _skew_gradient(z: tf.Tensor, y: tf.Tensor) -> tf.Tensor:
    """Returns the gradient of w from ``Z Y^T``, the gradient of S.

    It is the upper triangle of Z Y^T - Y Z^T, which takes one product.
    """
    ds = matmul(tf.concat([z, -y], axis=-1), tf.concat([y, z], axis=-1), transpose_b=True)
    return tf.linalg.band_part(ds, 0, -1)


def _solve(w: tf.Tensor, f: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Returns the LU factors of I - S, their permutation, and Y = (I - S)^-1 F."""
    lu, permutation = tf.linalg.lu(tf.eye(w.shape[-1], dtype=w.dtype) - _skew(w))
    forth = tf.gather(f, permutation, axis=-2, batch_dims=w.shape.rank - 2)
    half = tf.linalg.triangular_solve(_unit_lower(lu), forth)
    return lu, permutation, tf.linalg.triangular_solve(lu, half, lower=False)


def _pull_back(
    lu: tf.Tensor, permutation: tf.Tensor, y: tf.Tensor, g: tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor]:
    """Returns the gradients of w and F, from that of the product: dS = 2 Z Y^T, dF = 2 Z - G.

    Z = (I - S)^-T G takes the factors of the forward pass.
    """
    z = tf.linalg.triangular_solve(lu, g, lower=False, adjoint=True)
    z = tf.linalg.triangular_solve(_unit_lower(lu), z, adjoint=True)
    z = tf.gather(z, tf.argsort(permutation), axis=-2, batch_dims=lu.shape.rank - 2)
    return _skew_gradient(2 * z, y), 2 * z - g


def _unit_lower(lu: tf.Tensor) -> tf.Tensor:
    return tf.linalg.set_diag(lu, tf.ones_like(lu[..., 0]))


@once_differentiable
def _cayley_by_lu(w: tf.Tensor, f: tf.Tensor) -> tuple[tf.Tensor, Callable]:
    """Returns ``2 (I - S)^-1 F - F``; forward and backward pass share one factorization."""
    lu, permutation, y = _solve(w, f)
    return 2 * y - f, lambda g: _pull_back(lu, permutation, y, g)


@once_differentiable
def _cayley_in_float32(w: tf.Tensor, f: tf.Tensor) -> tuple[tf.Tensor, Callable]:
    """Returns what `_cayley_by_lu` does of float32, computed in float64 where it has to be.

    LU leaves an error of eps |S|. Where that could be more than a few n eps, it is done in float64.
    What the backward pass needs is then kept as the sum of two float32 tensors: both branches of a
    `tf.cond` must return the same dtypes.
    """
    bound = math.sqrt(2) * tf.norm(tf.linalg.band_part(w, 0, -1), axis=[-2, -1])
    is_near = tf.reduce_all(bound < 2 * w.shape[-1])

    def narrow() -> tuple[tf.Tensor, ...]:
        lu, permutation, y = _solve(w, f)
        rest = tf.zeros([0])
        return 2 * y - f, permutation, lu, rest, y, rest

    def wide() -> tuple[tf.Tensor, ...]:
        wide_f = tf.cast(f, tf.float64)
        lu, permutation, y = _solve(tf.cast(w, tf.float64), wide_f)
        return tf.cast(2 * y - wide_f, tf.float32), permutation, *_split(lu), *_split(y)

    k, permutation, lu, lu_rest, y, y_rest = tf.cond(is_near, narrow, wide)

    def gradient(g: tf.Tensor) -> tuple[tf.Tensor, ...]:
        def pull_back_wide() -> tuple[tf.Tensor, ...]:
            whole = _joined(lu, lu_rest), permutation, _joined(y, y_rest), tf.cast(g, tf.float64)
            return tuple(tf.cast(d, tf.float32) for d in _pull_back(*whole))

        return tf.cond(is_near, lambda: _pull_back(lu, permutation, y, g), pull_back_wide)

    return k, gradient


def _split(x: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Returns float32 tensors whose sum is ``x``, float64, to 48 bits."""
    near = tf.cast(x, tf.float32)
    return near, tf.cast(x - tf.cast(near, tf.float64), tf.float32)


def _joined(near: tf.Tensor, rest: tf.Tensor) -> tf.Tensor:
    """Returns the float64 tensor that `_split` took."""
    rest = tf.ensure_shape(tf.reshape(rest, tf.shape(near)), near.shape)
    return tf.cast(near, tf.float64) + tf.cast(rest, tf.float64)


@once_differentiable
def _cayley_by_products(w: tf.Tensor, f: tf.Tensor) -> tuple[tf.Tensor, Callable]:
    """Returns ``2 (I - S)^-1 F - F`` for XLA, which has no LU factorization."""
    inverse = _inverse(_skew(w))
    y = matmul(inverse, f)

    def gradient(g: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        z = matmul(inverse, g, transpose_a=True)
        return _skew_gradient(2 * z, y), 2 * z - g

    return 2 * y - f, gradient


def _inverse(s: tf.Tensor) -> tf.Tensor:
    """Returns (I - S)^-1 by matrix products."""
    n = s.shape[-1]
    if n <= FEW_ROWS:
        # no pivot is below 1, because the symmetric part of I - S is I
        wide = tf.eye(n, dtype=tf.float64) - tf.cast(s, tf.float64)
        identity = tf.eye(n, batch_shape=tf.shape(s)[:-2], dtype=tf.float64)
        m, pivots = eliminated(tf.concat([wide, identity], axis=-1), above=True)
        return tf.cast(m[..., n:] / pivots, s.dtype)
    quick, is_accurate = _inverse_by_halves(s)
    return tf.cond(tf.reduce_all(is_accurate), lambda: quick, lambda: _inverse_by_polar(s))


def _inverse_by_halves(s: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Returns the inverse of A = I - S, and whether it is accurate, ``[...]``.

    A is split into four blocks. The first one, A11, and its Schur complement
    A22 - A21 A11^-1 A12 have the symmetric parts I and more than I, so both can be inverted. For a
    random S the second is nearly a multiple of I. At last two Newton steps X <- X (2 - A X) are
    taken, each of which squares the error I - A X.
    """
    n, more = s.shape[-1], s.shape[-1] % 2
    half = (n + more) // 2
    s = tf.pad(s, [[0, 0]] * (s.shape.rank - 2) + [[0, more]] * 2)
    identity = tf.eye(2 * half, dtype=s.dtype)
    a = identity - s
    a12, a21 = a[..., :half, half:], a[..., half:, :half]
    first = _inverse_of_half(a[..., :half, :half])
    right, left = matmul(first, a12), matmul(a21, first)
    second = _inverse_of_half(a[..., half:, half:] - matmul(a21, right))
    corner = matmul(right, second)
    top = tf.concat([first + matmul(corner, left), -corner], axis=-1)
    bottom = tf.concat([-matmul(second, left), second], axis=-1)
    x = tf.concat([top, bottom], axis=-2)
    for _ in range(2):
        error = identity - matmul(a, x)
        x += matmul(x, error)
    return x[..., :n, :n], vanishes_squared(error, n)


def _inverse_of_half(a: tf.Tensor) -> tf.Tensor:
    """Returns A^T (A A^T)^-1, accurate if the condition of ``a [..., n, n]`` is below some 100."""
    gram = matmul(a, a, transpose_b=True)
    return matmul(a, inverse_of_positive(gram, largest_row_sum(gram), 1e-5), transpose_a=True)


def _inverse_by_polar(s: tf.Tensor) -> tf.Tensor:
    """Returns (I - S)^-1 = (I + Q) / 2 for every S, by the polar factor U of I + S.

    I + S is normal, and its modulus is (I - S^2)^(1/2). So U^2 = (I + S)^2 (I - S^2)^-1 = Q.
    """
    identity = tf.eye(s.shape[-1], dtype=s.dtype)
    u = polar_by_products(identity + s)
    return (identity + matmul(u, u)) / 2
