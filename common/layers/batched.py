"""The neurons of several layers by one call of a map: as few kernels of a GPU as for one layer."""

import collections
import contextlib
import contextvars
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import tensorflow as tf

from .. import orthogonal
from ..private import all_layers, forward_pass, is_compiled_by_xla

Tensors = Sequence[tf.Tensor]
_BY_XLA = contextvars.ContextVar("_BY_XLA", default=False)


@contextlib.contextmanager
def maps_by_xla() -> Iterator[None]:
    """Has XLA compile the maps of a forward pass that it cannot compile: one on several devices."""
    token = _BY_XLA.set(True)
    try:
        yield
    finally:
        _BY_XLA.reset(token)


def split(matrices: Tensors, rows: tf.Tensor) -> list[tf.Tensor]:
    """Returns the parts of ``rows [n, c]``: ``[..., b, c]`` for each matrix ``[..., b, b]``."""
    shapes = [matrix.shape[:-1] for matrix in matrices]
    parts = tf.split(rows, [shape.num_elements() for shape in shapes])
    return [tf.reshape(part, [*shape, -1]) for part, shape in zip(parts, shapes, strict=True)]


def joined(parts: Tensors) -> tf.Tensor:
    """Returns ``[n, c]``, the rows that `split` has split."""
    return tf.concat([tf.reshape(part, [-1, part.shape[-1]]) for part in parts], axis=0)


def neurons_together(layers: Iterable[Any]) -> list[tf.Tensor]:
    """Returns the neurons of each OPT layer, ``[n, units]``."""
    layers, maps, matrices, rows = list(layers), [], [], []
    for layer in layers:
        rotations = [rotation.value for rotation in layer.rotations]
        maps += [layer.orthogonalize] * len(rotations)
        matrices += rotations
        rows += split(rotations, layer.rows_to_rotate())
    evaluate = _compiled if _BY_XLA.get() and not is_compiled_by_xla() else _rotated
    parts = iter(evaluate(maps, matrices, rows))
    return [
        layer.with_rotated_rows(joined([next(parts) for _ in layer.rotations])) for layer in layers
    ]


def _compiled(maps: list[orthogonal.Map], matrices: Tensors, rows: Tensors) -> Tensors:
    """Returns what `_rotated` does, by programs that XLA compiles, forward and backward."""

    def evaluate(tensors: Tensors) -> Tensors:
        return _rotated(maps, tensors[: len(maps)], tensors[len(maps) :])

    @tf.function(jit_compile=True)
    def forward(*tensors: tf.Tensor) -> Tensors:
        return evaluate(tensors)

    # not forward's gradient, which would be traced as if XLA did not compile it
    @tf.function(jit_compile=True)
    def backward(tensors: Tensors, gradients: Tensors) -> Tensors:
        with tf.GradientTape() as tape:
            tape.watch(tensors)
            rotated = evaluate(tensors)
        return tape.gradient(rotated, tensors, gradients)

    @tf.custom_gradient
    def rotated(*tensors: tf.Tensor) -> tuple:
        return forward(*tensors), lambda *gradients: backward(list(tensors), list(gradients))

    # tensors, not variables: each device has a copy
    return rotated(*map(tf.convert_to_tensor, [*matrices, *rows]))


def _rotated(maps: list[orthogonal.Map], matrices: Tensors, rows: Tensors) -> Tensors:
    """Returns ``map(m) @ r`` of each map, matrix m and rows r."""
    groups = collections.defaultdict(list)
    for i, (rotate, matrix, part) in enumerate(zip(maps, matrices, rows, strict=True)):
        alone = None if rotate in orthogonal.ALL else i  # others may take no batch
        groups[id(rotate), matrix.dtype, matrix.shape[-1], part.shape[-1], alone].append(i)
    rotated: dict[int, tf.Tensor] = {}
    for group in groups.values():
        pair = [matrices[i] for i in group], [rows[i] for i in group]
        rotated |= zip(group, _together(maps[group[0]], *pair), strict=True)
    return [rotated[i] for i in range(len(maps))]


def _together(orthogonalize: orthogonal.Map, matrices: Tensors, rows: Tensors) -> Tensors:
    """Returns ``orthogonalize(m) @ r`` of each pair, all with one map, dtype, n and c."""
    if len(matrices) == 1:
        return [orthogonal.product(orthogonalize, *matrices, *rows)]
    stacked = [
        tf.concat([tf.reshape(t, [-1, *t.shape[-2:]]) for t in tensors], axis=0)
        for tensors in (matrices, rows)
    ]
    counts = [matrix.shape[:-2].num_elements() for matrix in matrices]
    parts = tf.split(orthogonal.product(orthogonalize, *stacked), counts)
    return [tf.reshape(part, r.shape) for part, r in zip(parts, rows, strict=True)]


def neurons_of_this_pass(layer: Any) -> tf.Tensor:
    """Returns the layer's neurons, cached per forward pass.

    Under XLA, and in `maps_by_xla`, the first call computes those of all layers of the model, so
    that one which the pass does not call has the gradient 0 in place of None.
    """
    current = forward_pass(layer)
    if current is None:
        return layer.neurons()
    entry, memory = current
    if layer not in memory:
        others = all_layers(entry) if is_compiled_by_xla() or _BY_XLA.get() else []
        found = [v for v in others if hasattr(v, "rows_to_rotate") and v.built and forward_pass(v)]
        asked = dict.fromkeys([layer, *found])
        memory.update(zip(asked, neurons_together(asked), strict=True))
    return memory[layer]
