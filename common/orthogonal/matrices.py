"""What the maps share: checks of arguments, precision, and products that never use TF32."""

import functools
from collections.abc import Callable

import tensorflow as tf

from ..private import exact_dot, is_compiled_by_xla

Map = Callable[[tf.Tensor], tf.Tensor]


def product(orthogonalize: Map, w: tf.Tensor, neurons: tf.Tensor) -> tf.Tensor:
    """Returns ``orthogonalize(w) @ neurons``, by the map's own ``product`` if it has one.

    Args:
        orthogonalize: a map of this package, or any callable ``[..., n, n] -> [..., n, n]``.
        w: ``[..., n, n]``, of a floating-point dtype.
        neurons: ``[..., n, c]``, of the dtype of ``w``.

    Returns:
        ``[..., n, c]``, of the same dtype.

    Raises:
        ValueError: from this package's maps other than `identity`, if ``w`` is not a batch of
            square matrices of a floating-point dtype.
    """
    own = getattr(orthogonalize, "product", None)
    return own(w, neurons) if own is not None else matmul(orthogonalize(w), neurons)


def for_square_matrices(function: Callable[..., tf.Tensor]) -> Callable[..., tf.Tensor]:
    """Returns ``function`` with a check of its arguments, and float32 in place of 16 bits.

    The new function raises ValueError if its first argument is not a batch of square matrices of a
    floating-point dtype. It casts float16 and bfloat16 to float32, and the result back.
    """

    @functools.wraps(function)
    def checked(*arguments: tf.Tensor) -> tf.Tensor:
        tensors = [tf.convert_to_tensor(argument) for argument in arguments]
        dtype, shape = tensors[0].dtype, tensors[0].shape
        if not dtype.is_floating:
            raise ValueError(f"a map takes floating-point matrices, not {dtype.name}")
        if shape.rank is not None and (
            shape.rank < 2 or not shape[-1:].is_compatible_with(shape[-2:-1])
        ):
            raise ValueError(f"a map takes square matrices, not {shape}")
        wide = dtype if dtype in (tf.float32, tf.float64) else tf.float32
        return tf.cast(function(*(tf.cast(t, wide) for t in tensors)), dtype)

    return checked


def matmul(
    a: tf.Tensor, b: tf.Tensor, *, transpose_a: bool = False, transpose_b: bool = False
) -> tf.Tensor:
    """Returns the product of ``a [..., m, k]`` and ``b [..., k, n]``, ``[..., m, n]``.

    As `tf.matmul`, but under XLA it never uses TF32. The dtype is that of ``a`` and ``b``.
    """
    if not is_compiled_by_xla():
        return tf.matmul(a, b, transpose_a, transpose_b)
    return _exact_product(transpose(a) if transpose_a else a, transpose(b) if transpose_b else b)


@tf.custom_gradient  # the gradient calls this function, so it can be differentiated again
def _exact_product(a: tf.Tensor, b: tf.Tensor) -> tuple[tf.Tensor, Callable]:
    def gradient(g: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        return _exact_product(g, transpose(b)), _exact_product(transpose(a), g)

    return exact_dot(a, b), gradient


def once_differentiable(function: Callable[..., tuple]) -> Callable[..., tf.Tensor]:
    """Returns `tf.custom_gradient(function)`, with an error for second derivatives.

    A custom gradient treats values kept from the forward pass as constants. A second derivative
    would miss their part and be wrong, without a word. So it raises NotImplementedError instead.
    """

    @functools.wraps(function)
    @tf.custom_gradient
    def outer(*inputs: tf.Tensor) -> tuple[tf.Tensor, Callable]:
        # no tape needs to follow what is done in here
        output, gradient = function(*map(tf.stop_gradient, inputs))

        # the inputs are arguments too, so that a derivative with respect to them is noticed
        @tf.custom_gradient
        def guarded(upstream: tf.Tensor, *_: tf.Tensor) -> tuple:
            def refuse(*_):
                raise NotImplementedError("an orthogonal map has no second derivative here")

            return gradient(upstream), refuse

        return output, lambda upstream: guarded(upstream, *inputs)

    return outer


def transpose(x: tf.Tensor) -> tf.Tensor:
    """Returns the transpose of each matrix."""
    return tf.linalg.matrix_transpose(x)


def epsilon(dtype: tf.DType) -> float:
    """Returns the distance from 1 to the next larger number, for float32 or float64."""
    return {tf.float32: 2.0**-23, tf.float64: 2.0**-52}[dtype]


def largest(x: tf.Tensor) -> tf.Tensor:
    """Returns max |x| of each matrix, ``[..., 1, 1]``, to divide by: 1 for a matrix of zeros."""
    most = tf.reduce_max(tf.abs(x), axis=[-2, -1], keepdims=True)
    return tf.where(most > 0, most, tf.ones_like(most))


def vanishes_squared(error: tf.Tensor, n: int | tf.Tensor) -> tf.Tensor:
    """Returns whether the square of each ``error [..., m, m]`` is small beside n eps, ``[...]``.

    For an iteration that squares its error: whether one more step is enough for n rows.
    """
    limit = tf.sqrt(tf.cast(n, error.dtype) * epsilon(error.dtype))
    return tf.norm(error, axis=[-2, -1]) <= limit


def with_padded_rows(turned: Callable[..., tf.Tensor]) -> Callable[..., tf.Tensor]:
    """Returns ``turned`` with padding for matrices whose rows are a whole number of KiB long.

    Such rows compete for the same cache lines, and Eigen's factorizations then take up to twice as
    long. A map takes blockdiag(c I, w) to blockdiag(I, map(w)), whose last block is the result. c
    is the largest entry of ``w``, so that ``w`` loses no accuracy beside it.
    """

    @functools.wraps(turned)
    def padded(w: tf.Tensor, *neurons: tf.Tensor) -> tf.Tensor:
        n, more = w.shape[-1] if w.shape.rank else None, 16
        if n is None or n < 512 or n % 256 or is_compiled_by_xla():
            return turned(w, *neurons)
        batch = [[0, 0]] * (w.shape.rank - 2)
        top = tf.stop_gradient(largest(w)) * tf.eye(more, n + more, dtype=w.dtype)
        whole = tf.concat([top, tf.pad(w, [*batch, [0, 0], [more, 0]])], axis=-2)
        result = turned(whole, *(tf.pad(f, [*batch, [more, 0], [0, 0]]) for f in neurons))
        return result[..., more:, :] if neurons else result[..., more:, more:]

    return padded
