"""Keras layers whose kernel is a rotation of fixed random neurons, and the original's batch normalization."""

from collections.abc import Callable, Sequence

import keras
import numpy as np
import tensorflow as tf
from keras.src.backend.common import global_state

from common import orthogonal

# so that a saved model names its map; loading it needs only the import of this module
for _map in (orthogonal.gram_schmidt, orthogonal.householder, orthogonal.lowdin, orthogonal.cayley, orthogonal.identity):
    keras.saving.register_keras_serializable(package="opt")(_map)


def he_normal() -> keras.initializers.Initializer:
    """Returns the original's initializer: normal with variance 2 / fan_in, not truncated as Keras's He normal is.

    A fresh one each time, since a Keras initializer that is called twice draws the same numbers twice.
    """
    return keras.initializers.VarianceScaling(scale=2.0, mode="fan_in", distribution="untruncated_normal")


class _OrthogonalLayer(keras.layers.Layer):
    """A layer whose kernel is ``map(rotation) @ fix`` (Liu et al., CVPR 2021).

    Weights:
        fix: ``[n, units]``, the neurons as they were drawn, one a column. Trained only with ``learn_neurons``.
        rotation: ``[n, n]``, trained.
        bias: ``[units]``, trained, where the layer has one.

    ``fix`` and ``rotation`` are kept, and the map computed, in float32 (or float64, under that policy), whatever the
    layer computes in: in float16 or bfloat16 no map is orthogonal to any use.
    """

    def __init__(
        self,
        units: int,
        orthogonalize: Callable = orthogonal.gram_schmidt,
        activation=None,
        use_bias: bool = True,
        kernel_initializer=None,
        rotation_initializer=None,
        bias_initializer="zeros",
        rotation_regularizer=None,
        bias_regularizer=None,
        learn_neurons: bool = False,
        **kwargs,
    ):
        super().__init__(**kwargs)
        if not callable(orthogonalize):
            raise ValueError(f"`orthogonalize` must be a map such as common.orthogonal.gram_schmidt, not {orthogonalize!r}")
        if units <= 0:
            raise ValueError(f"the number of neurons must be positive, not {units}")
        self.units = units
        self.orthogonalize = orthogonalize
        self.activation = keras.activations.get(activation)
        self.use_bias = use_bias
        self.kernel_initializer = keras.initializers.get(kernel_initializer or he_normal())
        initializer = keras.initializers.get(rotation_initializer or keras.initializers.RandomNormal(stddev=1.0))
        # a copy of its own: layers that share an initializer would all draw the same rotation
        self.rotation_initializer = initializer.clone() if hasattr(initializer, "clone") else initializer
        self.bias_initializer = keras.initializers.get(bias_initializer)
        self.rotation_regularizer = keras.regularizers.get(rotation_regularizer)
        self.bias_regularizer = keras.regularizers.get(bias_regularizer)
        self.learn_neurons = learn_neurons

    def _build_weights(self, area: int, channels: int) -> None:
        """Makes the weights of neurons of ``n = area * channels`` entries."""
        precision = "float64" if self.variable_dtype == "float64" else "float32"
        self.fix = self.add_weight(
            name="fix",
            shape=(area * channels, self.units),
            initializer=self.kernel_initializer,
            dtype=precision,
            trainable=self.learn_neurons,
            autocast=False,
        )
        self.rotation = self.add_weight(
            name="rotation",
            shape=(self._rotated_rows(area, channels),) * 2,
            initializer=self.rotation_initializer,
            regularizer=self.rotation_regularizer,
            dtype=precision,
            autocast=False,
        )
        self.bias = None
        if self.use_bias:
            self.bias = self.add_weight(
                name="bias", shape=(self.units,), initializer=self.bias_initializer, regularizer=self.bias_regularizer
            )

    def _rotated_rows(self, area: int, channels: int) -> int:
        return area * channels

    def neurons(self) -> tf.Tensor:
        """Returns ``map(rotation) @ fix``, ``[n, units]``: the neurons as they stand now, one a column."""
        return orthogonal.product(self.orthogonalize, self.rotation.value, self.fix.value)

    def _neurons_of_this_pass(self) -> tf.Tensor:
        """Returns `neurons`, evaluated once in a forward pass however often the layer is called in it.

        A forward pass is the outermost model's call, which Keras knows as its call context; nothing is trained
        within one. The graph is part of the key, since a tensor made inside a loop's body means nothing outside it.
        """
        context = global_state.get_global_attribute("current_call_ctx")
        if context is None or self._remat_mode is not None:
            return self.neurons()
        known = context.get_value("rotated_neurons")
        if known is None:
            known = {}
            context.set_value("rotated_neurons", known)
        key = (id(self), tf.compat.v1.get_default_graph())
        if key not in known:
            known[key] = self.neurons()
        return known[key]

    def get_config(self) -> dict:
        if getattr(self.orthogonalize, "__name__", "<lambda>") == "<lambda>":
            raise ValueError(
                f"the layer {self.name} cannot be saved: its map {self.orthogonalize!r} has no name to be found by. Make it "
                "a function and decorate that with keras.saving.register_keras_serializable()"
            )
        return {
            **super().get_config(),
            "orthogonalize": keras.saving.serialize_keras_object(self.orthogonalize),
            "activation": keras.activations.serialize(self.activation),
            "use_bias": self.use_bias,
            "kernel_initializer": keras.initializers.serialize(self.kernel_initializer),
            "rotation_initializer": keras.initializers.serialize(self.rotation_initializer),
            "bias_initializer": keras.initializers.serialize(self.bias_initializer),
            "rotation_regularizer": keras.regularizers.serialize(self.rotation_regularizer),
            "bias_regularizer": keras.regularizers.serialize(self.bias_regularizer),
            "learn_neurons": self.learn_neurons,
        }

    @classmethod
    def from_config(cls, config: dict):
        config = dict(config)
        config["orthogonalize"] = keras.saving.deserialize_keras_object(config["orthogonalize"])
        return cls(**config)


