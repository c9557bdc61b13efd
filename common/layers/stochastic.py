"""S-OPT's layers, which rotate only some of their neurons' rows at a time."""

from collections.abc import Sequence

import keras
import numpy as np
import tensorflow as tf

from ..orthogonal import Map, gram_schmidt
from .base import OrthogonalLayer, passed_on
from .blocks import turned_back
from .convolution import OrthogonalConv2D
from .dense import OrthogonalDense


class _Stochastic(OrthogonalLayer):
    """A layer that rotates only some rows at a time: stochastic OPT (Liu et al., CVPR 2021).

    ``indices [r]`` lists rows of ``fix``, with
    ``r = area * max(1, round(rotated_fraction * channels))``. A rotation ``[r, r]`` turns these
    rows, in that order; with ``block_size`` several do, each a block of them. The other rows stay
    as they are. After an episode of training, `merge` writes the rotated rows into ``fix``. Then
    `restart` resets the rotation to I and selects other rows. It works with any map.

    Weights: those of the layer that this class is combined with, and
        indices: int32 ``[r]``, not trained. The first ones are drawn at random.
    """

    def __init__(self, *, rotated_fraction: float, **kwargs):
        super().__init__(**kwargs)
        if not 0 < rotated_fraction <= 1:
            raise ValueError(f"`rotated_fraction` must lie in (0, 1], not {rotated_fraction}")
        self.rotated_fraction = rotated_fraction

    def _rotated_rows(self, area: int, channels: int) -> int:
        return area * max(1, round(self.rotated_fraction * channels))

    def build_weights(self, area: int, channels: int) -> None:
        super().build_weights(area, channels)

        def draw(shape, dtype=None):
            return keras.random.shuffle(keras.ops.arange(area * channels, dtype=dtype))[: shape[0]]

        self.indices = self.add_weight(
            name="indices",
            shape=(self._rotated_rows(area, channels),),
            dtype="int32",
            initializer=draw,
            trainable=False,
            autocast=False,
        )

    def rows_to_turn(self) -> tf.Tensor:
        """Returns the rows of ``fix`` that the rotation turns, ``[r, units]``."""
        return tf.gather(self.fix.value, self.indices.value)

    def with_turned_rows(self, turned: tf.Tensor) -> tf.Tensor:
        """Returns ``fix`` with those rows in the place of what they were."""
        return tf.tensor_scatter_nd_update(
            self.fix.value, self.indices.value[:, tf.newaxis], turned
        )

    def merge(self) -> None:
        """Writes the rotated rows into ``fix``.

        Call `restart` next: until then the layer would rotate the same rows a second time.
        """
        self.fix.assign(self.neurons())

    def restart(self, indices: Sequence[int] | np.ndarray) -> None:
        """Resets the rotation to I and selects the rows ``indices [r]``, r different integers.

        The neurons do not change. If map(I) is not I (Householder's, in even dimensions), the rows
        in ``fix`` are multiplied by map(I)^T to achieve this.

        Raises:
            ValueError: if ``indices`` does not hold r different rows.
        """
        if len(np.unique(indices)) != self.indices.shape[0]:
            raise ValueError(
                f"`indices` must hold {self.indices.shape[0]} different rows, not {indices}"
            )
        for rotation in self.rotations:
            *blocks, size, _ = rotation.shape
            rotation.assign(tf.eye(size, batch_shape=blocks, dtype=rotation.dtype))
        self.indices.assign(indices)
        rows = turned_back(self.orthogonal_matrices(), self.rows_to_turn())
        self.fix.assign(self.with_turned_rows(rows))

    def get_config(self) -> dict:
        return {**super().get_config(), "rotated_fraction": self.rotated_fraction}


@keras.saving.register_keras_serializable(package="opt")
class StochasticOrthogonalConv2D(_Stochastic, OrthogonalConv2D):
    """`OrthogonalConv2D` that rotates only some of its neurons' rows at a time (S-OPT).

    Args:
        rotated_fraction: the share of the input channels that is rotated at a time, over 0 and at
            most 1. Defaults to the original's 0.25.
        rotation_initializer: for ``rotation``, ``[r, r]``. Defaults to I.

    The other arguments, the shapes and the errors are those of `OrthogonalConv2D`.

    Raises:
        ValueError: also if ``rotated_fraction`` is not in (0, 1].
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
        rotation_initializer="identity",
        rotation_regularizer=None,
        learn_neurons: bool = False,
        check_map: bool = True,
        block_size: int | None = None,
        rotated_fraction: float = 0.25,
        **kwargs,
    ):
        super().__init__(**passed_on(locals()))


@keras.saving.register_keras_serializable(package="opt")
class StochasticOrthogonalDense(_Stochastic, OrthogonalDense):
    """`OrthogonalDense` that rotates only some of its neurons' rows at a time (S-OPT).

    Args:
        rotated_fraction: the share of the input's last axis that is rotated at a time, over 0 and
            at most 1. Defaults to the original's 0.25.
        rotation_initializer: for ``rotation``, ``[r, r]``. Defaults to I.

    The other arguments, the shapes and the errors are those of `OrthogonalDense`.

    Raises:
        ValueError: also if ``rotated_fraction`` is not in (0, 1].
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
        rotation_initializer="identity",
        rotation_regularizer=None,
        learn_neurons: bool = False,
        check_map: bool = True,
        block_size: int | None = None,
        rotated_fraction: float = 0.25,
        **kwargs,
    ):
        super().__init__(**passed_on(locals()))
