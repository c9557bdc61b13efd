"""Copies of functional and sequential models, with other layers in place of some."""

import functools
from collections.abc import Callable

import keras

# the new layer, and a function that sets its weights from the old layer's
Replacement = tuple[keras.layers.Layer, Callable[[keras.layers.Layer, keras.layers.Layer], None]]


def copy_weights(old: keras.layers.Layer, new: keras.layers.Layer) -> None:
    """Gives ``new`` the weights of ``old``, a layer of the same kind."""
    for source, target in zip(old.weights, new.weights, strict=True):
        target.assign(source)


def convert_layers(
    model: keras.Model, replace: Callable[[keras.layers.Layer], Replacement | None]
) -> keras.Model:
    """Returns a copy of ``model`` with other layers in place of some.

    Args:
        model: functional or sequential, built; it is not changed.
        replace: takes a layer and returns its `Replacement`, or None for a plain copy.

    Raises:
        ValueError: if ``model`` is not built, or neither functional nor sequential.
    """
    if not model.built:
        raise ValueError("the model must be built: call it once, or give it an Input")
    if not _is_graph(model):
        raise ValueError(
            f"{model.name} must be functional or Sequential: the layers of a subclassed model "
            "cannot be replaced from outside"
        )
    pairs: list[tuple] = []

    @functools.cache  # a layer or model that is shared stays shared
    def clone(layer: keras.Operation) -> keras.Operation:
        if _is_graph(layer):
            return clone_graph(layer)
        if not isinstance(layer, keras.layers.Layer):  # an operation, such as the + of two tensors
            try:
                return layer.__class__.from_config(layer.get_config())
            except (NotImplementedError, TypeError):
                return layer  # it cannot be copied; without weights it can serve both models
        new, set_weights = replace(layer) or (
            type(layer).from_config(layer.get_config()),
            copy_weights,
        )
        pairs.append((layer, new, set_weights))
        return new

    def clone_graph(graph: keras.Model) -> keras.Model:
        inputs = None
        if not isinstance(graph, keras.Sequential):
            # Keras's own clones are called as their tensors, not as the layers
            starts = [layer for layer in graph.layers if isinstance(layer, keras.layers.InputLayer)]
            names = {id(layer.output): layer.name for layer in starts}
            inputs = keras.tree.map_structure(
                lambda t: keras.Input(batch_shape=t.shape, dtype=t.dtype, name=names[id(t)]),
                graph.input,
            )
        return keras.models.clone_model(graph, input_tensors=inputs, clone_function=clone)

    result = clone_graph(model)
    for old, new, set_weights in pairs:
        set_weights(old, new)
    # the clone of a compiled model would keep the optimizer, which a plain model does not need
    result.compiled, result.optimizer = False, None
    return result


def _is_graph(layer: keras.Operation) -> bool:
    """Returns whether ``layer`` is a functional or sequential model."""
    functional = isinstance(layer, keras.Model) and hasattr(layer, "operations")
    return functional or isinstance(layer, keras.Sequential)


def leaves_of(model: keras.Model) -> list[keras.layers.Layer]:
    """Returns the layers of a model and of the models inside it, each once, in a fixed order."""
    found: dict[keras.layers.Layer, None] = {}
    for layer in model.layers:
        found |= dict.fromkeys(leaves_of(layer) if isinstance(layer, keras.Model) else [layer])
    return list(found)
