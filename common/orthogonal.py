"""Maps from square matrices to orthogonal ones, and their products with thin matrices.

A map takes ``w [..., n, n]`` and returns an orthogonal matrix of the same shape and dtype. Its attribute
``product`` takes ``w`` and ``neurons [..., n, c]`` and returns ``map(w) @ neurons``: what a layer needs. Any
other callable of that kind can stand in a map's place; :func:`product` then forms it and multiplies.

All are pure functions of tensors: batched, differentiable once, and traceable with and without XLA. They take
float32 and float64; float16 and bfloat16 are computed in float32 and rounded at the end, since at their
precision no matrix is orthogonal to any use. Orthogonality, max |Q^T Q - I|, is within 10 n eps.

TensorFlow multiplies float32 in TF32 on recent GPUs, with 10 bits of mantissa, in which no map is orthogonal to more than
three digits. Under XLA the products in here are kept out of that (`matmul`); without it, whoever trains on a GPU should
call ``tf.config.experimental.enable_tensor_float_32_execution(False)``, as common.training does.
"""

import functools
import math
from collections.abc import Callable

import numpy as np
import tensorflow as tf
from tensorflow.compiler.tf2xla.python import xla
from tensorflow.compiler.xla import xla_data_pb2 as protocol

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
    return own(w, neurons) if own is not None else matmul(orthogonalize(w), neurons)


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


def _is_compiled() -> bool:
    """Returns whether what is being traced will be compiled by XLA, which has loops in place of LAPACK."""
    return tf.__internal__.get_enclosing_xla_context() is not None


def matmul(a: tf.Tensor, b: tf.Tensor, transpose_a: bool = False, transpose_b: bool = False) -> tf.Tensor:
    """Returns the product of ``a [..., m, k]`` and ``b [..., k, n]``, as `tf.matmul`; under XLA never in TF32."""
    if not _is_compiled():
        return tf.matmul(a, b, transpose_a, transpose_b)
    return _exact_product(_transpose(a) if transpose_a else a, _transpose(b) if transpose_b else b)


@tf.custom_gradient
def _exact_product(a: tf.Tensor, b: tf.Tensor) -> tuple[tf.Tensor, Callable]:
    rank = a.shape.rank
    batch = range(rank - 2)
    dimensions = protocol.DotDimensionNumbers(
        lhs_contracting_dimensions=[rank - 1],
        rhs_contracting_dimensions=[rank - 2],
        lhs_batch_dimensions=batch,
        rhs_batch_dimensions=batch,
    )
    highest = protocol.PrecisionConfig(operand_precision=[protocol.PrecisionConfig.HIGHEST] * 2)
    product = xla.dot_general(a, b, dimensions, highest)
    return product, lambda g: (_exact_product(g, _transpose(b)), _exact_product(_transpose(a), g))


def _transpose(x: tf.Tensor) -> tf.Tensor:
    return tf.linalg.matrix_transpose(x)


def _epsilon(dtype: tf.DType) -> float:
    return {tf.float32: 2.0**-23, tf.float64: 2.0**-52}[dtype]


def _largest(x: tf.Tensor) -> tf.Tensor:
    """Returns max |x| of each matrix, ``[..., 1, 1]``; 1 for a matrix of zeros, so that one can divide by it."""
    largest = tf.reduce_max(tf.abs(x), axis=[-2, -1], keepdims=True)
    return tf.where(largest > 0, largest, tf.ones_like(largest))


def _filled_up(turned: Callable[..., tf.Tensor]) -> Callable[..., tf.Tensor]:
    """Computes ``turned`` of blockdiag(c I, w), where it is a block again, if the rows of ``w`` are whole KiB.

    Such rows compete for the same lines of the cache, and Eigen's factorizations then take up to twice as long. c is
    of the size of ``w``, so that nothing in it is small beside c.
    """

    @functools.wraps(turned)
    def filled_up(w: tf.Tensor, *neurons: tf.Tensor) -> tf.Tensor:
        n, more = w.shape[-1] if w.shape.rank else None, 16
        if n is None or n < 512 or n % 256 or _is_compiled():
            return turned(w, *neurons)
        batch = [[0, 0]] * (w.shape.rank - 2)
        top = tf.stop_gradient(_largest(w)) * tf.eye(more, n + more, dtype=w.dtype)
        filled = tf.concat([top, tf.pad(w, [*batch, [0, 0], [more, 0]])], axis=-2)
        result = turned(filled, *(tf.pad(f, [*batch, [more, 0], [0, 0]]) for f in neurons))
        return result[..., more:, :] if neurons else result[..., more:, more:]

    return filled_up


