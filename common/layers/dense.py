"""OrthogonalDense: a densely connected layer that rotates its neurons."""

from collections.abc import Sequence

import keras
import tensorflow as tf

from ..orthogonal import Map, gram_schmidt
from .base import OrthogonalLayer, passed_on


@keras.saving.register_keras_serializable(package="opt")
class OrthogonalDense(OrthogonalLayer):
    """A densely connected layer whose kernel is ``map(rotation) @ fix``, ``[n, units]``.

    n is the size of the input's last axis. Use it like `keras.layers.Dense`; the arguments have the
    same names. Inputs are ``[batch, ..., n]``, outputs ``[batch, ..., units]``, both of the layer's
    compute dtype.

    Args:
        units: number of neurons.
        activation, use_bias: as in Keras.
        kernel_initializer: for ``fix``, ``[n, units]``. Defaults to He's: variance 2 / n.
        bias_initializer, bias_regularizer, activity_regularizer: as in Keras.
        orthogonalize: the map, a callable ``[n, n] -> [n, n]``. Defaults to `gram_schmidt`.
        rotation_initializer: for ``rotation``, ``[n, n]``. Defaults to N(0, 1).
        rotation_regularizer: for ``rotation``. Defaults to none.
        learn_neurons: whether ``fix`` is trained too; the energy is then not constant. Defaults to
            False.
        check_map: whether a map of your own is tried when the layer is built, on a small random
            matrix, and refused where its result is not orthogonal. Defaults to True.
        block_size: None, or b of 2 or more: the n rows of ``fix`` are split into blocks of b, and a
            last smaller one where b does not divide n. Each has a small rotation of its own:
            ``rotation`` is then ``[n // b, b, b]``. Neurons' lengths and angles, and so the energy,
            are kept as by one rotation, but rows of different blocks are never mixed. A b of n or
            more is as None. Defaults to None: one rotation of all rows.

    Raises:
        ValueError: if ``units`` is not positive or ``orthogonalize`` is not callable.
    """

    def __init__(
        self,
        units: int,
        activation=None,
        use_bias: bool = True,
        kernel_initializer=None,
        bias_initializer="zeros",
        *,
        bias_regularizer=None,
        activity_regularizer=None,
        orthogonalize: Map = gram_schmidt,
        rotation_initializer=None,
        rotation_regularizer=None,
        learn_neurons: bool = False,
        check_map: bool = True,
        block_size: int | None = None,
        **kwargs,
    ):
        super().__init__(**passed_on(locals()))
        self.input_spec = keras.layers.InputSpec(min_ndim=2)
        self.supports_masking = True  # as Dense's: a mask of [batch, ...] fits the outputs too

    def build(self, input_shape: Sequence[int | None]) -> None:
        features = input_shape[-1]
        if features is None:
            raise ValueError(f"the last axis of the input must be known, not {input_shape}")
        self.input_spec = keras.layers.InputSpec(min_ndim=2, axes={-1: features})
        self.build_weights(1, features)

    @property
    def kernel(self) -> tf.Tensor:
        """The current kernel, ``[n, units]``."""
        return self.neurons()

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        outputs = keras.ops.matmul(inputs, tf.cast(self.neurons_of_this_pass(), self.compute_dtype))
        if self.bias is not None:
            outputs = outputs + self.bias
        return self.activation(outputs)

    def compute_output_shape(self, input_shape: Sequence[int | None]) -> tuple[int | None, ...]:
        return (*input_shape[:-1], self.units)

    def get_config(self) -> dict:
        return {**super().get_config(), "units": self.units}
