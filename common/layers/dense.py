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
        orthogonalize: the map, a callable ``[n, n] -> [n, n]``, or its name, such as "cayley".
            Defaults to `gram_schmidt`.
        rotation_initializer, rotation_regularizer: for ``rotation``, as in `OrthogonalConv2D`.
        learn_neurons, check_map, block_size: as in `OrthogonalConv2D`.

    Raises:
        ValueError: if ``units`` is not positive or ``orthogonalize`` is neither a map nor the
            name of one.
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
        orthogonalize: Map | str = gram_schmidt,
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
