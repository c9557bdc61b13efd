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

import tensorflow as tf

from .cayley import cayley
from .matrices import Map, matmul, product
from .polar import lowdin
from .qr import gram_schmidt, householder

__all__ = [
    "Map",
    "cayley",
    "gram_schmidt",
    "householder",
    "identity",
    "lowdin",
    "matmul",
    "product",
]


def identity(w: tf.Tensor) -> tf.Tensor:
    """Returns ``w`` itself, for OPT (OGD), whose optimizer keeps it orthogonal, and OPT (OR), whose loss does."""
    return tf.convert_to_tensor(w)
