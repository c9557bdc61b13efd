"""S-OPT's layers, which rotate some of their neurons' rows at a time."""

from collections.abc import Sequence

import keras
import numpy as np
import tensorflow as tf

from .. import orthogonal
from ..orthogonal import Map, gram_schmidt
from .base import OrthogonalLayer
from .convolution import OrthogonalConv2D
from .dense import OrthogonalDense


class _Stochastic(OrthogonalLayer):
    """A layer that rotates some of its neurons' rows at a time: stochastic OPT (Liu et al., CVPR 2021).

    A small rotation turns the ``r = area * max(1, round(rotated_fraction * channels))`` rows of ``fix`` that
    ``indices [r]`` names, in that order; the other rows stay. After an episode of training `merge` writes the turned
    rows into ``fix`` for good, and `restart` returns the rotation to I and takes up other rows. Any map will do.

    Weights: those of the layer that it is mixed into, and
        indices: int32 ``[r]``, not trained. Drawn at random at first.
    """

    def _set_fraction(self, rotated_fraction: float) -> None:
        if not 0 < rotated_fraction <= 1:
            raise ValueError(f"`rotated_fraction` must lie in (0, 1], not {rotated_fraction}")
        self.rotated_fraction = rotated_fraction

    def _rotated_rows(self, area: int, channels: int) -> int:
        return area * max(1, round(self.rotated_fraction * channels))

    def build_weights(self, area: int, channels: int) -> None:
        super().build_weights(area, channels)

        def draw(shape, dtype=None):
            rows = keras.random.shuffle(keras.ops.arange(area * channels, dtype="int32"))
            return rows[: shape[0]]

        self.indices = self.add_weight(
            name="indices",
            shape=self.rotation.shape[:1],
            dtype="int32",
            initializer=draw,
            trainable=False,
            autocast=False,
        )

    def neurons(self) -> tf.Tensor:
        rows = tf.gather(self.fix.value, self.indices.value)
        turned = orthogonal.product(self.orthogonalize, self.rotation.value, rows)
        return tf.tensor_scatter_nd_update(
            self.fix.value, self.indices.value[:, tf.newaxis], turned
        )

    def merge(self) -> None:
        """Writes the turned rows into ``fix``. The layer is itself again only after `restart`."""
        self.fix.assign(self.neurons())

    def restart(self, indices: Sequence[int]) -> None:
        """Returns the rotation to I and takes up the rows ``indices [r]``, r different ones.

        Where map(I) is not I (Householder's, in even dimensions), the rows in ``fix`` take up the difference, so that
        the neurons stay as they are.
        """
        if len(np.unique(indices)) != self.rotation.shape[0]:
            raise ValueError(
                f"{self.rotation.shape[0]} different rows must be named, not {indices}"
            )
        self.rotation.assign(tf.eye(self.rotation.shape[0], dtype=self.rotation.dtype))
        self.indices.assign(indices)
        start = self.orthogonalize(self.rotation.value)
        rows = tf.matmul(start, tf.gather(self.fix.value, indices), transpose_a=True)
        self.fix.assign(
            tf.tensor_scatter_nd_update(self.fix.value, tf.expand_dims(indices, 1), rows)
        )

    def get_config(self) -> dict:
        return {**super().get_config(), "rotated_fraction": self.rotated_fraction}


@keras.saving.register_keras_serializable(package="opt")
class StochasticOrthogonalConv2D(_Stochastic, OrthogonalConv2D):
    """`OrthogonalConv2D` that rotates some of its neurons' rows at a time (S-OPT).

    Args:
        rotated_fraction: how much of the input channels is rotated at a time. Defaults to the
            original's 0.25.
        rotation_initializer: of ``rotation``, ``[r, r]``. Defaults to I.

    The other arguments are those of `OrthogonalConv2D`.
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
        orthogonalize: Map = gram_schmidt,
        rotation_initializer="identity",
        rotation_regularizer=None,
        learn_neurons: bool = False,
        rotated_fraction: float = 0.25,
        **kwargs,
    ):
        super().__init__(
            filters,
            kernel_size,
            strides,
            padding,
            data_format,
            dilation_rate,
            groups,
            activation=activation,
            use_bias=use_bias,
            kernel_initializer=kernel_initializer,
            bias_initializer=bias_initializer,
            bias_regularizer=bias_regularizer,
            activity_regularizer=activity_regularizer,
            orthogonalize=orthogonalize,
            rotation_initializer=rotation_initializer,
            rotation_regularizer=rotation_regularizer,
            learn_neurons=learn_neurons,
            **kwargs,
        )
        self._set_fraction(rotated_fraction)


@keras.saving.register_keras_serializable(package="opt")
class StochasticOrthogonalDense(_Stochastic, OrthogonalDense):
    """`OrthogonalDense` that rotates some of its neurons' rows at a time (S-OPT).

    Args:
        rotated_fraction: how much of the last axis is rotated at a time. Defaults to the
            original's 0.25.
        rotation_initializer: of ``rotation``, ``[r, r]``. Defaults to I.

    The other arguments are those of `OrthogonalDense`.
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
        rotation_initializer="identity",
        rotation_regularizer=None,
        learn_neurons: bool = False,
        rotated_fraction: float = 0.25,
        **kwargs,
    ):
        super().__init__(
            units,
            activation=activation,
            use_bias=use_bias,
            kernel_initializer=kernel_initializer,
            bias_initializer=bias_initializer,
            bias_regularizer=bias_regularizer,
            activity_regularizer=activity_regularizer,
            orthogonalize=orthogonalize,
            rotation_initializer=rotation_initializer,
            rotation_regularizer=rotation_regularizer,
            learn_neurons=learn_neurons,
            **kwargs,
        )
        self._set_fraction(rotated_fraction)
