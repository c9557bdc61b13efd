"""Shared by the maps: checks of arguments, precision, and products that do not use TF32."""

import functools
import math
from collections.abc import Callable

import tensorflow as tf

from ..private import exact_dot, is_compiled_by_xla

Map = Callable[[tf.Tensor], tf.Tensor]


def product(orthogonalize: Map, w: tf.Tensor, neurons: tf.Tensor) -> tf.Tensor:
    """Returns ``orthogonalize(w) @ neurons``, by the map's ``product`` if it has one.

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
    multiply = getattr(orthogonalize, "product", None)
    return multiply(w, neurons) if multiply else matmul(orthogonalize(w), neurons)


def for_square_matrices(function: Callable[..., tf.Tensor]) -> Callable[..., tf.Tensor]:
    """Returns ``function`` with float32 in place of 16 bits, and a check of its first argument."""

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
    """Returns ``a [..., m, k] @ b [..., k, n]`` as `tf.matmul`, but never in TF32.

    Only a graph without XLA, where no operation has a precision, obeys TensorFlow's setting.
    """
    if not (is_compiled_by_xla() or tf.executing_eagerly()):
        return tf.matmul(a, b, transpose_a, transpose_b)
    return _exact_product(transpose(a) if transpose_a else a, transpose(b) if transpose_b else b)


@tf.custom_gradient  # the gradient calls this function, so it can be differentiated again
def _exact_product(a: tf.Tensor, b: tf.Tensor) -> tuple[tf.Tensor, Callable]:
    def gradient(g: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        return _exact_product(g, transpose(b)), _exact_product(transpose(a), g)

    return exact_dot(a, b), gradient


def once_differentiable(function: Callable[..., tuple]) -> Callable[..., tf.Tensor]:
    """Returns `tf.custom_gradient(function)`, with an error for other derivatives than first ones.

    A custom gradient treats values kept from the forward pass as constants, so a second derivative
    would be wrong: it raises NotImplementedError, as does forward mode.
    """

    @functools.wraps(function)
    @tf.custom_gradient
    def outer(*inputs: tf.Tensor) -> tuple[tf.Tensor, Callable]:
        # no tape needs to follow the operations in here
        output, gradient = function(*map(tf.stop_gradient, inputs))

        # the inputs are arguments too, so that a derivative with respect to them is noticed
        @tf.custom_gradient
        def guarded(upstream: tf.Tensor, *_: tf.Tensor) -> tuple:
            def refuse(*_):
                raise NotImplementedError(
                    "an orthogonal map has neither second derivatives nor forward-mode ones here: "
                    "tf.GradientTape gives its first ones, and their differences approximate others"
                )

            return gradient(upstream), refuse

        return output, lambda upstream: guarded(upstream, *inputs)

    return outer


def transpose(x: tf.Tensor) -> tf.Tensor:
    """Returns the transpose of each matrix."""
    return tf.linalg.matrix_transpose(x)


def epsilon(dtype: tf.DType) -> float:
    """Returns the distance from 1 to the next larger number, for float32 or float64."""
    return {tf.float32: 2.0**-23, tf.float64: 2.0**-52}[dtype]


def scale_invariant(*axes: int) -> Callable[[Callable], Callable]:
    """Returns a decorator for a map that positive factors do not change.

    Its first argument is multiplied by powers of two that bring the largest entries near 1, so that
    no square overflows or underflows. The largest entry is taken over ``axes``: -1 for a factor of
    each row, -2 for one of each column.
    """

    def decorator(function: Callable[..., tf.Tensor]) -> Callable[..., tf.Tensor]:
        @functools.wraps(function)
        def scaled(w: tf.Tensor, *neurons: tf.Tensor) -> tf.Tensor:
            return function(multiplied(w), *neurons)

        return scaled

    @tf.custom_gradient
    def multiplied(w: tf.Tensor) -> tuple[tf.Tensor, Callable]:
        p = _reciprocal_power_of_two(tf.reduce_max(tf.abs(w), axis=axes, keepdims=True))
        return w * p, lambda g: tf.clip_by_value(g * p, g.dtype.min, g.dtype.max)

    return decorator


def _reciprocal_power_of_two(x: tf.Tensor) -> tf.Tensor:
    """Returns p, a power of two, with p x from 1 to 2, or to 4 for the largest x; 0 for 0."""
    integer, most = {tf.float32: (tf.int32, 2.0**126), tf.float64: (tf.int64, 2.0**1022)}[x.dtype]
    exponent = tf.bitcast(tf.constant(math.inf, x.dtype), integer)  # the bits of all exponents
    power = tf.bitcast(tf.bitwise.bitwise_and(tf.bitcast(x, integer), exponent), x.dtype)
    # larger ones have no reciprocal; and TensorFlow's optimizer makes that of `/` inexact
    return tf.math.divide_no_nan(tf.ones_like(x), tf.minimum(power, most))


def noise(w: tf.Tensor) -> tf.Tensor:
    """Returns a matrix of the size and dtype of ``w``, of numbers in [-1, 1), always the same."""
    return tf.random.stateless_uniform(tf.shape(w)[-2:], [0, 0], -1, 1, w.dtype)


def disturbed(w: tf.Tensor) -> tf.Tensor:
    """Returns ``w`` in float64, with noise of 2^-50; its largest entries are near 1.

    Without noise the factors of a ``w`` with equal columns would not be orthogonal.
    """
    wide = tf.cast(w, tf.float64)
    return wide + 2.0**-50 * noise(wide)


def vanishes_squared(error: tf.Tensor, n: int | tf.Tensor) -> tf.Tensor:
    """Returns whether the square of each ``error [..., m, m]`` is below n eps, ``[...]``."""
    limit = tf.sqrt(tf.cast(n, error.dtype) * epsilon(error.dtype))
    return tf.norm(error, axis=[-2, -1]) <= limit


def with_padded_rows(rotate: Callable[..., tf.Tensor]) -> Callable[..., tf.Tensor]:
    """Returns ``rotate`` with blockdiag(I, w) for a w whose rows are a multiple of 1 KiB long.

    Such rows compete for the same cache lines; Eigen's factorizations take up to twice as long.
    """

    @functools.wraps(rotate)
    def padded(w: tf.Tensor, *neurons: tf.Tensor) -> tf.Tensor:
        n, more = w.shape[-1] if w.shape.rank else None, 16
        if n is None or n < 512 or n % 256 or is_compiled_by_xla():
            return rotate(w, *neurons)
        batch = [[0, 0]] * (w.shape.rank - 2)
        top = tf.eye(more, n + more, batch_shape=tf.shape(w)[:-2], dtype=w.dtype)
        larger = tf.concat([top, tf.pad(w, [*batch, [0, 0], [more, 0]])], axis=-2)
        result = rotate(larger, *(tf.pad(f, [*batch, [more, 0], [0, 0]]) for f in neurons))
        return result[..., more:, :] if neurons else result[..., more:, more:]

    return padded
