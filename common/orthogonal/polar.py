"""Loewdin's map: the polar factor, by an SVD or, under XLA, by matrix products."""

import math
from collections.abc import Callable

import tensorflow as tf

from ..private import is_compiled_by_xla
from .matrices import (
    disturbed,
    epsilon,
    for_square_matrices,
    matmul,
    noise,
    once_differentiable,
    scale_invariant,
    transpose,
    vanishes_squared,
    with_padded_rows,
)


@for_square_matrices
def lowdin(w: tf.Tensor) -> tf.Tensor:
    """Loewdin's symmetric orthogonalization: the orthogonal matrix nearest to ``w`` (OPT (LS)).

    It is U V^T of the SVD ``w = U S V^T`` (Liu et al., CVPR 2021). Its gradient solves a Lyapunov
    equation, with P = V S V^T and w = Q P:

        dw = Q X,    P X + X P = Q^T dQ - dQ^T Q

    Without XLA the factors come from an SVD, and X from a division by s_i + s_j; under XLA both
    come from matrix products alone. If ``w`` is singular, a null direction of ``w`` goes to some
    unit vector. The sums s_i + s_j are never taken below some eps * max s.

    Args:
        w: ``[..., n, n]``, of a floating-point dtype.

    Returns:
        ``[..., n, n]`` of the same dtype, orthogonal. The map and its gradient are finite for every
        finite ``w``. The gradient of a matrix of zeros is 0.

    Raises:
        ValueError: if ``w`` is not a batch of square matrices of a floating-point dtype.
    """
    return _polar(w)


@scale_invariant(-2, -1)
@with_padded_rows
def _polar(w: tf.Tensor, *neurons: tf.Tensor) -> tf.Tensor:
    if is_compiled_by_xla():
        # the thin way makes some 30 products with the neurons, which a GPU's launches hide if small
        n, columns = w.shape[-1], neurons[0].shape[-1] if neurons else None
        if n and columns and columns <= max(n, 128) and w.dtype == tf.float32:
            return _thin_polar_by_products(w, *neurons)
        q = polar_by_products(w)
        return matmul(q, *neurons) if neurons else q
    return _polar_by_svd(w, *neurons)


lowdin.product = for_square_matrices(_polar)  # type: ignore[attr-defined]


def _polar_by_svd(w: tf.Tensor, *neurons: tf.Tensor) -> tf.Tensor:
    """Returns U V^T of ``w = U S V^T``, or its product with ``neurons`` without computing U V^T."""

    @once_differentiable
    def polar(w: tf.Tensor, *neurons: tf.Tensor) -> tuple[tf.Tensor, Callable]:
        s, u, v = _svd(w)
        right = matmul(v, *neurons, transpose_a=True) if neurons else transpose(v)  # V^T F

        def gradient(g: tf.Tensor) -> tuple[tf.Tensor, ...]:
            left = matmul(u, g, transpose_a=True)
            inner = matmul(left, right, transpose_b=True)  # U^T dQ V, with dQ = G F^T
            sums = s[..., :, tf.newaxis] + s[..., tf.newaxis, :]
            sums = tf.maximum(sums, epsilon(s.dtype))
            dw = matmul(u, matmul((inner - transpose(inner)) / sums, v, transpose_b=True))
            return (dw, matmul(v, left)) if neurons else (dw,)

        return matmul(u, right), gradient

    return polar(w, *neurons)


