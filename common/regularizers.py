"""Penalties: a kernel's hyperspherical energy, and a rotation's distance from orthogonality."""

import math
import sys
from collections.abc import Callable

import keras
import numpy as np
import tensorflow as tf

from .orthogonal import matmul

POWERS = ("0", "1", "2", "a0", "a1", "a2")
OFFSET = 1e-4  # of the authors' code: added to a neuron's squared length, and to an angle


@keras.saving.register_keras_serializable(package="opt")
class HypersphericalEnergy(keras.regularizers.Regularizer):
    """``weight`` times the mean energy of all pairs of a kernel's neurons (MHE, half-space MHE).

    A kernel ``[..., neurons]`` is reshaped to ``[n, neurons]``, one neuron f_i per column. With:

        c_ij = f_i . f_j / (sqrt(|f_i|^2 + 1e-4) sqrt(|f_j|^2 + 1e-4))

    and ``t = arccos(c) / pi + 1e-4``, the energy of a pair is, for each ``power`` (Liu et al.,
    NeurIPS 2018):

        0: -log(2 - 2 c)    1: (2 - 2 c)^-1/2    2: (2 - 2 c)^-1
        a0: -log(t)         a1: 1 / t            a2: 1 / t^2

    The mean is over the pairs i < j. In half space it is over the pairs of all f_i and -f_i,
    including the pair of f_i and -f_i. A single neuron in full space has no pair; its energy is 0.

    Values and gradients are finite even if neurons are zero, equal or opposite. They are computed
    in float64 for a float64 kernel, and otherwise in float32.

    Args:
        weight: factor of the mean energy, finite and at least 0. Defaults to 1.
        power: "0", "1" or "2" for distances, "a0", "a1" or "a2" for angles. Defaults to "2".
        half_space: whether the opposite of each neuron is added. Defaults to True.

    Raises:
        ValueError: for any other power or weight. When called: for a kernel of fewer than two axes.
    """

    def __init__(self, weight: float = 1.0, power: str | int = "2", half_space: bool = True):
        if str(power) not in POWERS:
            raise ValueError(f"`power` must be one of {', '.join(POWERS)}, not {power!r}")
        if not (isinstance(weight, int | float | np.number) and 0 <= weight <= sys.float_info.max):
            raise ValueError(f"`weight` must be a finite number, 0 or more, not {weight!r}")
        self.weight = float(weight)
        self.power = str(power)
        self.half_space = bool(half_space)

    def __call__(self, kernel: tf.Tensor) -> tf.Tensor:
        """Returns the penalty of ``kernel [..., neurons]``, a scalar of float32 or float64."""
        kernel = tf.convert_to_tensor(kernel)
        if kernel.shape.rank < 2:
            raise ValueError(f"a kernel must have two axes or more, not the shape {kernel.shape}")
        count = kernel.shape[-1]
        neurons = tf.reshape(kernel, [-1, count])
        neurons = tf.cast(neurons, tf.float64 if kernel.dtype == tf.float64 else tf.float32)
        squares = tf.reduce_sum(tf.square(neurons), axis=0) + OFFSET
        units = neurons / tf.sqrt(squares)
        cosines = matmul(units, units, transpose_a=True)
        # 1 - |unit|^2 of each neuron, not computed from c, which may round to 1. 2 - 2 c is
        # |unit_i - unit_j|^2 plus this of both neurons, so at least the sum of the two
        short = OFFSET / squares
        resolution = np.finfo(neurons.dtype.as_numpy_dtype).eps
        floor = tf.maximum(short[:, tf.newaxis] + short, resolution)
        near, far = tf.maximum(2 - 2 * cosines, floor), tf.maximum(2 + 2 * cosines, floor)
        energies = self._of_pairs(near, far)
        # this counts each pair i < j twice, and no neuron with itself
        total = tf.reduce_sum(tf.linalg.set_diag(energies, tf.zeros_like(short)))
        pairs = count * (count - 1)
        if self.half_space:
            # f_i with -f_j for all i and j; -f_i with -f_j has the energy of f_i with f_j
            total += tf.reduce_sum(self._of_pairs(far, near))
            pairs += count**2
        return self.weight * total / max(pairs, 1)

    def _of_pairs(self, near: tf.Tensor, far: tf.Tensor) -> tf.Tensor:
        """Returns each pair's energy, given 2 - 2 c and 2 + 2 c."""
        if self.power.startswith("a"):
            # not arccos(c), which has an infinite derivative at c = 1 and -1
            base = 2 * tf.atan2(tf.sqrt(near), tf.sqrt(far)) / math.pi + OFFSET
            exponent = float(self.power[1])
        else:
            base, exponent = near, float(self.power) / 2
        return base**-exponent if exponent else -tf.math.log(base)

    def get_config(self) -> dict:
        return {"weight": self.weight, "power": self.power, "half_space": self.half_space}


@keras.saving.register_keras_serializable(package="opt")
class OrthogonalityPenalty(keras.regularizers.Regularizer):
    """``factor * |R R^T - I|_F``, which keeps a rotation close to orthogonal (OPT (OR)).

    R is ``[n, n]`` of a floating-point dtype, and the penalty a scalar of that dtype. Of a batch
    ``[..., n, n]`` it is the sum. At an orthogonal R the gradient is 0.

    Args:
        factor: weight of the penalty. Defaults to the original's 0.1.

    Raises:
        ValueError: when called, if R is not square.
    """

    def __init__(self, factor: float = 0.1):
        self.factor = factor

    def __call__(self, rotation: tf.Tensor) -> tf.Tensor:
        rotation = tf.convert_to_tensor(rotation)
        if rotation.shape.rank < 2 or rotation.shape[-2] != rotation.shape[-1]:
            raise ValueError(f"a rotation must be a square matrix, not of shape {rotation.shape}")
        gap = _gram(rotation) - tf.eye(rotation.shape[-1], dtype=rotation.dtype)
        square = tf.reduce_sum(tf.square(gap), axis=[-2, -1])
        away = square > 0
        # without the inner where, sqrt's infinite derivative at 0 would spoil the gradient
        norm = tf.where(away, tf.sqrt(tf.where(away, square, 1.0)), 0.0)
        return self.factor * tf.reduce_sum(norm)

    def get_config(self) -> dict:
        return {"factor": self.factor}


@tf.custom_gradient
def _gram(x: tf.Tensor) -> tuple[tf.Tensor, Callable]:
    """Returns ``x x^T``; its gradient takes one product of matrices, where two are usual."""
    return matmul(x, x, transpose_b=True), lambda g: matmul(g + tf.linalg.matrix_transpose(g), x)
