"""Maps from square matrices to orthogonal ones, and their products with thin matrices.

A map takes ``w [..., n, n]`` and returns an orthogonal matrix of the same shape and dtype. Its
attribute ``product`` takes ``w`` and ``neurons [..., n, c]`` and returns ``map(w) @ neurons``,
as a layer needs it. Any other callable ``[..., n, n] -> [..., n, n]`` can be used as a map:
:func:`product` then computes the matrix and multiplies.

All are pure functions of tensors: batched, differentiable once, and traceable with and without XLA.
They take float32 and float64. float16 and bfloat16 are too inaccurate for this: they are computed
in float32, and only the result is rounded. The error of orthogonality, max |Q^T Q - I|, is at most
10 n eps for every finite ``w``, of any scale and condition. But Q itself is no more exact than the
condition allows. In float32 and float64 gradients are finite: one that is too large is the largest
number, or 0 where its sign is lost. Numbers below the dtype's least normal one count as 0.

On recent GPUs TensorFlow multiplies float32 matrices in TF32, in which a map is orthogonal to three
digits only. The products here (`matmul`) do not use it, under XLA and in eager code. In a graph
without XLA they do: on a GPU first call
``tf.config.experimental.enable_tensor_float_32_execution(False)``.
"""

import tensorflow as tf

from .cayley import cayley
from .matrices import Map as Map
from .matrices import matmul as matmul
from .matrices import product as product
from .polar import lowdin
from .qr import gram_schmidt, householder


def identity(w: tf.Tensor) -> tf.Tensor:
    """Returns ``w`` unchanged, as a tensor of the same shape and dtype.

    For OPT (OGD), whose optimizer keeps rotations orthogonal, and OPT (OR), whose loss does.
    """
    return tf.convert_to_tensor(w)


ALL = (gram_schmidt, householder, lowdin, cayley, identity)  # the maps
