"""The fence: every use of an API that Keras or TensorFlow does not promise to keep.

Tested with TensorFlow 2.21 and Keras 3.15. Each function has a public way that is taken where the
private one is gone: slower, but right. tests/test_private.py tells when one is gone.
"""

from collections.abc import Callable

import keras
import tensorflow as tf

try:
    from keras.src.backend.common import global_state
except ImportError:
    global_state = None
try:
    from tensorflow.compiler.tf2xla.python import xla
    from tensorflow.compiler.xla import xla_data_pb2
except ImportError:
    xla = xla_data_pb2 = None
_enclosing_context = getattr(getattr(tf, "__internal__", None), "get_enclosing_xla_context", None)


def is_compiled_by_xla() -> bool:
    """Returns whether what is being traced will be compiled by XLA.

    XLA has slow loops in place of LAPACK's factorizations, so the maps take other ways there. No
    public function tells. Without the private one this returns True: the ways for XLA are right
    everywhere, and slower on a CPU without it.
    """
    return True if _enclosing_context is None else _enclosing_context() is not None


def exact_dot(a: tf.Tensor, b: tf.Tensor) -> tf.Tensor:
    """Returns ``a [..., m, k] @ b [..., k, n]``, never in TF32; it has no gradient of its own.

    `tf.matmul` cannot ask for a precision: on a recent GPU it multiplies float32 in TF32, whose 10
    bits of mantissa are too few for the maps. XLA's own operation can. Without it, or outside of
    XLA, the product is made in float64.
    """
    if xla is None or _enclosing_context is None or _enclosing_context() is None:
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


def once_per_forward_pass(layer: keras.layers.Layer, compute: Callable[[], tf.Tensor]) -> tf.Tensor:
    """Returns ``compute()``, evaluated once per forward pass however often the layer is called in it.

    A forward pass is the outermost model's call, which Keras knows as its call context; no weight
    is changed within one. The graph is part of the key, since a tensor that was made in a loop's
    body means nothing outside of it. Under gradient checkpointing, which traces a layer twice, and
    where Keras has no call context, it is evaluated at each call.
    """
    context = global_state and global_state.get_global_attribute("current_call_ctx")
    has_memory = hasattr(context, "get_value") and hasattr(context, "set_value")
    if not has_memory or getattr(layer, "_remat_mode", None) is not None:
        return compute()
    known = context.get_value("rotated_neurons")
    if known is None:
        known = {}
        context.set_value("rotated_neurons", known)
    key = (id(layer), tf.compat.v1.get_default_graph())
    if key not in known:
        known[key] = compute()
    return known[key]


def all_layers(model: keras.Model) -> list[keras.layers.Layer]:
    """Returns the layers of a model, of the models in it and of its wrappers, each once.

    The public ``model.layers`` stops at wrappers and custom layers: without the private method,
    layers inside of those are not found.
    """
    flatten = getattr(model, "_flatten_layers", None)
    if flatten is not None:
        return list(flatten(include_self=False))
    found = []
    for layer in model.layers:
        for one in (layer, *(all_layers(layer) if hasattr(layer, "layers") else ())):
            if not any(one is other for other in found):
                found.append(one)
    return found
