"""S-OPT: layers that rotate only some of the neurons' rows at a time (Liu et al., CVPR 2021)."""

from collections.abc import Iterable, Sequence

import keras
import numpy as np
import tensorflow as tf

from ..private import all_layers
from .orthogonal import OrthogonalLayer


class StochasticLayer(OrthogonalLayer):
    """An `OrthogonalLayer` that rotates only the rows ``indices [r]`` of ``fix``, in that order.

    There are ``r = area * max(1, round(rotated_fraction * channels))``; the channels are the last
    of the kernel's axes on which a neuron's entries lie, the area all others. The weight
    ``indices``, int32, is not trained, and drawn at random at first. The callback
    `StochasticEpisodes` calls `merge` and `restart` after each episode of training.

    Args:
        rotated_fraction: the share of the rows that is rotated at a time, over 0 and at most 1.
            Defaults to the original's 0.25. The other arguments are `OrthogonalLayer`'s.

    Raises:
        ValueError: also if ``rotated_fraction`` is not in (0, 1].
    """

    def configure(self, *, rotated_fraction: float = 0.25, **arguments) -> None:
        super().configure(**arguments)
        if not 0 < rotated_fraction <= 1:
            raise ValueError(f"`rotated_fraction` must lie in (0, 1], not {rotated_fraction}")
        self.rotated_fraction = rotated_fraction

    def number_of_rows(self, n: int, channels: int) -> int:
        return n // channels * max(1, round(self.rotated_fraction * channels))

    def add_rotation(self) -> None:
        super().add_rotation()
        rows = sum(v.shape[:-1].num_elements() for v in self.rotations)

        def draw(shape, dtype):
            return keras.random.shuffle(keras.ops.arange(self.fix.shape[0], dtype=dtype))[:rows]

        self.indices = self.add_weight(
            name="indices", shape=(rows,), dtype="int32", initializer=draw, trainable=False
        )

    def rows_to_rotate(self) -> tf.Tensor:
        return tf.gather(self.fix.value, self.indices.value)

    def with_rotated_rows(self, rotated: tf.Tensor) -> tf.Tensor:
        return tf.tensor_scatter_nd_update(
            self.fix.value, self.indices.value[:, tf.newaxis], rotated
        )

    def merge(self) -> None:
        """Writes the rotated rows into ``fix``; until `restart` they would be rotated twice."""
        self.fix.assign(self.neurons())

    def restart(self, indices: Sequence[int] | np.ndarray) -> None:
        """Resets the rotation to I and selects the rows ``indices [r]``; the neurons stay.

        Raises:
            ValueError: if ``indices`` does not hold r different rows.
        """
        count, n = self.indices.shape[0], self.fix.shape[0]
        if len(indices) != count or len({*range(n)}.intersection(indices)) != count:
            raise ValueError(f"`indices` must hold {count} different rows of {n}, not {indices}")
        for rotation in self.rotations:
            *blocks, size, _ = rotation.shape
            rotation.assign(tf.eye(size, batch_shape=blocks, dtype=rotation.dtype))
        self.indices.assign(indices)
        self.rotate_back(self.orthogonal_matrices())  # map(I) may not be I


def draw_rows(seed: int, episode: int, number: int, n: int, rows: int) -> np.ndarray:
    """Returns different integers from 0 to n - 1, int64 ``[rows]``, for layer ``number``."""
    return np.random.default_rng([seed, episode, number]).permutation(n)[:rows]


def restart_layers(layers: Iterable[StochasticLayer], seed: int, episode: int) -> None:
    """Merges the layers' rotations into their neurons and selects other rows."""
    for number, layer in enumerate(layers):
        layer.merge()
        layer.restart(draw_rows(seed, episode, number, layer.fix.shape[0], layer.indices.shape[0]))


class StochasticEpisodes(keras.callbacks.Callback):
    """Merges the rotations of a model's stochastic layers and selects other rows.

    Training that goes on after a break draws the rows that it would have drawn without one.

    Args:
        steps: training steps between two selections. Defaults to the original's 750.
        seed: for the selections. Defaults to 0.

    Raises:
        ValueError: if ``steps`` is not positive; when training starts, if the model has no
            stochastic layer, or an optimizer with ``use_ema``.
    """

    def __init__(self, steps: int = 750, seed: int = 0):
        super().__init__()
        if steps < 1:
            raise ValueError(f"`steps` must be positive, not {steps}")
        self.steps, self.seed = steps, seed

    def on_train_begin(self, logs: dict | None = None) -> None:
        found = [v for v in all_layers(self.model) if isinstance(v, StochasticLayer)]
        self.layers = [layer for layer in found if layer.built]
        if not self.layers:
            raise ValueError(f"{self.model.name} has no stochastic layer")
        optimizer = getattr(self.model.optimizer, "inner_optimizer", self.model.optimizer)
        if any(each.use_ema for each in getattr(optimizer, "optimizers", [optimizer])):
            raise ValueError("`use_ema` would average rotations of different rows")
        self.episode = -1

    def on_train_batch_begin(self, batch: int, logs: dict | None = None) -> None:
        episode = int(self.model.optimizer.iterations) // self.steps
        if episode != self.episode:
            self.episode = episode
            restart_layers(self.layers, self.seed, episode)
