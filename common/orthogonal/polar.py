"""Loewdin's map: the polar factor, by an SVD or, under XLA, by matrix products."""

import math
from collections.abc import Callable

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


@for_square_matrices
def lowdin(w: tf.Tensor) -> tf.Tensor:
    """Loewdin's symmetric orthogonalization: the orthogonal matrix nearest to ``w`` (OPT (LS)).

    It is U V^T of the SVD ``w = U S V^T``. Its gradient solves a Lyapunov equation, with
    P = V S V^T and w = Q P::

        dw = Q X,    P X + X P = Q^T dQ - dQ^T Q

    This is stable for equal singular values; the derivative of the SVD itself is not. Without XLA
    the factors come from an SVD, and X from a division by s_i + s_j. XLA's own SVD takes seconds,
    so under XLA both come from matrix products alone.

    If ``w`` is singular, the SVD sends a null direction of ``w`` to some unit vector. The products
    send it to a vector of length at most 1. The sums s_i + s_j are never taken below eps * max s,
    which keeps the gradient finite.

    Args:
        w: ``[..., n, n]``, of a floating-point dtype.

    Returns:
        ``[..., n, n]`` of the same dtype, orthogonal if ``w`` is invertible. The map and its
        gradient are finite for every finite ``w``.

    Raises:
        ValueError: if ``w`` is not a batch of square matrices of a floating-point dtype.
    """
    return _polar(w)


@with_padded_rows
def _polar(w: tf.Tensor, *neurons: tf.Tensor) -> tf.Tensor:
    if is_compiled_by_xla():
        q = polar_by_products(w)
        return matmul(q, *neurons) if neurons else q
    return _polar_by_svd(w, *neurons)


lowdin.product = for_square_matrices(_polar)  # type: ignore[attr-defined]


def _polar_by_svd(w: tf.Tensor, *neurons: tf.Tensor) -> tf.Tensor:
    """Returns U V^T of ``w = U S V^T``, or its product with ``neurons``.

    For the product, U V^T itself is never computed.
    """

    @once_differentiable
    def polar(w: tf.Tensor, *neurons: tf.Tensor) -> tuple[tf.Tensor, Callable]:
        s, u, v = tf.linalg.svd(w)
        right = matmul(v, *neurons, transpose_a=True) if neurons else transpose(v)  # V^T F

        def gradient(g: tf.Tensor) -> tuple[tf.Tensor, ...]:
            left = matmul(u, g, transpose_a=True)
            turned = matmul(left, right, transpose_b=True)  # U^T dQ V, with dQ = G F^T
            sums = s[..., :, tf.newaxis] + s[..., tf.newaxis, :]
            sums = tf.maximum(sums, epsilon(s.dtype) * largest(s[..., tf.newaxis]))
            dw = matmul(u, matmul((turned - transpose(turned)) / sums, v, transpose_b=True))
            return (dw, matmul(v, left)) if neurons else (dw,)

        return matmul(u, right), gradient

    return polar(w, *neurons)


# The scaled Newton-Schulz iteration X <- a X (3 - a^2 X^T X) / 2 takes singular values in [l, 1] to
# [l', 1] with a^2 = 3 / (1 + l + l^2) (Chen and Chow, 2014). For a small l, a is near sqrt(3): that
# would send values near 1 to near 0, and rounding errors would decide on their vectors. So a is
# never computed for an l below 0.1; then 1 goes to 0.24 or more.
_CUSHION = 0.1


def _scales(dtype: tf.DType) -> list[float]:
    """Returns the scale a of each step.

    The steps suffice for a smallest singular value of eps times the bound on the largest.
    """
    scales, low = [], epsilon(dtype)
    while 1 - low > 1e-3:
        bounded = max(low, _CUSHION)
        scales.append(math.sqrt(3 / (1 + bounded + bounded**2)))
        low = min(
            scales[-1] * low * (3 - (scales[-1] * low) ** 2) / 2,
            scales[-1] * (3 - scales[-1] ** 2) / 2,
        )
    # now each step squares the distance to 1 (times 3/2): 1e-3, 1.5e-6, 3.4e-12, 1.7e-23
    return scales + [1.0] * (3 if dtype == tf.float64 else 2)


def _spectral_bound(w: tf.Tensor) -> tf.Tensor:
    """Returns an upper bound on the largest singular value, ``[..., 1, 1]``.

    It is the fourth root of |w^T w|_F^2.
    """
    scale = largest(w)
    gram = matmul(w / scale, w / scale, transpose_a=True)
    bound = scale * tf.sqrt(tf.norm(gram, axis=[-2, -1], keepdims=True))
    return tf.where(bound > 0, bound, tf.ones_like(bound))


@once_differentiable
def polar_by_products(w: tf.Tensor) -> tuple[tf.Tensor, Callable]:
    """Returns the polar factor of ``w [..., n, n]`` by matrix products alone, for XLA."""
    steps = _scales(w.dtype)
    scales = tf.constant(steps, w.dtype)

    def trip(i: tf.Tensor, x: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        a = scales[i]
        return i + 1, a / 2 * (3 * x - a**2 * matmul(x, matmul(x, x, transpose_a=True)))

    _, q = tf.while_loop(
        lambda *_: True, trip, [0, w / _spectral_bound(w)], maximum_iterations=len(steps)
    )

    def gradient(dq: tf.Tensor) -> tf.Tensor:
        k = matmul(q, dq, transpose_a=True)
        return matmul(q, _lyapunov(matmul(q, w, transpose_a=True), k - transpose(k)))

    return q, gradient


def _lyapunov(p: tf.Tensor, k: tf.Tensor) -> tf.Tensor:
    """Returns X with ``P X + X P = K``, for P symmetric positive definite and K antisymmetric.

    The matrix sign of [[P, K], [0, -P]] is [[I, 2X], [0, -I]], and the iteration of
    `polar_by_products` finds it. With D = P K - K P, the cube's upper right block is P D + K P^2.
    """
    steps = _scales(p.dtype)
    scales = tf.constant(steps, p.dtype)
    bound = _spectral_bound(p)
    p = (p + transpose(p)) / (2 * bound)

    def trip(i: tf.Tensor, p: tf.Tensor, k: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        a = scales[i]
        square, mixed = matmul(p, p), matmul(p, k)
        cube_corner = matmul(p, mixed + transpose(mixed)) + matmul(k, square)
        return (
            i + 1,
            a / 2 * (3 * p - a**2 * matmul(p, square)),
            a / 2 * (3 * k - a**2 * cube_corner),
        )

    _, _, twice = tf.while_loop(
        lambda *_: True, trip, [0, p, k / bound], maximum_iterations=len(steps)
    )
    return twice / 2