def _pair(value: int | Sequence[int], name: str) -> tuple[int, int]:
    pair = (value, value) if isinstance(value, int) else tuple(value)
    if len(pair) != 2 or not all(isinstance(v, int) and v > 0 for v in pair):
        raise ValueError(f"`{name}` must be a positive integer or two of them, not {value!r}")
    return pair


@keras.saving.register_keras_serializable(package="opt")
class OrthogonalConv2D(_OrthogonalLayer):
    """A 2D convolution with kernel ``reshape(map(rotation) @ fix, [*kernel_size, c_in // groups, filters])``.

    A neuron is one filter, flattened: ``n = kernel_height * kernel_width * c_in // groups``. All groups'
    filters lie in the same n-dimensional space and are turned by the one rotation. Used like
    `keras.layers.Conv2D`, whose argument names it keeps.

    Args:
        filters: number of neurons.
        kernel_size: an integer or two of them.
        strides: an integer or two of them. Defaults to 1.
        padding: "valid" or "same". Defaults to "valid".
        dilation_rate: an integer or two of them. Defaults to 1; not together with strides over 1.
        groups: number of groups of channels, a divisor of ``filters`` and of the input's channels. Defaults to 1.
        orthogonalize: the map, a callable ``[n, n] -> [n, n]``. Defaults to `gram_schmidt`.
        kernel_initializer: of ``fix``, ``[n, filters]``. Defaults to He's: variance 2 / n.
        rotation_initializer: of ``rotation``, ``[n, n]``. Defaults to N(0, 1).
        learn_neurons: whether ``fix`` is trained as well, which gives up the constant energy. Defaults to False.
        activation, use_bias, bias_initializer, rotation_regularizer, bias_regularizer: as in Keras.

    Raises:
        ValueError: for arguments that fit no convolution.
    """

    def __init__(
        self,
        filters: int,
        kernel_size: int | Sequence[int],
        strides: int | Sequence[int] = 1,
        padding: str = "valid",
        dilation_rate: int | Sequence[int] = 1,
        groups: int = 1,
        **kwargs,
    ):
        super().__init__(units=filters, **kwargs)
        self.filters = filters
        self.kernel_size = _pair(kernel_size, "kernel_size")
        self.strides = _pair(strides, "strides")
        self.dilation_rate = _pair(dilation_rate, "dilation_rate")
        self.padding = padding.lower()
        self.groups = groups
        if self.padding not in ("valid", "same"):
            raise ValueError(f'`padding` must be "valid" or "same", not {padding!r}')
        if max(self.strides) > 1 and max(self.dilation_rate) > 1:
            raise ValueError(f"strides {self.strides} and dilation_rate {self.dilation_rate} cannot both exceed 1")
        if groups < 1 or filters % groups:
            raise ValueError(f"{filters} filters cannot be split into {groups} groups")
        self.input_spec = keras.layers.InputSpec(ndim=4)

    def build(self, input_shape: Sequence[int | None]) -> None:
        channels = input_shape[-1]
        if channels is None or channels % self.groups:
            raise ValueError(f"{channels} input channels cannot be split into {self.groups} groups")
        self.kernel_shape = (*self.kernel_size, channels // self.groups, self.filters)
        self.input_spec = keras.layers.InputSpec(ndim=4, axes={-1: channels})
        self._build_weights(self.kernel_size[0] * self.kernel_size[1], channels // self.groups)

    @property
    def kernel(self) -> tf.Tensor:
        """The convolution's kernel as it stands now, ``[*kernel_size, c_in // groups, filters]``."""
        return tf.reshape(self.neurons(), self.kernel_shape)

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        kernel = tf.reshape(self._neurons_of_this_pass(), self.kernel_shape)
        outputs = keras.ops.conv(
            inputs,
            tf.cast(kernel, self.compute_dtype),
            strides=self.strides,
            padding=self.padding,
            data_format="channels_last",
            dilation_rate=self.dilation_rate,
        )
        if self.bias is not None:
            outputs = outputs + self.bias
        return self.activation(outputs)

    def compute_output_shape(self, input_shape: Sequence[int | None]) -> tuple[int | None, ...]:
        def length(size, kernel, stride, dilation):
            if size is None:
                return None
            reach = 0 if self.padding == "same" else dilation * (kernel - 1)
            return (size - reach - 1) // stride + 1

        spatial = map(length, input_shape[1:3], self.kernel_size, self.strides, self.dilation_rate)
        return (input_shape[0], *spatial, self.filters)

    def get_config(self) -> dict:
        return {
            **super().get_config(),
            "filters": self.filters,
            "kernel_size": self.kernel_size,
            "strides": self.strides,
            "padding": self.padding,
            "dilation_rate": self.dilation_rate,
            "groups": self.groups,
        }


@keras.saving.register_keras_serializable(package="opt")
class OrthogonalDense(_OrthogonalLayer):
    """A densely connected layer with kernel ``map(rotation) @ fix``, ``[n, units]``, n the size of the last axis.

    Used like `keras.layers.Dense`, whose argument names it keeps.

    Args:
        units: number of neurons.
        orthogonalize: the map, a callable ``[n, n] -> [n, n]``. Defaults to `gram_schmidt`.
        kernel_initializer: of ``fix``, ``[n, units]``. Defaults to He's: variance 2 / n.
        rotation_initializer: of ``rotation``, ``[n, n]``. Defaults to N(0, 1).
        learn_neurons: whether ``fix`` is trained as well, which gives up the constant energy. Defaults to False.
        activation, use_bias, bias_initializer, rotation_regularizer, bias_regularizer: as in Keras.
    """

    def __init__(self, units: int, **kwargs):
        super().__init__(units=units, **kwargs)
        self.input_spec = keras.layers.InputSpec(min_ndim=2)

    def build(self, input_shape: Sequence[int | None]) -> None:
        self.input_spec = keras.layers.InputSpec(min_ndim=2, axes={-1: input_shape[-1]})
        self._build_weights(1, input_shape[-1])

    @property
    def kernel(self) -> tf.Tensor:
        """The layer's kernel as it stands now, ``[n, units]``."""
        return self.neurons()

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        outputs = keras.ops.matmul(inputs, tf.cast(self._neurons_of_this_pass(), self.compute_dtype))
        if self.bias is not None:
            outputs = outputs + self.bias
        return self.activation(outputs)

    def compute_output_shape(self, input_shape: Sequence[int | None]) -> tuple[int | None, ...]:
        return (*input_shape[:-1], self.units)

    def get_config(self) -> dict:
        return {**super().get_config(), "units": self.units}


class _Stochastic(_OrthogonalLayer):
    """A layer that rotates some of its neurons' rows at a time: stochastic OPT (Liu et al., CVPR 2021).

    A small rotation turns the ``r = area * max(1, round(rotated_fraction * channels))`` rows of ``fix`` that
    ``indices [r]`` names, in that order; the other rows stay. After an episode of training `merge` writes the turned
    rows into ``fix`` for good, and `restart` returns the rotation to I and takes up other rows. Any map will do.

    Weights: those of the layer that it is mixed into, and
        indices: int32 ``[r]``, not trained. Drawn at random at first.
    """

    def __init__(self, *args, rotated_fraction: float = 0.25, rotation_initializer="identity", **kwargs):
        super().__init__(*args, rotation_initializer=rotation_initializer, **kwargs)
        if not 0 < rotated_fraction <= 1:
            raise ValueError(f"`rotated_fraction` must lie in (0, 1], not {rotated_fraction}")
        self.rotated_fraction = rotated_fraction

    def _rotated_rows(self, area: int, channels: int) -> int:
        return area * max(1, round(self.rotated_fraction * channels))

    def _build_weights(self, area: int, channels: int) -> None:
        super()._build_weights(area, channels)

        def draw(shape, dtype=None):
            rows = keras.random.shuffle(keras.ops.arange(area * channels, dtype="int32"))
            return rows[: shape[0]]

        self.indices = self.add_weight(
            name="indices", shape=self.rotation.shape[:1], dtype="int32", initializer=draw, trainable=False, autocast=False
        )

    def neurons(self) -> tf.Tensor:
        rows = tf.gather(self.fix.value, self.indices.value)
        turned = orthogonal.product(self.orthogonalize, self.rotation.value, rows)
        return tf.tensor_scatter_nd_update(self.fix.value, self.indices.value[:, tf.newaxis], turned)

    def merge(self) -> None:
        """Writes the turned rows into ``fix``. The layer is itself again only after `restart`."""
        self.fix.assign(self.neurons())

    def restart(self, indices: Sequence[int]) -> None:
        """Returns the rotation to I and takes up the rows ``indices [r]``, r different ones.

        Where map(I) is not I (Householder's, in even dimensions), the rows in ``fix`` take up the difference, so that
        the neurons stay as they are.
        """
        if len(np.unique(indices)) != self.rotation.shape[0]:
            raise ValueError(f"{self.rotation.shape[0]} different rows must be named, not {indices}")
        self.rotation.assign(tf.eye(self.rotation.shape[0], dtype=self.rotation.dtype))
        self.indices.assign(indices)
        start = self.orthogonalize(self.rotation.value)
        rows = tf.matmul(start, tf.gather(self.fix.value, indices), transpose_a=True)
        self.fix.assign(tf.tensor_scatter_nd_update(self.fix.value, tf.expand_dims(indices, 1), rows))

    def get_config(self) -> dict:
        return {**super().get_config(), "rotated_fraction": self.rotated_fraction}


@keras.saving.register_keras_serializable(package="opt")
class StochasticOrthogonalConv2D(_Stochastic, OrthogonalConv2D):
    """`OrthogonalConv2D` that rotates some of its neurons' rows at a time (S-OPT).

    Args:
        rotated_fraction: how much of the input channels is rotated at a time. Defaults to the original's 0.25.
        **kwargs: as in `OrthogonalConv2D`.
    """


@keras.saving.register_keras_serializable(package="opt")
class StochasticOrthogonalDense(_Stochastic, OrthogonalDense):
    """`OrthogonalDense` that rotates some of its neurons' rows at a time (S-OPT).

    Args:
        rotated_fraction: how much of the last axis is rotated at a time. Defaults to the original's 0.25.
        **kwargs: as in `OrthogonalDense`.
    """


@keras.saving.register_keras_serializable(package="opt")
class BatchNormalization(keras.layers.BatchNormalization):
    """Batch normalization with the original's averages, debiased at inference.

    The averages of mean and (biased) variance start at zero, as the original's do. After t training steps they
    hold ``1 - momentum^t`` of what they estimate, so that with momentum 0.999 the original's first evaluations
    mean nothing. Here inference divides them by that weight, which changes nothing late in training.

    Args:
        momentum: decay of the averages a step. Defaults to 0.999.
        debias: whether inference divides by ``1 - momentum^t``; False gives the original's raw averages.
            Defaults to True.
        **kwargs: as in `keras.layers.BatchNormalization`.
    """

    def __init__(self, momentum: float = 0.999, debias: bool = True, moving_variance_initializer="zeros", **kwargs):
        super().__init__(momentum=momentum, moving_variance_initializer=moving_variance_initializer, **kwargs)
        if kwargs.get("renorm"):
            raise ValueError("batch renormalization keeps other averages, which this layer does not debias")
        self.debias = debias

    def build(self, input_shape: Sequence[int | None]) -> None:
        super().build(input_shape)
        # momentum^t, the weight of the zeros that the averages started from
        self.start_weight = self.add_weight(name="start_weight", shape=(), initializer="ones", trainable=False, autocast=False)

    def averages(self) -> tuple[tf.Tensor, tf.Tensor]:
        """Returns the mean and variance that inference uses, each ``[channels]``; 0 and 1 before any training."""
        mean, variance = self.moving_mean.value, self.moving_variance.value
        if not self.debias:
            return mean, variance
        weight = 1.0 - self.start_weight.value
        untrained = weight <= 0
        safe = tf.where(untrained, tf.ones_like(weight), weight)
        return mean / safe, tf.where(untrained, tf.ones_like(variance), variance / safe)

    def call(self, inputs: tf.Tensor, training: bool | None = None, mask: tf.Tensor | None = None) -> tf.Tensor:
        if not (training and self.trainable):
            mean, variance = self.averages()
            outputs = keras.ops.batch_normalization(
                tf.cast(inputs, mean.dtype), mean, variance, self.axis, self.beta, self.gamma, self.epsilon
            )
            return tf.cast(outputs, self.compute_dtype)
        self.start_weight.assign(self.start_weight * self.momentum)
        if self._fusible(inputs, mask):
            return self._normalize_fused(inputs)
        return super().call(inputs, training=True, mask=mask)

    def _fusible(self, inputs: tf.Tensor, mask: tf.Tensor | None) -> bool:
        return (
            inputs.shape.rank == 4
            and self.axis in (-1, 3)
            and self.scale
            and self.center
            and mask is None
            and not self.synchronized
            and self.gamma.dtype == "float32"
        )

    def _normalize_fused(self, inputs: tf.Tensor) -> tf.Tensor:
        """Returns the batch normalized by TensorFlow's fused kernel; a training step is a fifth shorter with it."""
        outputs, mean, variance, *_ = tf.raw_ops.FusedBatchNormV3(
            x=inputs,
            scale=self.gamma.value,
            offset=self.beta.value,
            mean=tf.zeros([0]),
            variance=tf.zeros([0]),
            epsilon=self.epsilon,
        )
        # the kernel gives the unbiased variance, sum / (count - 1); the original averages the biased one
        count = tf.cast(tf.reduce_prod(tf.shape(inputs)[:3]), variance.dtype)
        variance = variance * (count - 1) / count
        for average, value in ((self.moving_mean, mean), (self.moving_variance, variance)):
            average.assign(average * self.momentum + tf.stop_gradient(value) * (1.0 - self.momentum))
        return outputs

    def get_config(self) -> dict:
        return {**super().get_config(), "debias": self.debias}
