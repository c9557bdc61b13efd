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

    def in_float64() -> tf.Tensor:
        return tf.cast(_cayley_by_lu(tf.cast(w, tf.float64), tf.cast(neurons, tf.float64)), w.dtype)

    # LU leaves an error of eps |S|; if that could be more than a few n eps, use float64
    bound = math.sqrt(2) * tf.norm(tf.linalg.band_part(w, 0, -1), axis=[-2, -1])
    return tf.cond(
        tf.reduce_all(bound < 2 * w.shape[-1]), lambda: _cayley_by_lu(w, neurons), in_float64
    )


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


@once_differentiable
def _cayley_by_lu(w: tf.Tensor, f: tf.Tensor) -> tuple[tf.Tensor, Callable]:
    """Returns ``2 (I - S)^-1 F - F``.

    With Y = (I - S)^-1 F and Z = (I - S)^-T G, the gradients are dS = 2 Z Y^T and dF = 2 Z - G. The
    forward and the backward pass share one factorization.
    """
    lu, permutation = tf.linalg.lu(tf.eye(w.shape[-1], dtype=w.dtype) - _skew(w))
    lower = tf.linalg.set_diag(lu, tf.ones_like(lu[..., 0]))
    rank = w.shape.rank - 2
    forth = tf.gather(f, permutation, axis=-2, batch_dims=rank)
    y = tf.linalg.triangular_solve(lu, tf.linalg.triangular_solve(lower, forth), lower=False)

    def gradient(g: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        z = tf.linalg.triangular_solve(lu, g, lower=False, adjoint=True)
        z = tf.linalg.triangular_solve(lower, z, adjoint=True)
        z = tf.gather(z, tf.argsort(permutation), axis=-2, batch_dims=rank)
        return _skew_gradient(2 * z, y), 2 * z - g

    return 2 * y - f, gradient


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
