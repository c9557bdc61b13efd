"""Cayley's map, by an LU factorization or, under XLA, by matrix products."""

from collections.abc import Callable

import tensorflow as tf

from ..private import is_compiled_by_xla
from .inverse import FEW_ROWS, eliminated, inverse_of_positive, largest_row_sum
from .matrices import (
    epsilon,
    for_square_matrices,
    matmul,
    once_differentiable,
    transpose,
    vanishes_squared,
    with_padded_rows,
)
from .polar import lowdin


@for_square_matrices
def cayley(w: tf.Tensor) -> tf.Tensor:
    """Cayley's transform ``(I + S)(I - S)^-1`` of ``S = triu(w) - triu(w)^T`` (OPT (CP)).

    I - S is invertible for every ``w``. Only the entries of ``w`` above the diagonal are used
    (Liu et al., CVPR 2021).

    Args:
        w: ``[..., n, n]``, of a floating-point dtype; n must be known when the map is traced.

    Returns:
        ``[..., n, n]`` of the same dtype, orthogonal. The map and its gradient are finite for every
        finite ``w``.

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
    return (_cayley_by_products if is_compiled_by_xla() else _cayley_by_lu)(w, neurons)


cayley.product = for_square_matrices(_cayley)  # type: ignore[attr-defined]


def _skew(w: tf.Tensor) -> tf.Tensor:
    upper = tf.linalg.band_part(w, 0, -1)
    return upper - transpose(upper)


def _skew_gradient(z: tf.Tensor, y: tf.Tensor) -> tf.Tensor:
    """Returns w's gradient, the upper triangle of Z Y^T - Y Z^T, by one product."""
    ds = matmul(tf.concat([z, -y], axis=-1), tf.concat([y, z], axis=-1), transpose_b=True)
    return tf.linalg.band_part(ds, 0, -1)


def _unit_lower(lu: tf.Tensor) -> tf.Tensor:
    return tf.linalg.set_diag(lu, tf.ones_like(lu[..., 0]))


@once_differentiable
def _cayley_by_lu(w: tf.Tensor, f: tf.Tensor) -> tuple[tf.Tensor, Callable]:
    """Returns ``2 (I - S)^-1 F - F``; forward and backward pass share one factorization.

    Where LU's error of eps |S| could be more than a few n eps, it uses `_wide_inverse`.
    """
    s = _skew(w)
    is_near = _is_near(s, w.dtype)

    def near() -> tuple[tf.Tensor, ...]:
        lu, permutation = tf.linalg.lu(tf.eye(w.shape[-1], dtype=w.dtype) - s)
        forth = tf.gather(f, permutation, axis=-2, batch_dims=w.shape.rank - 2)
        half = tf.linalg.triangular_solve(_unit_lower(lu), forth)
        y = tf.linalg.triangular_solve(lu, half, lower=False)
        return 2 * y - f, y, lu, permutation

    def far() -> tuple[tf.Tensor, ...]:
        inverse, wide_f = _wide_inverse(s), tf.cast(f, tf.float64)
        y = matmul(inverse, wide_f)
        narrow = (tf.cast(t, w.dtype) for t in (2 * y - wide_f, y, inverse))
        return *narrow, tf.zeros_like(w[..., 0], tf.int32)

    k, y, factors, permutation = tf.cond(is_near, near, far)

    def gradient(g: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        def near() -> tf.Tensor:
            z = tf.linalg.triangular_solve(factors, g, lower=False, adjoint=True)
            z = tf.linalg.triangular_solve(_unit_lower(factors), z, adjoint=True)
            return tf.gather(z, tf.argsort(permutation), axis=-2, batch_dims=w.shape.rank - 2)

        z = tf.cond(is_near, near, lambda: matmul(factors, g, transpose_a=True))
        return _skew_gradient(2 * z, y), 2 * z - g

    return k, gradient


def _is_near(s: tf.Tensor, dtype: tf.DType, growth: int = 1) -> tf.Tensor:
    """Returns whether an error of eps |S|^growth in ``dtype`` is at most a few n eps of ``s``."""
    limit = 2 * s.shape[-1] * epsilon(s.dtype) / epsilon(dtype)
    return tf.reduce_all(tf.norm(s, axis=[-2, -1]) < limit ** (1 / growth))


def _wide_inverse(s: tf.Tensor) -> tf.Tensor:
    """Returns (I - S)^-1 in float64 for every S."""
    wide = tf.cast(s, tf.float64)
    identity = tf.eye(s.shape[-1], dtype=tf.float64)
    return tf.cond(
        _is_near(s, tf.float64),
        lambda: tf.linalg.inv(identity - wide),
        lambda: _inverse_by_polar(wide),
    )


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
        # but pivots, and the rounding errors in them, grow like |S|^2
        quick, is_accurate = tf.cast(m[..., n:] / pivots, s.dtype), _is_near(s, tf.float64, 2)
    else:
        quick, is_accurate = _inverse_by_halves(s)
        is_accurate &= _is_near(s, s.dtype)
    return tf.cond(tf.reduce_all(is_accurate), lambda: quick, lambda: _inverse_by_polar(s))


def _inverse_by_halves(s: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Returns the inverse of A = I - S, and whether it is accurate, ``[...]``.

    A is split into four blocks. The first one, A11, and its Schur complement
    A22 - A21 A11^-1 A12 have the symmetric parts I and more than I, so both can be inverted. At
    last two Newton steps X <- X (2 - A X) are taken, each of which squares the error I - A X.
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
    u = lowdin(identity + s)
    return (identity + matmul(u, u)) / 2
