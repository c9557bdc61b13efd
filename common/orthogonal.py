"""Maps from square matrices to orthogonal ones, and their products with thin matrices.

A map takes ``w [..., n, n]`` and returns an orthogonal matrix of the same shape and dtype. Its attribute
``product`` takes ``w`` and ``neurons [..., n, c]`` and returns ``map(w) @ neurons``: what a layer needs. Any
other callable of that kind can stand in a map's place; :func:`product` then forms it and multiplies.

All are pure functions of tensors: batched, differentiable, and traceable with and without XLA.
"""

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


def _transpose(x: tf.Tensor) -> tf.Tensor:
    return tf.linalg.matrix_transpose(x)


@tf.custom_gradient
def _qr(a: tf.Tensor) -> tuple[tf.Tensor, Callable]:
    """Q of ``a = Q R``, the diagonal of R positive: Gram-Schmidt on the columns of ``a``.

    Householder's algorithm underneath, so that Q is orthogonal to rounding whatever the condition number of
    ``a`` is. The gradient is that of Roberts and Roberts (arXiv 2009.10071) for a square Q alone::

        dA = (dQ - Q (L + L^T)) R^-T,    L = the lower triangle of dQ^T Q, its diagonal halved

    Where R is singular to working precision its diagonal is held at eps * max |R| there, which keeps the
    gradient finite.
    """
    q, r = tf.linalg.qr(a)
    diagonal = tf.linalg.diag_part(r)
    sign = tf.where(diagonal < 0, -tf.ones_like(diagonal), tf.ones_like(diagonal))
    q = q * sign[..., tf.newaxis, :]
    r = r * sign[..., :, tf.newaxis]

    def gradient(dq: tf.Tensor) -> tf.Tensor:
        pivots = sign * diagonal
        floor = tf.reduce_max(tf.abs(r), axis=[-2, -1])[..., tf.newaxis] * r.dtype.as_numpy_dtype(_epsilon(r.dtype))
        # a matrix of zeros has floor 0: any positive pivot will do
        floor = tf.where(floor > 0, floor, tf.ones_like(floor))
        safe = tf.linalg.set_diag(r, tf.maximum(pivots, floor))
        lower = tf.linalg.band_part(tf.matmul(dq, q, transpose_a=True), -1, 0)
        lower = tf.linalg.set_diag(lower, tf.linalg.diag_part(lower) / 2)
        numerator = dq - tf.matmul(q, lower + _transpose(lower))
        # X R^T = N, that is, R X^T = N^T
        return _transpose(tf.linalg.triangular_solve(safe, _transpose(numerator), lower=False))

    return q, gradient


def _epsilon(dtype: tf.DType) -> float:
    return {tf.float32: 2.0**-23, tf.float64: 2.0**-52}[dtype]


def gram_schmidt(w: tf.Tensor) -> tf.Tensor:
    """Gram-Schmidt on the rows of ``w``, in order (OPT (GS)).

    Row i less its projection on the rows before it, normalized. Equal to Q^T of ``w^T = Q R`` with a positive
    diagonal of R. Where row i depends on the rows before it, the result is still orthogonal and row i one of
    the unit vectors that complete it.

    Args:
        w: ``[..., n, n]``, float32 or float64.

    Returns:
        ``[..., n, n]`` of the same dtype, orthogonal to 10 n eps.
    """
    return _transpose(_qr(_transpose(w)))


def _gram_schmidt_product(w: tf.Tensor, neurons: tf.Tensor) -> tf.Tensor:
    """Returns ``gram_schmidt(w) @ neurons``, ``[..., n, c]``."""
    return tf.matmul(_qr(_transpose(w)), neurons, transpose_a=True)


gram_schmidt.product = _gram_schmidt_product
