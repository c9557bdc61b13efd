"""Cayley's map, by an LU factorization or, under XLA, by the polar factor."""

import math
from collections.abc import Callable

import tensorflow as tf

from ..private import is_compiled_by_xla
from .matrices import for_square_matrices, matmul, once_differentiable, transpose, with_padded_rows
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
    """Returns Q F by the polar factor U of I + S: for XLA, which has no LU factorization.

    I + S is normal, and its modulus is (I - S^2)^(1/2). So U^2 = (I + S)^2 (I - S^2)^-1 = Q. The
    gradient uses (I - S)^-1 = (I + Q) / 2.
    """
    u = polar_by_products(tf.eye(w.shape[-1], dtype=w.dtype) + _skew(w))
    k = matmul(u, matmul(u, f))

    def gradient(g: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        back = matmul(u, matmul(u, g, transpose_a=True), transpose_a=True)
        return _skew_gradient((g + back) / 2, f + k), back

    return k, gradient
