"""A built layer of Keras becomes an OPT layer and back, in place: its class changes."""

import contextlib
import copy
import textwrap
from collections.abc import Iterator
from typing import Any

import keras
import tensorflow as tf

from ..energy import orthogonality_drift
from ..private import all_layers, move_to_end, own_weights, remove_weight, weights_may_change
from .normalization import BatchNormalization
from .orthogonal import OrthogonalLayer

# what an OPT layer has besides its arguments
_OURS = ("fix", "rotation", "rotation_rest", "indices", "_axes", "_permuted_shape", "converted")


def rotate(layer: keras.layers.Layer, kind: type[OrthogonalLayer], **arguments: Any) -> None:
    """Makes a ``kind`` of a built ``kind.plain`` with the same kernel.

    Raises:
        ValueError: if an argument is wrong, or map(R) is not orthogonal; `fold` then undoes it.
    """
    _add_rotation(layer, kind, arguments)
    matrices = layer.orthogonal_matrices()
    if not all(orthogonality_drift(q) <= 1e-3 for q in matrices):  # nor if it is NaN
        raise ValueError(f"{layer.name}: its map makes no orthogonal matrix of the first rotation")
    layer.rotate_back(matrices)


def _add_rotation(layer: keras.layers.Layer, kind: type[OrthogonalLayer], arguments: dict) -> None:
    layer.__class__, layer.converted = kind, True
    layer.configure(**arguments)
    with weights_may_change(layer):
        layer.add_rotation()


def fold(layer: OrthogonalLayer, kernel: tf.Tensor | keras.Variable) -> None:
    """Makes the layer of Keras with ``kernel`` of an OPT layer, or of an unfinished one."""
    is_variable = isinstance(kernel, keras.Variable)
    is_trained = is_variable or layer.rotation.trainable or layer.fix.trainable
    with weights_may_change(layer):
        for name in (*layer.opt_arguments, *_OURS):
            if isinstance(vars(layer).get(name), keras.Variable):
                remove_weight(layer, name)
            else:
                layer.__dict__.pop(name, None)
        layer.__class__ = layer.plain
        if not hasattr(layer, "_kernel"):
            if not is_variable:
                kernel = layer.add_weight(name="kernel", shape=kernel.shape, initializer=kernel)
                kernel.trainable = is_trained
            layer._kernel = kernel
            move_to_end(layer, kernel)  # also a frozen one
            if layer.bias is not None:
                move_to_end(layer, layer.bias)


def check_kind(layer: keras.layers.Layer) -> None:
    """Raises ValueError for a subclass of an OPT layer that does more than Keras's layer does."""
    kind = type(layer)
    if isinstance(layer, OrthogonalLayer) and (
        kind.call is not kind.plain.call or kind.__init__ is not OrthogonalLayer.__init__
    ):
        raise ValueError(f"{layer.name} is of a subclass of an OPT layer, {kind.__name__}")


def normalization_to_plain(layer: BatchNormalization) -> None:
    values = layer.plain_weights()
    remove_weight(layer, "start_weight")
    del layer.debias
    layer.__class__ = keras.layers.BatchNormalization
    layer.moving_variance_initializer = keras.initializers.Ones()
    for name, value in values.items():
        getattr(layer, name).assign(value)


def copied(model: keras.Model) -> keras.Model:
    """Returns a copy of a built model, not compiled, by Keras's saving; what is frozen stays so.

    Raises:
        ValueError: if Keras cannot copy it.
    """
    try:
        for layer in all_layers(model):
            check_kind(layer)
        try:
            result, pairs = _deep_copy(model, plain=True)
        except Exception:  # a class of the user's makes OPT layers
            result, pairs = _deep_copy(model, plain=False)
    except Exception as error:
        cause: BaseException = error
        while cause.__context__:
            cause = cause.__context__
        reason = f"{textwrap.shorten(str(cause), 200)}; with copy=False it is changed in place"
        raise ValueError(f"Keras cannot copy {model.name}: {reason}") from error
    for old, new in pairs:
        if isinstance(old, OrthogonalLayer) and old.built:
            if type(new) is not type(old):
                arguments = {name: getattr(old, name) for name in old.opt_arguments}
                _add_rotation(new, type(old), arguments | {"check_map": False})
                new.check_map = old.check_map
            for ours, theirs in zip(old.weights, new.weights, strict=True):
                theirs.assign(ours)
        # Keras saves it of some layers only; it is set for the layers and weights inside too
        new.trainable = old.trainable
    for old, new in pairs:
        new._trainable = old._trainable  # also of one that is in two others
        for ours, theirs in zip(own_weights(old), own_weights(new), strict=True):
            theirs.trainable = ours.trainable
    return result


def _deep_copy(model: keras.Model, plain: bool) -> tuple[keras.Model, list[tuple]]:
    """Returns Keras's copy and all layers of both in pairs; ``plain`` is as in `_copyable`."""
    with _copyable(model, plain):
        result = copy.deepcopy(model)
        if not result.built:
            raise ValueError("its copy is not built, which takes a method `build`")
        layers = [model, *all_layers(model)], [result, *all_layers(result)]
        pairs = list(zip(*layers, strict=True))
        for old, new in pairs:
            if type(old) is not type(new) or old.built != new.built:
                raise ValueError(f"its layer {old.name} comes back as another")
    return result, pairs


@contextlib.contextmanager
def _copyable(model: keras.layers.Layer, plain: bool) -> Iterator[None]:
    """In the block models have no optimizer, lambdas names, and OPT layers the class of Keras.

    Without ``plain`` only those have it that were made of a layer of Keras.
    """
    named: dict[str, Any] = {}  # where Keras looks for functions and classes
    with contextlib.ExitStack() as undo:

        def set_for_now(target: Any, name: str, value: Any) -> None:
            undo.callback(setattr, target, name, getattr(target, name, value))
            setattr(target, name, value)

        for layer in [model, *all_layers(model)]:
            kind = type(layer)
            ours = isinstance(layer, OrthogonalLayer) and layer.built
            if ours and (plain or layer.converted):
                layer.__dict__["_kernel"] = layer.kernel_of(layer.fix.value)
                undo.callback(layer.__dict__.pop, "_kernel")
                set_for_now(layer, "__class__", layer.plain)
            elif isinstance(layer, keras.Model):
                set_for_now(layer, "compiled", False)
                set_for_now(layer, "optimizer", None)
            elif getattr(getattr(layer, "function", None), "__name__", "") == "<lambda>":
                named[f"lambda_{len(named)}"] = layer.function
                set_for_now(layer.function, "__name__", f"lambda_{len(named) - 1}")
            name = kind.__name__
            if kind.__module__[:6] != "keras." and keras.saving.get_registered_name(kind) == name:
                named[name] = kind
        with keras.saving.custom_object_scope(named):
            yield
