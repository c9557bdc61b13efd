"""Functions over private APIs of Keras and TensorFlow, which may change at any time.

Written for TensorFlow 2.21 and Keras 3.15. tests/test_private.py fails if one of these functions
does something else. layers/ and optimizers.py also use some attributes of Keras's classes.
"""

import contextlib
from collections.abc import Iterator

import keras
import tensorflow as tf
from keras.src.backend.common import global_state
from keras.src.backend.common.stateless_scope import in_stateless_scope
from tensorflow.compiler.tf2xla.python import xla
from tensorflow.compiler.xla import xla_data_pb2
from tensorflow.python.eager import record


def is_compiled_by_xla() -> bool:
    """Returns whether XLA, which lacks LAPACK, will compile the graph that is being traced."""
    return tf.__internal__.get_enclosing_xla_context() is not None


def exact_dot(a: tf.Tensor, b: tf.Tensor) -> tf.Tensor:
    """Returns ``a [..., m, k] @ b [..., k, n]``, never in TF32, and without a gradient.

    XLA's operation takes a precision. Outside of XLA the product is computed in float64.
    """
    if not is_compiled_by_xla():
        return tf.cast(tf.matmul(tf.cast(a, tf.float64), tf.cast(b, tf.float64)), a.dtype)
    rank = a.shape.rank
    dimensions = xla_data_pb2.DotDimensionNumbers(
        lhs_contracting_dimensions=[rank - 1],
        rhs_contracting_dimensions=[rank - 2],
        lhs_batch_dimensions=range(rank - 2),
        rhs_batch_dimensions=range(rank - 2),
    )
    highest = xla_data_pb2.PrecisionConfig.HIGHEST
    precision = xla_data_pb2.PrecisionConfig(operand_precision=[highest] * 2)
    return xla.dot_general(a, b, dimensions, precision)


def forward_pass(layer: keras.layers.Layer) -> tuple[keras.layers.Layer, dict] | None:
    """Returns the outermost model or layer of ``layer``'s forward pass, and the pass's memory.

    The memory is for tensors that are computed once per pass. Each graph has one, because a tensor
    made in the body of a loop cannot be used outside of it; and one more for what no tape records,
    as in a checkpointed block, which has no gradients. Returns None outside of a forward pass, in
    ``stateless_call``, and in a layer that is checkpointed itself, which is traced twice.
    """
    context = global_state.get_global_attribute("current_call_ctx")
    if context is None or layer._remat_mode is not None or in_stateless_scope():
        return None
    memories = context.get_value("orthogonal_memories")
    if memories is None:
        memories = {}
        context.set_value("orthogonal_memories", memories)
    kind = tf.compat.v1.get_default_graph(), record.could_possibly_record()
    return context.entry_layer, memories.setdefault(kind, {})


def autocast(kernel: tf.Tensor) -> tf.Tensor:
    """Returns ``kernel`` in the dtype in which Keras reads a variable in the current scope."""
    scope = global_state.get_global_attribute("autocast_scope")
    return scope.maybe_cast(kernel) if scope else kernel


def own_weights(layer: keras.layers.Layer) -> list[keras.Variable]:
    """Returns the weights that are attributes of a layer itself, not of layers inside it."""
    return [*layer._trainable_variables, *layer._non_trainable_variables]


def layers_by_path(model: keras.layers.Layer) -> dict[str, keras.layers.Layer]:
    """Returns the layers of a model, including those inside its models and layers, each once.

    A path is such as ``block/attention/query``; a second one of the same name ends with ``#2``.
    """
    found: dict[str, keras.layers.Layer] = {}
    seen = {id(model)}

    def visit(layer: keras.layers.Layer, start: str) -> None:
        for inner in list(layer._flatten_layers(include_self=False, recursive=False)):
            if id(inner) in seen:
                continue
            seen.add(id(inner))
            path, number = start + inner.name, 1
            while path in found:
                number += 1
                path = f"{start}{inner.name}#{number}"
            found[path] = inner
            visit(inner, f"{path}/")

    visit(model, "")
    return found


def all_layers(model: keras.layers.Layer) -> list[keras.layers.Layer]:
    """Returns the layers of `layers_by_path`."""
    return list(layers_by_path(model).values())


@contextlib.contextmanager
def weights_may_change(layer: keras.layers.Layer) -> Iterator[None]:
    """Lets a layer that is built add and remove weights, as Keras's own ``enable_lora`` does."""
    was_locked = layer._tracker.locked
    layer._tracker.unlock()
    try:
        yield
    finally:
        if was_locked:
            layer._tracker.lock()


def remove_weight(layer: keras.layers.Layer, name: str) -> None:
    """Removes the weight ``layer.NAME``, as ``del`` does, without its slow garbage collection."""
    layer._untrack_variable(getattr(layer, name))
    super(keras.layers.Layer, layer).__delattr__(name)


def move_to_end(layer: keras.layers.Layer, weight: keras.Variable) -> None:
    """Makes ``weight`` the last of the trainable weights of a layer whose weights may change."""
    layer._untrack_variable(weight)
    trainable, weight.trainable = weight.trainable, True
    layer._track_variable(weight)
    weight.trainable = trainable
