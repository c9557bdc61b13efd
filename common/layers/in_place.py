"""A built layer of Keras becomes an OPT layer and back, in place: its class changes."""

import collections
import contextlib
import copy
import functools
import textwrap
from collections.abc import Callable, Iterator
from typing import Any

import keras
import tensorflow as tf

from ..energy import orthogonality_drift
from ..private import (
    all_layers,
    layers_by_path,
    move_to_end,
    remove_weight,
    weights_may_change,
)
from .normalization import BatchNormalization
from .orthogonal import OrthogonalLayer

_WEIGHTS = ("fix", "rotation", "rotation_rest", "indices")


def rotate(layer: keras.layers.Layer, kind: type[OrthogonalLayer], **own: Any) -> None:
    """Makes an OPT layer of the class ``kind`` of a built layer of Keras, with the same kernel.

    Args:
        layer: of the class ``kind.plain``.
        **own: the arguments that Keras's layer does not have.

    Raises:
        ValueError: if an argument is wrong, or map(R) is not orthogonal; the layer then stays.
    """
    kernel = tf.convert_to_tensor(layer.kernel)
    try:
        _add_rotation(layer, kind, own)
        matrices = layer.orthogonal_matrices()
        if any(orthogonality_drift(q) > 1e-3 for q in matrices):
            raise ValueError(
                f"{layer.name}: the map makes no orthogonal matrix of the initial rotation"
            )
    except Exception:
        fold(layer, kernel)
        raise
    layer.rotate_back(matrices)


def _add_rotation(layer: keras.layers.Layer, kind: type[OrthogonalLayer], own: dict) -> None:
    layer.__class__ = kind
    layer.configure(**own)
    with weights_may_change(layer):
        layer.add_rotation()


def fold(layer: OrthogonalLayer, kernel: tf.Tensor | None = None) -> None:
    """Makes the layer of Keras of an OPT layer, with its current kernel or with ``kernel``."""
    kernel = layer.kernel if kernel is None else kernel
    with weights_may_change(layer):
        for name in _WEIGHTS:
            if isinstance(vars(layer).get(name), keras.Variable):
                remove_weight(layer, name)
        for name in (*layer.own_arguments, *layer.own_state):
            layer.__dict__.pop(name, None)
        layer.__class__ = layer.plain
        if not hasattr(layer, "_kernel"):
            layer._kernel = layer.add_weight(
                name="kernel", shape=kernel.shape, initializer=lambda *_, **__: kernel
            )
            if layer.bias is not None:
                move_to_end(layer, layer.bias)


def normalization_to_plain(layer: BatchNormalization) -> None:
    """Makes Keras's batch normalization of ours, with the averages that inference uses."""
    values = layer.plain_weights()
    remove_weight(layer, "start_weight")
    del layer.debias
    layer.__class__ = keras.layers.BatchNormalization
    for name, value in values.items():
        getattr(layer, name).assign(value)


@contextlib.contextmanager
def _plain_form(model: keras.layers.Layer) -> Iterator[None]:
    """Has OPT layers pass for layers of Keras while the model is copied.

    It also holds back what a copy does not need, optimizers, and gives each lambda a name for the
    time: by its name Keras finds the function itself, with all that it refers to.
    """
    layers = [model, *all_layers(model)]
    functions = {
        f"lambda_{number}": layer.function
        for number, layer in enumerate(layers)
        if isinstance(layer, keras.layers.Lambda)
        and getattr(layer.function, "__name__", "") == "<lambda>"
    }
    classes = {type(v).__name__: type(v) for v in layers if type(v).__module__[:6] != "keras."}
    unregistered = {k: v for k, v in classes.items() if keras.saving.get_registered_name(v) == k}
    with contextlib.ExitStack() as undo:
        for layer in layers:
            if isinstance(layer, OrthogonalLayer) and layer.built:
                undo.callback(setattr, layer, "__class__", type(layer))
                undo.callback(layer.__dict__.pop, "_kernel")
                layer.__dict__["_kernel"] = layer.kernel_of(layer.fix.value)
                layer.__class__ = layer.plain
            if isinstance(layer, keras.Model):
                for name, value in (("compiled", False), ("optimizer", None)):
                    undo.callback(setattr, layer, name, getattr(layer, name, value))
                    setattr(layer, name, value)
        for name, function in functions.items():
            undo.callback(setattr, function, "__name__", "<lambda>")
            function.__name__ = name
        with keras.saving.custom_object_scope(functions | unregistered):
            yield


def copied(model: keras.layers.Layer) -> keras.layers.Layer:
    """Returns a copy of a model, which is not compiled.

    Keras copies by its own saving and loading: vocabularies, statistics and shared layers are kept.
    A model that is rebuilt from its constructor's arguments would come back with plain layers, so
    that OPT layers are copied as plain ones and rotated again.

    Raises:
        ValueError: if Keras cannot copy it.
    """
    try:
        with _plain_form(model):
            result = copy.deepcopy(model)
            if not result.built:
                raise ValueError("its copy is not built, which takes a method `build`")
            layers = list(zip(all_layers(model), all_layers(result), strict=True))
            changed = [
                old.name
                for old, new in layers
                if type(old) is not type(new) or old.built != new.built
            ]
            if changed:
                raise ValueError(f"these layers come back as others: {', '.join(changed)}")
    except Exception as error:
        cause: BaseException = error
        while cause.__context__:
            cause = cause.__context__
        reason = textwrap.shorten(str(cause), 200)
        raise ValueError(
            f"Keras cannot copy {model.name}: {reason}; with copy=False it is changed in place"
        ) from error
    for old, new in layers:
        if isinstance(old, OrthogonalLayer) and old.built:
            own = {name: getattr(old, name) for name in old.own_arguments}
            _add_rotation(new, type(old), own | {"check_map": False})
            new.check_map = old.check_map
            for ours, theirs in zip(old.weights, new.weights, strict=True):
                theirs.assign(ours)
                theirs.trainable = ours.trainable
    return result


def refuse_to_lose_layers(model: keras.layers.Layer) -> None:
    """Has layers and models refuse a configuration in which OPT layers inside them are missing.

    A layer of one's own is rebuilt from its constructor's arguments, with plain layers: a file of
    the model could be written and not be loaded.
    """
    for holder in [model, *all_layers(model)]:
        inside = any(isinstance(layer, OrthogonalLayer) for layer in all_layers(holder))
        if inside and "get_config" not in vars(holder):
            holder.get_config = _checked(holder, holder.get_config)


def _checked(holder: keras.layers.Layer, get_config: Callable[[], dict]) -> Callable[[], dict]:
    @functools.wraps(get_config)
    def checked() -> dict:
        config = get_config()
        kept = collections.Counter(_names_in(config))
        lost = []
        for path, layer in layers_by_path(holder).items():
            if isinstance(layer, OrthogonalLayer):
                kept[layer.name] -= 1
                lost += [path] if kept[layer.name] < 0 else []
        if lost:
            raise ValueError(
                f"{holder.name} would be loaded with plain layers in place of the OPT layers "
                f"{', '.join(lost)}. Save `fold_model(model)`, or only weights: with "
                "`save_rotations`, or `model.save_weights`"
            )
        return config

    return checked


def _names_in(config: Any) -> Iterator[str]:
    """Yields the names of the OPT layers in a configuration."""
    if isinstance(config, dict):
        if str(config.get("registered_name")).startswith("opt>") and "name" in config["config"]:
            yield config["config"]["name"]
        config = list(config.values())
    if isinstance(config, list | tuple):
        for part in config:
            yield from _names_in(part)