# Gram-Schmidt and Householder: one factorization a = Q R serves both


@_filled_up
def _turned_by_rows(w: tf.Tensor, *neurons: tf.Tensor) -> tf.Tensor:
    """Returns ``D Q^T @ neurons`` of ``w^T = Q R``, or D Q^T itself without ``neurons``; D are the signs of R's diagonal."""

    @tf.custom_gradient
    def turned(w: tf.Tensor, *neurons: tf.Tensor) -> tuple[tf.Tensor, Callable]:
        q, r, _ = _factors(_transpose(w))
        signs = _signs(r)
        unsigned = matmul(q, *neurons, transpose_a=True) if neurons else _transpose(q)

        def gradient(g: tf.Tensor) -> tuple[tf.Tensor, ...]:
            g *= signs
            dq = matmul(g, *neurons, transpose_b=True) if neurons else g
            dw = _pulled_back(q, r, dq, matmul(g, unsigned, transpose_b=True))
            return (dw, matmul(q, g)) if neurons else (dw,)

        return signs * unsigned, gradient

    return turned(w, *neurons)


@_filled_up
def _turned_by_columns(w: tf.Tensor, *neurons: tf.Tensor) -> tf.Tensor:
    """Returns ``Q D @ neurons`` of ``w = Q R``, or Q D itself without ``neurons``.

    D are the signs of R's diagonal, but for the last, which makes the determinant (-1)^(n-1).
    """

    @tf.custom_gradient
    def turned(w: tf.Tensor, *neurons: tf.Tensor) -> tuple[tf.Tensor, Callable]:
        q, r, determinant = _factors(w)
        signs = _signs(r)[..., :-1, :]
        last = determinant()[..., tf.newaxis, tf.newaxis] * tf.reduce_prod(signs, axis=-2, keepdims=True)
        signs = tf.concat([signs, last * (-1) ** (w.shape[-1] - 1)], axis=-2)
        signed = [signs * f for f in neurons]

        def gradient(g: tf.Tensor) -> tuple[tf.Tensor, ...]:
            turned_g = matmul(q, g, transpose_a=True)
            dq = matmul(*signed, g, transpose_b=True) if neurons else signs * _transpose(g)
            dqq = matmul(*signed, turned_g, transpose_b=True) if neurons else signs * _transpose(turned_g)
            dw = _transpose(_pulled_back(q, r, dq, dqq))
            return (dw, signs * turned_g) if neurons else (dw,)

        return matmul(q, *signed) if neurons else q * _transpose(signs), gradient

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
    numerator = dq - matmul(tf.where(lower, dqq, _transpose(dqq)), q, transpose_b=True)
    pivots = tf.linalg.diag_part(r)
    least = tf.maximum(tf.abs(pivots), _epsilon(q.dtype) * _largest(pivots[..., tf.newaxis])[..., 0])
    r = tf.linalg.set_diag(r, tf.where(pivots < 0, -least, least))
    if _is_compiled():
        return matmul(_lower_inverse(_transpose(r)), numerator, transpose_a=True)
    return tf.linalg.triangular_solve(r, numerator, lower=False)


def _factors(a: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, Callable[[], tf.Tensor]]:
    """Returns Q and R of ``a = Q R``, and what returns the sign of det Q, ``[...]``.

    By Householder's reflections, so that Q is orthogonal to rounding whatever ``a`` is. Block Gram-Schmidt with Cholesky
    factors, by matrix products, is no faster on two cores and keeps both busy; this leaves one to another layer.
    """
    # a narrow network in float32 follows the same run in float64 until a tie of a ReLU or a pool is decided otherwise, and
    # QR's rounding, some ten eps, is the largest that can; for small matrices float64 costs next to nothing
    wide = tf.cast(a, tf.float64) if a.shape[-1] <= 128 else a
    q, r, determinant = (_by_reflections if _is_compiled() else _by_library)(wide)
    return tf.cast(q, a.dtype), tf.cast(r, a.dtype), lambda: tf.cast(determinant(), a.dtype)


def _by_library(matrix: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, Callable[[], tf.Tensor]]:
    """Returns what `_factors` does, without XLA."""
    q, r = tf.linalg.qr(matrix, full_matrices=True)  # for a square matrix no other result, but Eigen's shorter way to Q
    return q, r, lambda: tf.linalg.slogdet(q).sign


