"""Maps from square matrices to orthogonal ones, and their products with thin matrices.

A map takes ``w [..., n, n]`` and returns an orthogonal matrix of the same shape and dtype. Its attribute
``product`` takes ``w`` and ``neurons [..., n, c]`` and returns ``map(w) @ neurons``: what a layer needs. Any
other callable of that kind can stand in a map's place; :func:`product` then forms it and multiplies.

All are pure functions of tensors: batched, differentiable once, and traceable with and without XLA. They take
float32 and float64; float16 and bfloat16 are computed in float32 and rounded at the end, since at their
precision no matrix is orthogonal to any use. Orthogonality, max |Q^T Q - I|, is within 10 n eps.

TensorFlow multiplies float32 in TF32 on recent GPUs, with 10 bits of mantissa: whoever trains there should call
``tf.config.experimental.enable_tensor_float_32_execution(False)``, as common.training does.
"""

import functools
import math
from collections.abc import Callable

import tensorflow as tf

Map = Callable[[tf.Tensor], tf.Tensor]


def product(orthogonalize: Map, w: tf.Tensor, neurons: tf.Tensor) -> tf.Tensor:
    """Returns ``orthogonalize(w) @ neurons``, by the map's own ``product`` where it has one.

    Args:
        orthogonalize: one of the maps of this module, or any callable ``[..., n, n] -> [..., n, n]``.
        w: ``[..., n, n]``.
        neurons: ``[..., n, c]``, of the dtype of ``w``.

    Returns:
        ``[..., n, c]``, of that dtype.
    """
    own = getattr(orthogonalize, "product", None)
    return own(w, neurons) if own is not None else tf.matmul(orthogonalize(w), neurons)


def _widened(function: Callable[..., tf.Tensor]) -> Callable[..., tf.Tensor]:
    """Computes ``function`` of 16-bit tensors in float32, and refuses what is no batch of square float matrices."""

    @functools.wraps(function)
    def widened(*tensors: tf.Tensor) -> tf.Tensor:
        tensors = [tf.convert_to_tensor(t) for t in tensors]
        dtype, shape = tensors[0].dtype, tensors[0].shape
        if not dtype.is_floating:
            raise ValueError(f"a map takes floating-point matrices, not {dtype.name}")
        if shape.rank is not None and (shape.rank < 2 or not shape[-1:].is_compatible_with(shape[-2:-1])):
            raise ValueError(f"a map takes square matrices, not {shape}")
        wide = dtype if dtype in (tf.float32, tf.float64) else tf.float32
        return tf.cast(function(*(tf.cast(t, wide) for t in tensors)), dtype)

    return widened


def _transpose(x: tf.Tensor) -> tf.Tensor:
    return tf.linalg.matrix_transpose(x)


def _epsilon(dtype: tf.DType) -> float:
    return {tf.float32: 2.0**-23, tf.float64: 2.0**-52}[dtype]


def _largest(x: tf.Tensor) -> tf.Tensor:
    """Returns max |x| of each matrix, ``[..., 1, 1]``; 1 for a matrix of zeros, so that one can divide by it."""
    largest = tf.reduce_max(tf.abs(x), axis=[-2, -1], keepdims=True)
    return tf.where(largest > 0, largest, tf.ones_like(largest))


# Gram-Schmidt and Householder: one QR factorization serves both


@tf.custom_gradient
def _qr(a: tf.Tensor) -> tuple[tf.Tensor, Callable]:
    """Returns Q of ``a = Q R`` with R's diagonal positive: Gram-Schmidt on the columns of ``a``.

    Householder's algorithm underneath, so that Q is orthogonal to rounding whatever the condition number of
    ``a`` is. The gradient is that of Roberts and Roberts (arXiv 2009.10071) for a square Q alone::

        dA = (dQ - Q (L + L^T)) R^-T,    L = the lower triangle of dQ^T Q, its diagonal halved

    Where R is singular to working precision its diagonal is held at eps * max |R|, which keeps dA finite.
    """
    q, r = tf.linalg.qr(a)
    diagonal = tf.linalg.diag_part(r)
    sign = tf.where(diagonal < 0, -tf.ones_like(diagonal), tf.ones_like(diagonal))
    q = q * sign[..., tf.newaxis, :]

    def gradient(dq: tf.Tensor) -> tf.Tensor:
        pivots = tf.maximum(tf.abs(diagonal), _epsilon(r.dtype) * _largest(r)[..., 0])
        upper = tf.linalg.set_diag(r * sign[..., :, tf.newaxis], pivots)
        lower = tf.linalg.band_part(tf.matmul(dq, q, transpose_a=True), -1, 0)
        lower = tf.linalg.set_diag(lower, tf.linalg.diag_part(lower) / 2)
        numerator = dq - tf.matmul(q, lower + _transpose(lower))
        # X R^T = N, that is, R X^T = N^T
        return _transpose(tf.linalg.triangular_solve(upper, _transpose(numerator), lower=False))

    return q, gradient


