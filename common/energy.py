"""Hyperspherical energy: how evenly a layer's neurons are spread over directions (Liu et al., NeurIPS 2018, CVPR 2021)."""

from collections.abc import Iterable

import keras
import tensorflow as tf

from .layers import OrthogonalConv2D, OrthogonalDense
from .private import all_layers

CHUNK = 1024  # neurons a block: 1024 x 1024 float64 distances are 8 MiB


def hyperspherical_energy(neurons: tf.Tensor, s: int = 1, half_space: bool = False) -> tf.Tensor:
    """Returns the hyperspherical energy of ``neurons``, the smaller the more evenly they are spread.

    With w_i the neurons scaled to unit length, the sum over all ordered pairs i != j of::

        1 / |w_i - w_j|^s       for s > 0
        log(1 / |w_i - w_j|)    for s = 0

    Orthogonal maps do not change it. Two neurons of one direction make it infinite, a neuron of zeros NaN. Computed
    in float64, since 1 - cos cancels between near neighbours, in blocks of `CHUNK` neurons.

    Args:
        neurons: ``[n, count]``, one neuron a column, of any floating dtype.
        s: 0, 1 or 2; any s >= 0 will do. Defaults to 1.
        half_space: whether each w_i is joined by -w_i, all ordered pairs of the 2 count being counted. Defaults to False.

    Returns:
        A scalar, float64.

    Raises:
        ValueError: if ``neurons`` is no matrix or ``s`` is negative.
    """
    neurons = tf.cast(neurons, tf.float64)
    if neurons.shape.rank != 2 or s < 0:
        raise ValueError(
            f"neurons must be a matrix and s at least 0, not of shape {neurons.shape} and {s}"
        )
    units = neurons / tf.norm(neurons, axis=0)
    count = neurons.shape[1]

    def pairs(square: tf.Tensor) -> tf.Tensor:
        return -tf.math.log(square) / 2 if s == 0 else square ** (-s / 2)

    total = tf.zeros([], tf.float64)
    for start in range(0, count, CHUNK):
        block = units[:, start : start + CHUNK]
        cosines = tf.matmul(block, units, transpose_a=True)
        same = tf.range(start, start + block.shape[1])[:, tf.newaxis] == tf.range(count)
        for sign in (1, -1) if half_space else (1,):
            # |w_i - w_j|^2 = 2 - 2 cos; a neuron's distance from itself is left out, that from its opposite is 2
            square = tf.where(
                same, tf.constant(4.0, tf.float64), tf.maximum(2 - 2 * sign * cosines, 0)
            )
            energies = pairs(square)
            if sign == 1:
                energies = tf.where(same, tf.zeros_like(energies), energies)
            total += tf.reduce_sum(energies)
    return 2 * total if half_space else total


def orthogonality_drift(q: tf.Tensor) -> tf.Tensor:
    """Returns max |Q Q^T - I| of ``q [n, n]``, a scalar of its dtype."""
    return tf.reduce_max(
        tf.abs(tf.matmul(q, q, transpose_b=True) - tf.eye(q.shape[-1], dtype=q.dtype))
    )


def is_orthogonal_layer(layer: keras.layers.Layer) -> bool:
    return isinstance(layer, OrthogonalConv2D | OrthogonalDense)


def layer_energies(layers: Iterable[keras.layers.Layer]) -> dict[str, float]:
    """Returns ``energy/NAME`` of each layer, from the kernel that it has now: of any layer with a ``kernel``."""
    kernels = {layer.name: tf.convert_to_tensor(layer.kernel) for layer in layers}
    return {
        f"energy/{name}": float(hyperspherical_energy(tf.reshape(kernel, [-1, kernel.shape[-1]])))
        for name, kernel in kernels.items()
    }


def layer_drifts(layers: Iterable[keras.layers.Layer]) -> dict[str, float]:
    """Returns ``drift/NAME`` of each OPT layer: how far from orthogonal the matrix is that turns its neurons."""
    return {
        f"drift/{layer.name}": float(orthogonality_drift(layer.orthogonalize(layer.rotation.value)))
        for layer in layers
        if is_orthogonal_layer(layer)
    }


class EnergyLogger(keras.callbacks.Callback):
    """Adds each OPT layer's hyperspherical energy and orthogonality drift to the logs at the end of an epoch.

    In ``model.fit(callbacks=[EnergyLogger(), ...])`` it stands before the callbacks that write logs, such as
    `keras.callbacks.CSVLogger` and `keras.callbacks.TensorBoard`, which then write ``energy/NAME`` and ``drift/NAME``.
    """

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        found = [layer for layer in all_layers(self.model) if is_orthogonal_layer(layer)]
        if logs is not None:
            logs.update(layer_energies(found) | layer_drifts(found))