def _by_reflections(matrix: tf.Tensor, block: int = 4) -> tuple[tf.Tensor, tf.Tensor, Callable[[], tf.Tensor]]:
    """Returns what `_factors` does, for XLA.

    XLA's own QR makes over two trips of its loops a column; this makes one for ``block`` of them. Their reflections
    I - 2 v v^T are found one by one, and their product I - V T V^T, where T^-1 = I / 2 + the strict upper triangle of
    V^T V, is applied to all of the matrix at once (Schreiber and Van Loan, 1989).
    """
    n, batch, dtype = matrix.shape[-1], tf.shape(matrix)[:-2], matrix.dtype
    block = min(block, n)
    trips = -(-n // block)
    size = trips * block
    scale = _largest(matrix)
    # filled up to whole blocks with an identity
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
        lower = tf.linalg.band_part(matmul(v, v, transpose_a=True), -1, 0)  # |v| = 1: a diagonal of ones
        t = _lower_inverse(lower - tf.eye(block, dtype=dtype) / 2)  # T^T
        a -= matmul(v, matmul(t, matmul(v, a, transpose_a=True)))
        q -= matmul(matmul(matmul(q, v), t, transpose_b=True), v, transpose_b=True)
        return i + 1, a, q

    start = [0, a, tf.eye(size, batch_shape=batch, dtype=dtype)]
    _, a, q = tf.while_loop(lambda *_: True, trip, start, maximum_iterations=trips)
    # block by block n reflections have been made, and one for each column that was filled up, of determinant -1
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


@_widened
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


gram_schmidt.product = _widened(_turned_by_rows)


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
    return _turned_by_columns(w)


householder.product = _widened(_turned_by_columns)


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
    return _polar(w)


@_filled_up
def _polar(w: tf.Tensor, *neurons: tf.Tensor) -> tf.Tensor:
    if _is_compiled():
        q = _polar_by_products(w)
        return matmul(q, *neurons) if neurons else q
    return _polar_by_svd(w, *neurons)


lowdin.product = _widened(_polar)


def _polar_by_svd(w: tf.Tensor, *neurons: tf.Tensor) -> tf.Tensor:
    """Returns U V^T of ``w = U S V^T``, or its product with ``neurons``, which is never formed then."""

    @tf.custom_gradient
    def polar(w: tf.Tensor, *neurons: tf.Tensor) -> tuple[tf.Tensor, Callable]:
        s, u, v = tf.linalg.svd(w)
        right = matmul(v, *neurons, transpose_a=True) if neurons else _transpose(v)  # V^T F

        def gradient(g: tf.Tensor) -> tuple[tf.Tensor, ...]:
            left = matmul(u, g, transpose_a=True)
            turned = matmul(left, right, transpose_b=True)  # U^T dQ V, with dQ = G F^T
            sums = s[..., :, tf.newaxis] + s[..., tf.newaxis, :]
            sums = tf.maximum(sums, _epsilon(s.dtype) * _largest(s[..., tf.newaxis]))
            dw = matmul(u, matmul((turned - _transpose(turned)) / sums, v, transpose_b=True))
            return (dw, matmul(v, left)) if neurons else (dw,)

        return matmul(u, right), gradient

    return polar(w, *neurons)


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
    gram = matmul(w / largest, w / largest, transpose_a=True)
    bound = largest * tf.sqrt(tf.norm(gram, axis=[-2, -1], keepdims=True))
    return tf.where(bound > 0, bound, tf.ones_like(bound))


@tf.custom_gradient
def _polar_by_products(w: tf.Tensor) -> tuple[tf.Tensor, Callable]:
    steps = _scales(w.dtype)
    scales = tf.constant(steps, w.dtype)

    def trip(i: tf.Tensor, x: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        a = scales[i]
        return i + 1, a / 2 * (3 * x - a**2 * matmul(x, matmul(x, x, transpose_a=True)))

    _, q = tf.while_loop(lambda *_: True, trip, [0, w / _spectral_bound(w)], maximum_iterations=len(steps))

    def gradient(dq: tf.Tensor) -> tf.Tensor:
        k = matmul(q, dq, transpose_a=True)
        return matmul(q, _lyapunov(matmul(q, w, transpose_a=True), k - _transpose(k)))

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
        square, mixed = matmul(p, p), matmul(p, k)
        cube_corner = matmul(p, mixed + _transpose(mixed)) + matmul(k, square)
        return i + 1, a / 2 * (3 * p - a**2 * matmul(p, square)), a / 2 * (3 * k - a**2 * cube_corner)

    _, _, twice = tf.while_loop(lambda *_: True, trip, [0, p, k / bound], maximum_iterations=len(steps))
    return twice / 2


# Cayley


@_widened
def cayley(w: tf.Tensor) -> tf.Tensor:
    """Cayley's transform ``(I + S)(I - S)^-1`` of ``S = triu(w) - triu(w)^T`` (OPT (CP)).

    I - S is regular for every ``w``. The lower triangle and the diagonal have no part in it.

    Args:
        w: ``[..., n, n]``; n must be known when it is traced.

    Returns:
        ``[..., n, n]`` of the same dtype, orthogonal, with no eigenvalue -1; finite for every finite ``w`` whose
        squares do not overflow, and so is its gradient.
    """
    return _cayley_formed(w)


@tf.custom_gradient
def _cayley_formed(w: tf.Tensor) -> tuple[tf.Tensor, Callable]:
    """Returns Q; with (I - S)^-1 = (I + Q) / 2, dS = (I + Q)^T G (I + Q)^T / 2."""
    identity = tf.eye(w.shape[-1], batch_shape=tf.shape(w)[:-2], dtype=w.dtype)
    q = _cayley(w, identity)
    # LU leaves an error of eps |S|, which one Newton-Schulz step squares
    q += matmul(q, identity - matmul(q, q, transpose_a=True)) / 2

    def gradient(g: tf.Tensor) -> tf.Tensor:
        half = g + matmul(g, q, transpose_b=True)
        ds = half + matmul(q, half, transpose_a=True)
        return tf.linalg.band_part(ds - _transpose(ds), 0, -1) / 2

    return q, gradient


@_filled_up
def _cayley(w: tf.Tensor, neurons: tf.Tensor) -> tf.Tensor:
    if _is_compiled():
        return _cayley_by_products(w, neurons)
    if w.dtype == tf.float64:
        return _cayley_by_lu(w, neurons)

    def in_float64() -> tf.Tensor:
        return tf.cast(_cayley_by_lu(tf.cast(w, tf.float64), tf.cast(neurons, tf.float64)), w.dtype)

    # LU leaves an error of eps |S|; where that could exceed a few n eps it is done in float64
    bound = math.sqrt(2) * tf.norm(tf.linalg.band_part(w, 0, -1), axis=[-2, -1])
    return tf.cond(tf.reduce_all(bound < 2 * w.shape[-1]), lambda: _cayley_by_lu(w, neurons), in_float64)


cayley.product = _widened(_cayley)


def _skew(w: tf.Tensor) -> tf.Tensor:
    upper = tf.linalg.band_part(w, 0, -1)
    return upper - _transpose(upper)


def _skew_gradient(z: tf.Tensor, y: tf.Tensor) -> tf.Tensor:
    """Returns the gradient of w where that of S is ``Z Y^T``: the upper triangle of Z Y^T - Y Z^T, by one product."""
    ds = matmul(tf.concat([z, -y], axis=-1), tf.concat([y, z], axis=-1), transpose_b=True)
    return tf.linalg.band_part(ds, 0, -1)


@tf.custom_gradient
def _cayley_by_lu(w: tf.Tensor, f: tf.Tensor) -> tuple[tf.Tensor, Callable]:
    """Returns ``2 (I - S)^-1 F - F``; with Y = (I - S)^-1 F and Z = (I - S)^-T G, dS = 2 Z Y^T and dF = 2 Z - G.

    One factorization serves both directions.
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


@tf.custom_gradient
def _cayley_by_products(w: tf.Tensor, f: tf.Tensor) -> tuple[tf.Tensor, Callable]:
    """Returns Q F by the polar factor U of I + S: for XLA, which has no LU factorization.

    I + S is normal, of modulus (I - S^2)^(1/2), so that U^2 = (I + S)^2 (I - S^2)^-1 = Q. Backward, (I - S)^-1 is
    (I + Q) / 2.
    """
    u = _polar_by_products(tf.eye(w.shape[-1], dtype=w.dtype) + _skew(w))
    k = matmul(u, matmul(u, f))

    def gradient(g: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        back = matmul(u, matmul(u, g, transpose_a=True), transpose_a=True)
        return _skew_gradient((g + back) / 2, f + k), back

    return k, gradient


# No map: for methods that keep the rotation orthogonal by other means


def identity(w: tf.Tensor) -> tf.Tensor:
    """Returns ``w`` itself, for OPT (OGD), whose optimizer keeps it orthogonal, and OPT (OR), whose loss does."""
    return tf.convert_to_tensor(w)