def _is_compiled() -> bool:
    """Returns whether what is being traced will be compiled by XLA, which has loops in place of LAPACK."""
    return tf.__internal__.get_enclosing_xla_context() is not None


def determinant_sign(q: tf.Tensor) -> tf.Tensor:
    """Returns the sign of the determinant of an orthogonal matrix.

    Args:
        q: ``[..., n, n]``, orthogonal.

    Returns:
        ``[...]``, 1 or -1, of the dtype of ``q``.
    """
    return _eliminated_sign(q) if _is_compiled() else tf.linalg.slogdet(q).sign


def _eliminated_sign(q: tf.Tensor, block: int = 8) -> tf.Tensor:
    """Returns `determinant_sign` of ``q`` by matrix products, in n / block trips of one loop.

    XLA has no LU factorization to read the sign from. This is the elimination of ``q - S`` without pivoting, S
    diagonal and s_i = -sign(pivot i) as it is met: every pivot of q - S is at least 1 in size, so that none needs
    searching. It writes q S as a product of n reflections (Ballard et al., Reconstructing Householder Vectors from
    Tall-Skinny QR, 2014), hence det(q) = (-1)^n s_1 ... s_n. Where a pivot is near 0 either sign will do.
    """
    n, batch = q.shape[-1], tf.shape(q)[:-2]
    block = min(block, n)
    trips = -(-n // block)
    filler = trips * block - n
    # the last block is filled up with an identity, which changes no determinant
    rest = tf.pad(q, [[0, 0]] * (q.shape.rank - 2) + [[0, filler]] * 2)
    rest += tf.linalg.diag(tf.concat([tf.zeros([n], q.dtype), tf.ones([filler], q.dtype)], 0))

    def trip(rest: tf.Tensor, sign: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        # Gauss-Jordan on [A - S | I], A the leading block: the right half becomes (A - S)^-1
        work = tf.concat([rest[..., :block, :block], tf.eye(block, batch_shape=batch, dtype=q.dtype)], axis=-1)
        for i in range(block):
            pivot = work[..., i : i + 1, i : i + 1]
            away = tf.where(pivot < 0, -tf.ones_like(pivot), tf.ones_like(pivot))  # -s_i
            sign *= away[..., 0, 0]
            unit = tf.one_hot([i], block, axis=0, dtype=q.dtype)  # [block, 1]
            work += away * unit * tf.one_hot([i], 2 * block, dtype=q.dtype)
            row = work[..., i : i + 1, :] / (pivot + away)
            # the pivot's own row becomes `row`; every other loses its multiple of it
            work -= (work[..., :, i : i + 1] - unit) * row
        across = tf.matmul(work[..., block:], rest[..., :block, block:])
        schur = rest[..., block:, block:] - tf.matmul(rest[..., block:, :block], across)
        return tf.pad(schur, [[0, 0]] * (q.shape.rank - 2) + [[0, block]] * 2), sign

    _, sign = tf.while_loop(lambda *_: True, trip, [rest, tf.ones(batch, q.dtype)], maximum_iterations=trips)
    return sign


@_widened
def gram_schmidt(w: tf.Tensor) -> tf.Tensor:
    """Gram-Schmidt on the rows of ``w``, in order (OPT (GS)).

    Row i less its projection on the rows before it, normalized: Q^T of ``w^T = Q R`` with R's diagonal positive.
    Where row i depends on the rows before it, it becomes one of the unit vectors that are orthogonal to them.

    Args:
        w: ``[..., n, n]``.

    Returns:
        ``[..., n, n]`` of the same dtype, orthogonal; finite for every finite ``w``, and so is its gradient.
    """
    return _transpose(_qr(_transpose(w)))


@_widened
def _gram_schmidt_product(w: tf.Tensor, neurons: tf.Tensor) -> tf.Tensor:
    return tf.matmul(_qr(_transpose(w)), neurons, transpose_a=True)


gram_schmidt.product = _gram_schmidt_product


@_widened
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
    q = _qr(w)
    n = w.shape[-1]
    last = tf.stop_gradient(determinant_sign(q))[..., tf.newaxis, tf.newaxis] * (-1) ** (n - 1)
    return tf.concat([q[..., :-1], q[..., -1:] * last], axis=-1)


# Loewdin: the polar factor


@_widened
def lowdin(w: tf.Tensor) -> tf.Tensor:
    """Loewdin's symmetric orthogonalization, U V^T of ``w = U S V^T``: the orthogonal matrix nearest to ``w`` (OPT (LS)).

    Its gradient is V-side Lyapunov's equation (with P = V S V^T, w = Q P)::

        dw = Q X,    P X + X P = Q^T dQ - dQ^T Q

    which is benign where singular values coincide; differentiating the SVD is not. Without XLA the factors come
    from an SVD and X from dividing by s_i + s_j; with XLA, which has an SVD of its own that takes seconds, both
    come from matrix products alone.

    Where ``w`` is singular, a null direction of it goes to some unit vector by the SVD, and to a vector of length
    at most 1 by the products. The sums s_i + s_j are held at eps * max s, which keeps the gradient finite.

    Args:
        w: ``[..., n, n]``.

    Returns:
        ``[..., n, n]`` of the same dtype, orthogonal where ``w`` is regular; finite for every finite ``w``, and so
        is its gradient.
    """
    return _polar_by_products(w) if _is_compiled() else _polar_by_svd(w)


@_widened
def _lowdin_product(w: tf.Tensor, neurons: tf.Tensor) -> tf.Tensor:
    return tf.matmul(_polar_by_products(w) if _is_compiled() else _polar_by_svd(w), neurons)


lowdin.product = _lowdin_product


@tf.custom_gradient
def _polar_by_svd(w: tf.Tensor) -> tuple[tf.Tensor, Callable]:
    s, u, v = tf.linalg.svd(w)

    def gradient(dq: tf.Tensor) -> tf.Tensor:
        turned = tf.matmul(u, tf.matmul(dq, v), transpose_a=True)  # U^T dQ V
        sums = s[..., :, tf.newaxis] + s[..., tf.newaxis, :]
        sums = tf.maximum(sums, _epsilon(s.dtype) * _largest(sums))
        return tf.matmul(u, tf.matmul((turned - _transpose(turned)) / sums, v, transpose_b=True))

    return tf.matmul(u, v, transpose_b=True), gradient


# The scaled Newton-Schulz iteration X <- a X (3 - a^2 X^T X) / 2 takes singular values in [l, 1] to [l', 1] with
# a^2 = 3 / (1 + l + l^2) (Chen and Chow, 2014). While l is small, a near sqrt(3) would send values near 1 to near 0
# and leave their vectors to rounding: a is computed for no l below 0.1, which sends 1 to no less than 0.24.
_CUSHION = 0.1


def _scales(dtype: tf.DType) -> list[float]:
    """Returns the scale a of each step, enough for a smallest singular value of eps times the bound on the largest."""
    scales, low = [], _epsilon(dtype)
    while 1 - low > 1e-3:
        bounded = max(low, _CUSHION)
        scales.append(math.sqrt(3 / (1 + bounded + bounded**2)))
        low = min(scales[-1] * low * (3 - (scales[-1] * low) ** 2) / 2, scales[-1] * (3 - scales[-1] ** 2) / 2)
    # from here on the distance to 1 is squared (times 3/2) at each step: 1e-3, 1.5e-6, 3.4e-12, 1.7e-23
    return scales + [1.0] * (3 if dtype == tf.float64 else 2)


def _spectral_bound(w: tf.Tensor) -> tf.Tensor:
    """Returns a bound on the largest singular value, ``[..., 1, 1]``: the fourth root of |w^T w|_F^2."""
    largest = _largest(w)
    gram = tf.matmul(w / largest, w / largest, transpose_a=True)
    bound = largest * tf.sqrt(tf.norm(gram, axis=[-2, -1], keepdims=True))
    return tf.where(bound > 0, bound, tf.ones_like(bound))


@tf.custom_gradient
def _polar_by_products(w: tf.Tensor) -> tuple[tf.Tensor, Callable]:
    steps = _scales(w.dtype)
    scales = tf.constant(steps, w.dtype)

    def trip(i: tf.Tensor, x: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        a = scales[i]
        return i + 1, a / 2 * (3 * x - a**2 * tf.matmul(x, tf.matmul(x, x, transpose_a=True)))

    _, q = tf.while_loop(lambda *_: True, trip, [0, w / _spectral_bound(w)], maximum_iterations=len(steps))

    def gradient(dq: tf.Tensor) -> tf.Tensor:
        k = tf.matmul(q, dq, transpose_a=True)
        return tf.matmul(q, _lyapunov(tf.matmul(q, w, transpose_a=True), k - _transpose(k)))

    return q, gradient


def _lyapunov(p: tf.Tensor, k: tf.Tensor) -> tf.Tensor:
    """Returns X with ``P X + X P = K``, for P symmetric positive definite and K antisymmetric.

    The matrix sign of [[P, K], [0, -P]] is [[I, 2X], [0, -I]]. The iteration of `_polar_by_products` finds it; with
    D = P K - K P, the cube's upper right block is P D + K P^2.
    """
    steps = _scales(p.dtype)
    scales = tf.constant(steps, p.dtype)
    bound = _spectral_bound(p)
    p = (p + _transpose(p)) / (2 * bound)

    def trip(i: tf.Tensor, p: tf.Tensor, k: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        a = scales[i]
        square, mixed = tf.matmul(p, p), tf.matmul(p, k)
        cube_corner = tf.matmul(p, mixed + _transpose(mixed)) + tf.matmul(k, square)
        return i + 1, a / 2 * (3 * p - a**2 * tf.matmul(p, square)), a / 2 * (3 * k - a**2 * cube_corner)

    _, _, twice = tf.while_loop(lambda *_: True, trip, [0, p, k / bound], maximum_iterations=len(steps))
    return twice / 2


# Cayley


@tf.custom_gradient
def _cayley(r: tf.Tensor) -> tuple[tf.Tensor, Callable]:
    s = _skew(r)
    identity = tf.eye(r.shape[-1], dtype=r.dtype)
    inverse = tf.linalg.solve(identity - s, tf.zeros_like(s) + identity)
    q = 2 * inverse - identity
    # LU leaves an error of eps |S|, which one Newton-Schulz step squares
    q += tf.matmul(q, identity - tf.matmul(q, q, transpose_a=True)) / 2

    def gradient(dq: tf.Tensor) -> tf.Tensor:
        # dQ = 2 (I - S)^-1 dS (I - S)^-1
        return _skew_gradient(2 * tf.matmul(tf.matmul(inverse, dq, transpose_a=True), inverse, transpose_b=True))

    return q, gradient


def _skew(r: tf.Tensor) -> tf.Tensor:
    upper = tf.linalg.band_part(r, 0, -1)
    return upper - _transpose(upper)


def _skew_gradient(ds: tf.Tensor) -> tf.Tensor:
    return tf.linalg.band_part(ds - _transpose(ds), 0, -1)


def _in_float64(function: Callable[..., tf.Tensor]) -> Callable[..., tf.Tensor]:
    @functools.wraps(function)
    def exact(*tensors: tf.Tensor) -> tf.Tensor:
        return tf.cast(function(*(tf.cast(t, tf.float64) for t in tensors)), tensors[0].dtype)

    return exact


@_widened
@_in_float64
def cayley(w: tf.Tensor) -> tf.Tensor:
    """Cayley's transform ``(I + S)(I - S)^-1`` of ``S = triu(w) - triu(w)^T`` (OPT (CP)).

    I - S is regular for every ``w``. The lower triangle and the diagonal have no part in it. Computed in float64
    whatever the dtype: in float32 an error of eps |S| would show, and on a CPU its LU costs hardly more.

    Args:
        w: ``[..., n, n]``.

    Returns:
        ``[..., n, n]`` of the same dtype, orthogonal, with no eigenvalue -1; finite for every finite ``w`` whose
        squares do not overflow, and so is its gradient.
    """
    return _cayley(w)


@_widened
@_in_float64
def _cayley_product(w: tf.Tensor, neurons: tf.Tensor) -> tf.Tensor:
    return _cayley_times(w, neurons)


cayley.product = _cayley_product


@tf.custom_gradient
def _cayley_times(r: tf.Tensor, f: tf.Tensor) -> tuple[tf.Tensor, Callable]:
    """``2 (I - S)^-1 F - F``; with thin Y = (I - S)^-1 F and Z = (I - S)^-T G, dS = 2 Z Y^T and dF = 2 Z - G."""
    matrix = tf.eye(r.shape[-1], dtype=r.dtype) - _skew(r)
    y = tf.linalg.solve(matrix, f)

    def gradient(g: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        z = tf.linalg.solve(matrix, g, adjoint=True)
        return _skew_gradient(2 * tf.matmul(z, y, transpose_b=True)), 2 * z - g

    return 2 * y - f, gradient


# No map: for methods that keep the rotation orthogonal by other means


def identity(w: tf.Tensor) -> tf.Tensor:
    """Returns ``w`` itself, for OPT (OGD), whose optimizer keeps it orthogonal, and OPT (OR), whose loss does."""
    return tf.convert_to_tensor(w)
