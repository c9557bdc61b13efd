"""Gram-Schmidt on rows for XLA: by matrix products of blocks, or by reflections where these fail.

In place of XLA's loop over columns, the way by blocks takes some hundred kernels at any n.
"""

import math

import tensorflow as tf

from .inverse import FEW_ROWS, eliminated, inverse_of_positive, largest_row_sum
from .matrices import epsilon, matmul, transpose, vanishes_squared

# The products converge for Gram matrices of first halves down to this part of their row sums; those
# of a Gaussian matrix have 1/130.
_LEAST = 1e-3


def orthogonal_rows(
    w: tf.Tensor, determinant: bool = False
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Returns Q, T and det Q of ``Q = T @ w``, T lower triangular with a positive diagonal.

    Q is orthogonal up to rounding for every ``w [..., n, n]`` with rows whose largest entries are
    near 1; T can overflow. Without ``determinant`` the third result, ``[...]``, means nothing.
    """
    q, t, is_accurate = _by_blocks(w)
    sign = tf.ones(tf.shape(w)[:-2], w.dtype)
    if determinant:
        sign, is_certain = _determinant(q)
        is_accurate &= is_certain
    # a matrix that has been trained from a Gaussian one never needs the slow way
    return tf.cond(tf.reduce_all(is_accurate), lambda: (q, t, sign), lambda: _by_reflections(w))


def _by_blocks(w: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Returns Q and T, and whether Q is orthogonal up to rounding, ``[...]``.

    ``[w | I]`` is multiplied from the left by lower triangular matrices until it is ``[Q | T]``. In
    step k, w consists of 2^k blocks of rows, each orthogonal to all others. From the second half
    P2 of each block it subtracts its projection on the first half P1:

        P2 - C P1,    C = P2 P1^T (P1 P1^T)^-1

    When the blocks are small, each is made orthogonal by the inverse Cholesky factor of its Gram
    matrix. At last, rounding errors E = Q Q^T - I are removed by Q - L(E) Q, where L(E) is the
    lower triangle with half of the diagonal. This squares E.
    """
    n, dtype = w.shape[-1], w.dtype
    batch = tf.shape(w)[:-2]
    rows, halvings = _split(n)
    size = rows << halvings
    m = _padded_with_identity(w, size)
    m = tf.concat([m, tf.eye(size, batch_shape=batch, dtype=dtype)], axis=-1)
    for k in range(halvings):
        half = size >> (k + 1)
        blocks = tf.reshape(m, tf.concat([batch, [1 << k, 2 * half, 2 * size]], 0))
        first, second = blocks[..., :half, :], blocks[..., half:, :]
        products = matmul(blocks[..., :size], first[..., :size], transpose_b=True)
        gram, mixed = products[..., :half, :], products[..., half:, :]
        inverse = inverse_of_positive(gram, largest_row_sum(gram), _LEAST)
        c = matmul(mixed, inverse)
        c += matmul(mixed - matmul(c, gram), inverse)
        m = tf.concat([first, second - matmul(c, first)], axis=-2)
    blocks = tf.reshape(m, tf.concat([batch, [1 << halvings, rows, 2 * size]], 0))
    wide = tf.cast(blocks[..., :size], tf.float64)
    factor = _inverse_cholesky(matmul(wide, wide, transpose_b=True))
    m = tf.reshape(matmul(tf.cast(factor, dtype), blocks), tf.concat([batch, [size, 2 * size]], 0))
    for _ in range(2):
        q = m[..., :size]
        error = matmul(q, q, transpose_b=True) - tf.eye(size, dtype=dtype)
        m -= matmul(_lower_with_half_diagonal(error), m)
    is_accurate = vanishes_squared(error, n)
    return m[..., :n, :n], m[..., :n, size : size + n], is_accurate


def _split(n: int) -> tuple[int, int]:
    """Returns rows and halvings with ``rows * 2^halvings`` equal to n or a little more."""
    halvings = max(0, math.ceil(math.log2(n / FEW_ROWS)))
    return -(-n >> halvings), halvings


def _padded_with_identity(w: tf.Tensor, size: int) -> tf.Tensor:
    """Returns blockdiag(w, I), ``[..., size, size]``."""
    n, more = w.shape[-1], size - w.shape[-1]
    if not more:
        return w
    padded = tf.pad(w, [[0, 0]] * (w.shape.rank - 2) + [[0, more]] * 2)
    return padded + tf.linalg.diag(tf.concat([tf.zeros([n], w.dtype), tf.ones([more], w.dtype)], 0))


def _lower_with_half_diagonal(x: tf.Tensor) -> tf.Tensor:
    return tf.linalg.band_part(x, -1, 0) - tf.linalg.diag(tf.linalg.diag_part(x) / 2)


def _inverse_cholesky(gram: tf.Tensor) -> tf.Tensor:
    """Returns the lower triangular T with ``T @ gram @ T^T = I``, by elimination in [gram | I]."""
    n = gram.shape[-1]
    identity = tf.eye(n, batch_shape=tf.shape(gram)[:-2], dtype=gram.dtype)
    upper, pivots = eliminated(tf.concat([gram, identity], axis=-1))
    return upper[..., n:] / tf.sqrt(pivots)


def _determinant(q: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Returns the determinants of orthogonal matrices, 1 or -1, and whether they are certain.

    Both are ``[...]``. For an orthogonal ``q = [[A, B], [C, D]]`` the matrix
    ``D - C (I + A)^-1 B`` is orthogonal too, and has the same determinant. It is certain if each
    inverse is accurate, and the product of all pivots near 1 or -1.
    """
    is_certain = tf.ones(tf.shape(q)[:-2], tf.bool)
    rows, halvings = _split(q.shape[-1])
    q = _padded_with_identity(q, rows << halvings)
    for k in reversed(range(halvings)):
        h = rows << k
        shifted = q[..., :h, :h] + tf.eye(h, dtype=q.dtype)
        # no singular value of I + A is above 2
        gram = matmul(shifted, shifted, transpose_b=True)
        inverse = inverse_of_positive(gram, tf.constant(4.0, q.dtype), _LEAST)
        is_certain &= vanishes_squared(matmul(gram, inverse) - tf.eye(h, dtype=q.dtype), h)
        solved = matmul(shifted, matmul(inverse, q[..., :h, h:]), transpose_a=True)
        q = q[..., h:, h:] - matmul(q[..., h:, :h], solved)
    _, pivots = eliminated(tf.cast(q, tf.float64))
    product = tf.reduce_prod(pivots, axis=[-2, -1])
    return tf.cast(tf.sign(product), q.dtype), is_certain & (tf.abs(tf.abs(product) - 1) < 0.01)


def _by_reflections(matrix: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Does the same as `orthogonal_rows`, for every matrix, in n / 4 trips of a loop.

    Householder's reflections I - 2 v v^T of the transpose's columns are found one by one. The
    product of four of them, I - V T V^T, where T^-1 = I / 2 + the strict upper triangle of
    V^T V, is applied to all of the matrix at once (Schreiber and Van Loan, 1989).
    """
    n, batch, dtype = matrix.shape[-1], tf.shape(matrix)[:-2], matrix.dtype
    block = min(4, n)
    trips = -(-n // block)
    size = trips * block
    a = _padded_with_identity(transpose(matrix), size)

    def trip(i: tf.Tensor, a: tf.Tensor, q: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        panel = tf.gather(a, i * block + tf.range(block), axis=-1)
        vectors = []
        for j in range(block):
            k = i * block + j
            unit = tf.one_hot([k], size, axis=0, dtype=dtype)
            x = panel[..., j : j + 1] * tf.cast(tf.range(size)[:, tf.newaxis] >= k, dtype)
            # or else the squares of a small column, from rounding errors, could underflow
            most = tf.reduce_max(tf.abs(x), axis=-2, keepdims=True)
            x = tf.where(most > 0, x / most, x)
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
    lower, rows = transpose(a[..., :n, :n]), transpose(q[..., :n, :n])
    diagonal = tf.linalg.diag_part(lower)
    signs = tf.where(diagonal < 0, -tf.ones_like(diagonal), tf.ones_like(diagonal))
    # keeps the gradient finite where w is singular
    safe = tf.maximum(tf.abs(diagonal), epsilon(dtype))
    lower = tf.linalg.set_diag(lower, signs * safe)
    # Each of the n columns has had one reflection, of determinant -1. So has each padding column,
    # whose reflection changes the padding alone.
    determinant = (-1.0) ** n * tf.reduce_prod(signs, axis=-1)
    column = signs[..., tf.newaxis]
    return column * rows, column * _lower_inverse(lower), determinant


def _lower_inverse(lower: tf.Tensor) -> tf.Tensor:
    """Returns the inverse of lower triangular matrices by matrix products.

    If X is the inverse of diagonal blocks of one size, and M the entries between two neighbours,
    then X - X M X is the inverse of blocks of twice the size.
    """
    inverse = tf.linalg.diag(1 / tf.linalg.diag_part(lower))
    size = 1
    while size < lower.shape[-1]:
        block = tf.range(lower.shape[-1]) // size
        between = (block[:, tf.newaxis] == block + 1) & (block % 2 == 0)
        inverse -= matmul(inverse, matmul(lower * tf.cast(between, lower.dtype), inverse))
        size *= 2
    return inverse
