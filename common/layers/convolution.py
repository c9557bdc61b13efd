"""OrthogonalConv2D: a convolution that rotates its neurons."""

from collections.abc import Sequence

import keras
import tensorflow as tf

from ..orthogonal import Map, gram_schmidt
from .base import OrthogonalLayer, passed_on

# the arguments that no other OPT layer has
OWN = ("filters", "kernel_size", "strides", "padding", "data_format", "dilation_rate", "groups")


def _pair(value: int | Sequence[int], name: str) -> tuple[int, int]:
    pair = (value, value) if isinstance(value, int) else tuple(value)
    if len(pair) != 2 or not all(isinstance(v, int) and v > 0 for v in pair):
        raise ValueError(f"`{name}` must be a positive integer or two of them, not {value!r}")
    return pair


@keras.saving.register_keras_serializable(package="opt")
class OrthogonalConv2D(OrthogonalLayer):
    """A 2D convolution whose kernel is ``map(rotation) @ fix``, reshaped.

    The kernel's shape is ``[*kernel_size, c_in // groups, filters]``. A neuron is one filter,
    flattened: ``n = kernel_height * kernel_width * c_in // groups``. The filters of all groups have
    n entries and share one rotation. Use it like `keras.layers.Conv2D`; the arguments have the same
    names. Inputs are ``[batch, height, width, c_in]``, outputs ``[batch, height', width',
    filters]``, both of the layer's compute dtype.

    Args:
        filters: number of neurons.
        kernel_size: an integer or two of them.
        strides: an integer or two of them. Defaults to 1.
        padding: "valid" or "same". Defaults to "valid".
        data_format: "channels_last". Defaults to Keras's own setting, which must be the same.
        dilation_rate: an integer or two of them. Defaults to 1. Above 1 only with strides of 1.
        groups: number of groups of channels, a divisor of ``filters`` and of c_in. Defaults to 1.
        activation, use_bias: as in Keras.
        kernel_initializer: for ``fix``, ``[n, filters]``. Defaults to He's: variance 2 / n.
        bias_initializer, bias_regularizer, activity_regularizer: as in Keras.
        orthogonalize: the map, a callable ``[n, n] -> [n, n]``, or its name, such as "cayley".
            Defaults to `gram_schmidt`.
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
        ValueError: if an argument is not as above, or, when built, if ``groups`` does not divide
            the input's channels.
    """

    def __init__(
        self,
        filters: int,
        kernel_size: int | Sequence[int],
        strides: int | Sequence[int] = 1,
        padding: str = "valid",
        data_format: str | None = None,
        dilation_rate: int | Sequence[int] = 1,
        groups: int = 1,
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
        super().__init__(filters, **passed_on(locals(), except_for=OWN))
        data_format = data_format or keras.config.image_data_format()
        if data_format != "channels_last":
            raise ValueError(
                f'`data_format` must be "channels_last" in OPT layers, not {data_format!r}'
            )
        self.data_format = data_format
        self.filters = filters
        self.kernel_size = _pair(kernel_size, "kernel_size")
        self.strides = _pair(strides, "strides")
        self.dilation_rate = _pair(dilation_rate, "dilation_rate")
        self.padding = padding.lower()
        self.groups = groups
        if self.padding not in ("valid", "same"):
            raise ValueError(f'`padding` must be "valid" or "same", not {padding!r}')
        if max(self.strides) > 1 and max(self.dilation_rate) > 1:
            raise ValueError(
                f"strides {self.strides} and dilation_rate {self.dilation_rate} "
                "cannot both exceed 1"
            )
        if groups < 1 or filters % groups:
            raise ValueError(f"{filters} filters cannot be split into {groups} groups")
        self.input_spec = keras.layers.InputSpec(ndim=4)

    def build(self, input_shape: Sequence[int | None]) -> None:
        channels = input_shape[-1]
        if channels is None or channels % self.groups:
            raise ValueError(f"{channels} input channels cannot be split into {self.groups} groups")
        self.kernel_shape = (*self.kernel_size, channels // self.groups, self.filters)
        self.input_spec = keras.layers.InputSpec(ndim=4, axes={-1: channels})
        self.build_weights(self.kernel_size[0] * self.kernel_size[1], channels // self.groups)

    @property
    def kernel(self) -> tf.Tensor:
        """The current kernel, ``[*kernel_size, c_in // groups, filters]``."""
        return tf.reshape(self.neurons(), self.kernel_shape)

    compute_output_shape = keras.layers.Conv2D.compute_output_shape

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        kernel = tf.reshape(self.neurons_of_this_pass(), self.kernel_shape)
        outputs = keras.ops.conv(
            inputs,
            tf.cast(kernel, self.compute_dtype),
            strides=self.strides,
            padding=self.padding,
            data_format=self.data_format,
            dilation_rate=self.dilation_rate,
        )
        if self.bias is not None:
            outputs = outputs + self.bias
        return self.activation(outputs)

    def get_config(self) -> dict:
        return {**super().get_config(), **{name: getattr(self, name) for name in OWN}}