def _svd(w: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Returns S, U and V of ``w = U S V^T``, where U and V are orthogonal for every ``w``.

    A few vectors x tell whether (U V^T)^T (U V^T) x = x.
    """
    s, u, v = tf.linalg.svd(w)
    n = tf.shape(w)[-1]
    squares = tf.range(tf.cast(n, w.dtype))[:, tf.newaxis] ** 2
    x = tf.cos(tf.constant([0.3, 0.7, 1.1, 1.9], w.dtype) * squares)
    forth = matmul(u, matmul(v, x, transpose_a=True))
    error = matmul(v, matmul(u, forth, transpose_a=True)) - x
    is_orthogonal = tf.reduce_max(tf.abs(error)) <= 4 * tf.cast(n, w.dtype) * epsilon(w.dtype)
    return tf.cond(
        is_orthogonal,
        lambda: (s, u, v),
        lambda: tuple(tf.cast(factor, w.dtype) for factor in tf.linalg.svd(disturbed(w))),
    )


# The scaled Newton-Schulz iteration X <- a X (3 - a^2 X^T X) / 2 takes singular values in [l, 1] to
# [l', 1] with a^2 = 3 / (1 + l + l^2) (Chen and Chow, 2014). For a small l that would send values
# near 1 to near 0, where rounding errors decide. So l counts as 0.1 or more; 1 goes to over 0.24.
_CUSHION = 0.1


def _scales(low: float, dtype: tf.DType) -> list[float]:
    """Returns the scale a of each step, for singular values from ``low`` to 1."""
    scales = []
    while 1 - low > 1e-4:
        bounded = max(low, _CUSHION)
        a = math.sqrt(3 / (1 + bounded + bounded**2))
        low = min(a * low * (3 - (a * low) ** 2) / 2, a * (3 - a**2) / 2)
        scales.append(a)
    # now each step squares the distance to 1 (times 3/2): 1e-4, 1.5e-8, 3.4e-16
    return scales + [1.0] * (2 if dtype == tf.float64 else 1)


def _spectral_bound(w: tf.Tensor) -> tf.Tensor:
    """Returns an upper bound on the largest singular value, ``[..., 1, 1]``: |w^T w|_F^(1/2)."""
    gram = matmul(w, w, transpose_a=True)
    bound = tf.sqrt(tf.norm(gram, axis=[-2, -1], keepdims=True))
    return tf.where(bound > 0, bound, tf.ones_like(bound))


# a few of 100 Gaussian matrices of 576 rows have a smaller one (Edelman, 1988)
_USUAL = 1e-5
# the least singular value of such noise is about eps / n, less where rounding errors meet it
_LEAST = 2.0**-16


def _polar_factor(w: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Returns the polar factor of ``w [..., n, n]``, and `_spectral_bound` of w.

    The first steps suffice for singular values down to ``_USUAL`` times the bound. If one of them
    is smaller, noise of some eps makes all of them larger than `_LEAST` eps, and others follow.
    """
    bound = _spectral_bound(w)
    x = w / bound
    for a in _scales(_USUAL, w.dtype):
        x, error = _step(x, a)

    def singular() -> tf.Tensor:
        steps = _scales(_LEAST * epsilon(x.dtype), x.dtype)
        scales = tf.constant(steps, x.dtype)
        return tf.while_loop(
            lambda *_: True,
            lambda i, x: (i + 1, _step(x, scales[i])[0]),
            [0, x + epsilon(x.dtype) * noise(x)],
            maximum_iterations=len(steps),
        )[1]

    is_near = tf.reduce_all(vanishes_squared(error, tf.shape(w)[-1]))
    return tf.cond(is_near, lambda: x, singular), bound


def _step(x: tf.Tensor, a: float | tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Returns X after a step, and X^T X - I before it."""
    identity = tf.eye(tf.shape(x)[-1], dtype=x.dtype)
    gram = matmul(x, x, transpose_a=True)
    return matmul(x, 1.5 * a * identity - a**3 / 2 * gram), gram - identity


@once_differentiable
def polar_by_products(w: tf.Tensor) -> tuple[tf.Tensor, Callable]:
    """Returns the polar factor of ``w [..., n, n]`` by matrix products alone, for XLA."""
    q, _ = _polar_factor(w)

    def gradient(dq: tf.Tensor) -> tf.Tensor:
        k = matmul(q, dq, transpose_a=True)
        return matmul(q, _lyapunov(matmul(q, w, transpose_a=True), k - transpose(k)))

    return q, gradient


@once_differentiable
def _thin_polar_by_products(w: tf.Tensor, f: tf.Tensor) -> tuple[tf.Tensor, Callable]:
    """Returns ``polar(w) @ f`` in float32, for XLA and an ``f`` of few columns."""
    q, bound = _polar_factor(w)

    def gradient(g: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        df = matmul(q, g, transpose_a=True)
        p = matmul(q, w, transpose_a=True) / bound
        x = _thin_lyapunov((p + transpose(p)) / 2, df, f) / bound
        return matmul(q, x), df

    return matmul(q, f), gradient


_FIRST = 0.25  # the first time whose exponential is computed as a matrix
_DOUBLINGS = 23  # up to 2^21, since sums of eigenvalues below some eps have no meaning
_STEP = math.log(2)


def _thin_lyapunov(p: tf.Tensor, a: tf.Tensor, b: tf.Tensor) -> tf.Tensor:
    """Returns X with ``P X + X P = A B^T - B A^T``, for float32 and thin A and B.

    For eigenvalues p and q of P, 1 / (p + q) is the integral of exp(-(p + q) t) over t > 0, and
    that of a smooth function over log t. The trapezoidal rule with steps of h gives it as a sum
    over times t = t0 exp(h k):

        X = Y - Y^T,    Y = h sum over k of t (exp(-t P) A) (exp(-t P) B)^T

    Its relative error is at most 2 |Gamma(1 + 2 pi i / h)|, which is 1e-5 for h = log 2. Each time
    is then twice the one before, and its exponential the square of that one. ``p [..., n, n]`` has
    eigenvalues from 0 to 1, whose sums count as no less than some 2^-21; ``a`` and ``b`` are
    ``[..., n, c]``.
    """
    columns, both = a.shape[-1], tf.concat([a, b], axis=-1)
    lefts, rights = _terms_before(p, both, columns)
    t, d = _FIRST, _one_minus_exponential(p)
    for k in range(_DOUBLINGS + 1):
        term = both - matmul(d, both)
        lefts.append(_STEP * t * term[..., :columns])
        rights.append(term[..., columns:])
        if k < _DOUBLINGS:
            # of D = I - exp(-t P) and not of the exponential: small eigenvalues keep their digits
            t, d = 2 * t, 2 * d - matmul(d, d)
    y = matmul(tf.concat(lefts, -1), tf.concat(rights, -1), transpose_b=True)
    return y - transpose(y)


def _terms_before(
    p: tf.Tensor, both: tf.Tensor, columns: int
) -> tuple[list[tf.Tensor], list[tf.Tensor]]:
    """Returns A's and B's parts of the terms with times below `_FIRST`, all of them together."""
    degree = 4  # of Taylor's polynomial, right up to 3e-7; the sums over times are geometric series
    powers = [both]
    for _ in range(degree):
        powers.append(matmul(p, powers[-1]))
    lefts, rights = [], []
    for i in range(degree + 1):
        right = tf.zeros_like(both[..., columns:])
        for j in range(degree + 1):
            series = _FIRST ** (1 + i + j) / (2 ** (1 + i + j) - 1)
            weight = (-1) ** (i + j) / (math.factorial(i) * math.factorial(j))
            right += _STEP * series * weight * powers[j][..., columns:]
        lefts.append(powers[i][..., :columns])
        rights.append(right)
    return lefts, rights


def _one_minus_exponential(p: tf.Tensor) -> tf.Tensor:
    """Returns I - exp(-t P) for t = `_FIRST`, by Taylor's polynomial of degree 6."""
    c = [-((-_FIRST) ** i) / math.factorial(i) for i in range(7)]
    square = matmul(p, p)
    cube = matmul(p, square)
    high = c[3] * tf.eye(p.shape[-1], dtype=p.dtype) + c[4] * p + c[5] * square + c[6] * cube
    return c[1] * p + c[2] * square + matmul(cube, high)


def _lyapunov(p: tf.Tensor, k: tf.Tensor) -> tf.Tensor:
    """Returns X with ``P X + X P = K``, for P symmetric positive definite and K antisymmetric.

    The matrix sign of [[P, K], [0, -P]] is [[I, 2X], [0, -I]], and the iteration of
    `polar_by_products` finds it. With D = P K - K P, the cube's upper right block is P D + K P^2.
    """
    steps = _scales(2.5 * epsilon(p.dtype), p.dtype)
    scales = tf.constant(steps, p.dtype)
    bound = _spectral_bound(p)
    p = (p + transpose(p)) / (2 * bound)

    def trip(i: tf.Tensor, p: tf.Tensor, k: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        a = scales[i]
        square, mixed = matmul(p, p), matmul(p, k)
        cube_corner = matmul(p, mixed + transpose(mixed)) + matmul(k, square)
        new_p = a / 2 * (3 * p - a**2 * matmul(p, square))
        return i + 1, new_p, a / 2 * (3 * k - a**2 * cube_corner)

    start = [0, p, k / bound]
    return tf.while_loop(lambda *_: True, trip, start, maximum_iterations=len(steps))[2] / 2
