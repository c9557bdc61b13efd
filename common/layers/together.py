"""The neurons of several layers at once: rotations of one size in one call of their map.

A map of five matrices takes as many kernels of a GPU as that of one. On a CPU there is nothing to
gain: TensorFlow's factorizations treat a batch matrix by matrix.
"""

from collections.abc import Iterable
from typing import TYPE_CHECKING

import tensorflow as tf

from .. import orthogonal
from ..private import all_layers, forward_pass, is_compiled_by_xla
from .blocks import joined, split

if TYPE_CHECKING:
    from .base import OrthogonalLayer


def neurons_together(layers: Iterable["OrthogonalLayer"]) -> list[tf.Tensor]:
    """Returns the neurons of each layer, ``[n, units]``.

    Rotations of one size are stacked if their map is of this package; another map need not take a
    batch.
    """
    layers = list(layers)
    values = [[rotation.value for rotation in layer.rotations] for layer in layers]
    rows = [split(m, layer.rows_to_turn()) for m, layer in zip(values, layers, strict=True)]
    parts = [
        (layer.orthogonalize, *pair)
        for layer, *pairs in zip(layers, values, rows, strict=True)
        for pair in zip(*pairs, strict=True)
    ]
    groups: dict[tuple, list[int]] = {}
    for number, (orthogonalize, matrix, part) in enumerate(parts):
        own = () if orthogonalize in orthogonal.ALL else (number,)
        key = (id(orthogonalize), matrix.dtype, matrix.shape[-1], part.shape[-1], *own)
        groups.setdefault(key, []).append(number)
    turned: dict[int, tf.Tensor] = {}
    for numbers in groups.values():
        orthogonalize, matrices, of_rows = zip(*(parts[i] for i in numbers), strict=True)
        together = _together(orthogonalize[0], list(matrices), list(of_rows))
        turned |= zip(numbers, together, strict=True)
    each = iter(turned[number] for number in range(len(parts)))
    return [
        layer.with_turned_rows(joined([next(each) for _ in layer.rotations])) for layer in layers
    ]


def _together(
    orthogonalize: orthogonal.Map, matrices: list[tf.Tensor], rows: list[tf.Tensor]
) -> list[tf.Tensor]:
    """Returns ``orthogonalize(m) @ r`` of each pair, all with one map, dtype, n and c."""
    if len(matrices) == 1:
        return [orthogonal.product(orthogonalize, *matrices, *rows)]

    def stacked(tensors: list[tf.Tensor]) -> tf.Tensor:
        return tf.concat([tf.reshape(t, [-1, *t.shape[-2:]]) for t in tensors], axis=0)

    whole = orthogonal.product(orthogonalize, stacked(matrices), stacked(rows))
    counts = [matrix.shape[:-2].num_elements() for matrix in matrices]
    parts = tf.split(whole, counts)
    return [tf.reshape(part, r.shape) for part, r in zip(parts, rows, strict=True)]


def neurons_of_this_pass(layer: "OrthogonalLayer") -> tf.Tensor:
    """Returns the layer's neurons, computed once per forward pass however often it is called in it.

    Under XLA the first layer that asks has those of all layers of the outermost model computed.
    """
    current = forward_pass(layer)
    if current is None:
        return layer.neurons()
    if id(layer) not in current.memory:
        others = all_layers(current.entry) if is_compiled_by_xla() else []
        asked = {
            id(other): other
            for other in (layer, *others)
            if hasattr(other, "rows_to_turn") and other.built and forward_pass(other) is not None
        }
        current.memory.update(zip(asked, neurons_together(asked.values()), strict=True))
    return current.memory[id(layer)]
