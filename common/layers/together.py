"""The neurons of several layers at once: rotations of one size in one call of their map.

A map of five matrices takes as many kernels of a GPU as that of one. On a CPU there is nothing to
gain: TensorFlow's factorizations treat a batch matrix by matrix.
"""

import contextlib
import contextvars
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

import tensorflow as tf

from .. import orthogonal
from ..private import all_layers, forward_pass, is_compiled_by_xla
from .blocks import joined, split

if TYPE_CHECKING:
    from .base import OrthogonalLayer

Part = tuple[orthogonal.Map, tf.Tensor, tf.Tensor]  # a map, its matrix, and the rows to turn
_BY_XLA = contextvars.ContextVar("_BY_XLA", default=False)


@contextlib.contextmanager
def maps_by_xla() -> Iterator[None]:
    """Has XLA compile the maps in a forward pass that it does not compile itself.

    For several devices: XLA cannot compile what they exchange in a step.
    """
    token = _BY_XLA.set(True)
    try:
        yield
    finally:
        _BY_XLA.reset(token)


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
    evaluate = _compiled if _BY_XLA.get() and not is_compiled_by_xla() else _turned
    each = iter(evaluate(parts))
    return [
        layer.with_turned_rows(joined([next(each) for _ in layer.rotations])) for layer in layers
    ]


def _compiled(parts: list[Part]) -> list[tf.Tensor]:
    """Returns what `_turned` does, by programs that XLA compiles, forward and backward.

    A `tf.function` has a gradient of its own, but that is traced where it does not show that XLA
    will compile it: the maps would take the algorithms that are not for XLA. So the backward
    program evaluates the maps once more.
    """
    maps, matrices, rows = zip(*parts, strict=True)

    def evaluate(tensors: Sequence[tf.Tensor]) -> list[tf.Tensor]:
        half = len(maps)
        return _turned(list(zip(maps, tensors[:half], tensors[half:], strict=True)))

    @tf.function(jit_compile=True)
    def forward(*tensors: tf.Tensor) -> list[tf.Tensor]:
        return evaluate(tensors)

    @tf.function(jit_compile=True)
    def backward(tensors: list[tf.Tensor], gradients: list[tf.Tensor]) -> list[tf.Tensor]:
        with tf.GradientTape() as tape:
            tape.watch(tensors)
            turned = evaluate(tensors)
        return tape.gradient(turned, tensors, gradients)

    @tf.custom_gradient
    def turned(*tensors: tf.Tensor) -> tuple:
        return forward(*tensors), lambda *gradients: backward(list(tensors), list(gradients))

    # tensors, not variables: each device has a copy of its own
    return turned(*map(tf.convert_to_tensor, [*matrices, *rows]))


def _turned(parts: list[Part]) -> list[tf.Tensor]:
    """Returns ``map(m) @ r`` of each map, matrix m and rows r."""
    groups: dict[tuple, list[int]] = {}
    for number, (orthogonalize, matrix, part) in enumerate(parts):
        own = () if orthogonalize in orthogonal.ALL else (number,)
        key = (id(orthogonalize), matrix.dtype, matrix.shape[-1], part.shape[-1], *own)
        groups.setdefault(key, []).append(number)
    turned: dict[int, tf.Tensor] = {}
    for numbers in groups.values():
        maps, matrices, of_rows = zip(*(parts[i] for i in numbers), strict=True)
        together = _together(maps[0], list(matrices), list(of_rows))
        turned |= zip(numbers, together, strict=True)
    return [turned[number] for number in range(len(parts))]


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

    Under XLA, and in `maps_by_xla`, the first layer that asks has those of all layers of the
    outermost model computed.
    """
    current = forward_pass(layer)
    if current is None:
        return layer.neurons()
    if id(layer) not in current.memory:
        others = all_layers(current.entry) if is_compiled_by_xla() or _BY_XLA.get() else []
        asked = {
            id(other): other
            for other in (layer, *others)
            if hasattr(other, "rows_to_turn") and other.built and forward_pass(other) is not None
        }
        current.memory.update(zip(asked, neurons_together(asked.values()), strict=True))
    return current.memory[id(layer)]
