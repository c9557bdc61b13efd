"""Hyperspherical energy: how evenly a layer's neurons are spread over all directions.

Reference: Liu et al., NeurIPS 2018 and CVPR 2021.
"""

import statistics
from collections.abc import Mapping

import keras
import numpy as np
import tensorflow as tf

from .layers.orthogonal import OrthogonalLayer
from .orthogonal import matmul
from .private import layers_by_path

CHUNK = 1024  # neurons per block: 1024 x 1024 float64 distances are 8 MiB


def hyperspherical_energy(neurons: tf.Tensor, s: float = 1, half_space: bool = False) -> tf.Tensor:
    """Returns the hyperspherical energy of ``neurons``: small if they are evenly spread.

    With w_i the neurons scaled to unit length, it is the sum over all ordered pairs i != j of:

        1 / |w_i - w_j|^s       for s > 0
        log(1 / |w_i - w_j|)    for s = 0

    A rotation of all neurons does not change it (Liu et al., CVPR 2021). It is computed in float64,
    because 1 - cos loses digits for neurons close to each other. It is infinite if two neurons have
    the same direction up to rounding, and NaN if a neuron is zero.

    Args:
        neurons: ``[n, count]``, one neuron per column, of any floating-point dtype; within a
            `tf.function` the shape must be known.
        s: usually 0, 1 or 2; any s >= 0 is possible. Defaults to 1.
        half_space: whether to add -w_i for each w_i, for pairs of all these. Defaults to False.

    Returns:
        A scalar, float64.

    Raises:
        ValueError: if ``neurons`` is not a matrix of known shape or ``s`` is negative.
    """
    neurons = tf.convert_to_tensor(neurons)
    if neurons.shape.rank != 2 or not neurons.shape.is_fully_defined() or s < 0:
        problem = f"got the shape {neurons.shape} and s={s}"
        raise ValueError(f"neurons must be a matrix of known shape, and s at least 0; {problem}")
    # squared distances up to this are rounding errors
    precision = "float64" if neurons.dtype == tf.float64 else "float32"
    rounding = (2 * neurons.shape[0] + 4) * np.finfo("float64").eps + np.finfo(precision).eps ** 2
    neurons = tf.cast(neurons, tf.float64)
    units = neurons / tf.norm(neurons, axis=0)
    others = tf.concat([units, -units], axis=1) if half_space else units
    total = tf.zeros([], tf.float64)
    for start in range(0, units.shape[1], CHUNK):
        block = units[:, start : start + CHUNK]
        # |w_i - w_j|^2 = 2 - 2 cos
        squares = 2 - 2 * tf.matmul(block, others, transpose_a=True)
        squares = tf.where(squares <= rounding, tf.zeros_like(squares), squares)  # NaN stays NaN
        # the pair of a neuron with itself is left out
        other = tf.range(start, start + block.shape[1])[:, tf.newaxis] != tf.range(others.shape[1])
        squares = tf.where(other, squares, 1.0)
        energies = -tf.math.log(squares) / 2 if s == 0 else squares ** (-s / 2)
        total += tf.reduce_sum(tf.where(other, energies, 0.0))
    # the pairs of -w_i are as those of w_i
    return 2 * total if half_space else total


def orthogonality_drift(q: tf.Tensor) -> tf.Tensor:
    """Returns max |Q Q^T - I| of ``q [..., n, n]``, a scalar of the same dtype."""
    gap = matmul(q, q, transpose_b=True) - tf.eye(q.shape[-1], dtype=q.dtype)
    return tf.reduce_max(tf.abs(gap))


def layer_energies(layers: Mapping[str, keras.layers.Layer]) -> dict[str, float]:
    """Returns ``energy/NAME`` of the neurons that each layer has now, in its ``kernel``."""

    def neurons(layer: keras.layers.Layer) -> tf.Tensor:
        if isinstance(layer, OrthogonalLayer):
            return layer.neurons()
        return tf.reshape(tf.convert_to_tensor(layer.kernel), [-1, layer.kernel.shape[-1]])

    energies = {name: hyperspherical_energy(neurons(layer)) for name, layer in layers.items()}
    return {f"energy/{name}": float(energy) for name, energy in energies.items()}


def layer_drifts(layers: Mapping[str, keras.layers.Layer]) -> dict[str, float]:
    """Returns ``drift/NAME`` of each OPT layer, its largest block's `orthogonality_drift`."""
    opt = {name: layer for name, layer in layers.items() if isinstance(layer, OrthogonalLayer)}
    drifts = {n: [*map(orthogonality_drift, v.orthogonal_matrices())] for n, v in opt.items()}
    return {f"drift/{name}": float(tf.reduce_max(values)) for name, values in drifts.items()}


class EnergyLogger(keras.callbacks.Callback):
    """Adds the OPT layers' hyperspherical energy (s = 1) and drift to the logs after each epoch.

    The names in the logs are ``energy/PATH`` and ``drift/PATH`` of each layer, or ``energy/mean``
    and ``drift/mean``. The path is the layer's name, after those of the layers that it lies in.
    Drift is max |Q Q^T - I| of Q = map(rotation). Put this callback before those that write logs,
    as in ``callbacks=[EnergyLogger(), keras.callbacks.CSVLogger("log.csv")]``.

    Args:
        per_layer: whether to log each layer's figures; False logs their means. Defaults to True.
    """

    def __init__(self, per_layer: bool = True):
        super().__init__()
        self.per_layer = per_layer

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        layers = layers_by_path(self.model).items()
        found = {p: v for p, v in layers if isinstance(v, OrthogonalLayer) and v.built}
        if logs is None or not found:
            return
        energies, drifts = layer_energies(found), layer_drifts(found)
        if not self.per_layer:
            energies = {"energy/mean": statistics.fmean(energies.values())}
            drifts = {"drift/mean": statistics.fmean(drifts.values())}
        logs.update(energies | drifts)
