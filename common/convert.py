"""Turns the layers of a plain model into OPT layers, and OPT layers into plain ones."""

import dataclasses
import fnmatch
import logging
from collections.abc import Iterable

import keras
import numpy as np

from .layers import BatchNormalization
from .layers.in_place import (
    copied,
    fold,
    normalization_to_plain,
    refuse_to_lose_layers,
    rotate,
)
from .layers.kinds import ROTATED
from .layers.orthogonal import OrthogonalLayer, contracted_axes
from .marks import ROTATION, purpose_of
from .orthogonal import Map, gram_schmidt
from .private import all_layers, layers_by_path, own_weights
from .regularizers import HypersphericalEnergy

_LOGGER = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Conversion:
    """What `orthogonalize_model` did.

    Attributes:
        rotated: paths of the layers that became OPT layers.
        added_weights: by how many numbers the model has grown.
        left: by path, layers with neurons that stayed as they are, and why.
        trained_weights: how many numbers the model trains.
        all_weights: of how many.
    """

    rotated: tuple[str, ...]
    added_weights: int
    left: dict[str, str]
    trained_weights: int
    all_weights: int

    def __str__(self) -> str:
        layers = "layer" if len(self.rotated) == 1 else "layers"
        text = f"{len(self.rotated)} {layers} rotated, which adds {self.added_weights:,} weights; "
        text += f"{self.trained_weights:,} of {self.all_weights:,} are trained"
        reasons: dict[str, list[str]] = {}
        for path, reason in self.left.items():
            reasons.setdefault(reason, []).append(path)
        left = [f"{', '.join(paths)} ({reason})" for reason, paths in reasons.items()]
        return text + (f"; left as they are: {'; '.join(left)}" if left else "")


def orthogonalize_model(
    model: keras.Model,
    orthogonalize: Map | str = gram_schmidt,
    layer_names: str | Iterable[str] | None = None,
    rotation_initializer="identity",
    return_conversion: bool = False,
    block_size: int | None = None,
    rotations_only: bool = False,
    copy: bool = True,
) -> keras.Model | tuple[keras.Model, Conversion]:
    """Returns ``model`` with OPT layers in place of Dense, EinsumDense and Conv1D to Conv3D.

    They are found wherever they lie: in models, wrappers, attention and layers of your own. The
    outputs stay the same. ``rotation_initializer`` draws R, and a kernel K becomes
    ``fix = map(R)^T K``, so that map(R) @ fix = K. At R = I, fix is K itself. The exception is
    Householder's map in even dimensions, where map(I) is a reflection. OPT layers in ``model``
    stay as they are.

    Which layers were rotated and which were left is printed in one line. After
    `keras.config.disable_interactive_logging()` it is logged instead (logger ``common.convert`` or
    ``opt_keras.convert``), as a warning where layers were left that nobody asked to leave. A
    ``kernel_regularizer`` is dropped, with a logged warning: the norm of a neuron that is only
    rotated cannot change.

    Args:
        model: built; functional, sequential or a class of your own.
        orthogonalize: the map, or its name. Defaults to Gram-Schmidt.
        layer_names: which layers to rotate: a name, a path such as ``block1/attention/query`` or a
            pattern such as ``block*/query``, or several. Defaults to all.
        rotation_initializer: for the rotations. Defaults to I.
        return_conversion: whether to return a `Conversion` as well. Defaults to False.
        block_size: as in `OrthogonalLayer`, for all layers that are rotated. Defaults to None.
        rotations_only: whether to freeze all other weights, for fine-tuning; ``fold_model`` merges
            the rotations. Files do not store which weights of a layer are frozen: call this again
            on a model that was loaded. Defaults to False.
        copy: whether to convert a copy. False converts ``model`` itself. Defaults to True.

    Returns:
        A model that is not compiled, its layers and inputs with the same names; with
        ``return_conversion``, the model and the `Conversion`.

    Raises:
        ValueError: if ``model`` is not built, cannot be copied or has nothing to rotate; if a name
            or pattern fits no layer that can be rotated; if an argument is wrong; or if map(R) is
            not orthogonal.
    """
    if not model.built:
        raise ValueError("the model must be built: call it once, or give it an Input")
    layers = layers_by_path(model)
    left = {path: reason for path, layer in layers.items() if (reason := _reason_to_leave(layer))}
    chosen = [path for path, layer in layers.items() if type(layer) in ROTATED and path not in left]
    opt = [path for path, layer in layers.items() if isinstance(layer, OrthogonalLayer)]
    if layer_names is not None:
        patterns = [layer_names] if isinstance(layer_names, str) else list(layer_names)
        fitting = {
            pattern: [p for p in layers if any(map(fnmatch.fnmatchcase, _names(p), [pattern] * 2))]
            for pattern in patterns
        }
        unknown = [k for k, paths in fitting.items() if not {*paths} & {*chosen, *opt}]
        if unknown:
            reasons = [f"{p}: {left[p]}" for k in unknown for p in fitting[k] if p in left]
            names = ", ".join(sorted(unknown))
            raise ValueError(f"no layers that can be rotated: {names}{_in_brackets(reasons)}")
        chosen = [path for path in chosen if any(path in paths for paths in fitting.values())]
        left = {}
    elif not chosen and not opt:
        reasons = [f"{path}: {reason}" for path, reason in left.items()]
        raise ValueError(f"there is no layer to rotate{_in_brackets(reasons)}")

    before = model.count_params()
    if copy:
        model = copied(model)
        layers = dict(zip(layers, all_layers(model), strict=True))
    penalties = {p: layers[p].kernel_regularizer for p in chosen if layers[p].kernel_regularizer}
    try:
        for path in chosen:
            layers[path].kernel_regularizer = None
            rotate(
                layers[path],
                ROTATED[type(layers[path])],
                orthogonalize=orthogonalize,
                rotation_initializer=rotation_initializer,
                block_size=block_size,
            )
    except Exception:  # the model stays as it was
        for path in chosen:
            if isinstance(layers[path], OrthogonalLayer):
                fold(layers[path])
            layers[path].kernel_regularizer = penalties.get(path)
            layers[path].kernel.regularizer = penalties.get(path)
        raise
    if rotations_only:
        _freeze_all_but_rotations(model)
    _forget_compilation(model)
    refuse_to_lose_layers(model)
    after = model.count_params()
    trained = sum(w.shape.num_elements() for w in model.trainable_weights)
    conversion = Conversion(tuple(chosen), after - before, left, trained, after)
    if penalties:
        _LOGGER.warning(
            "the kernel_regularizer of %s is dropped: a rotation does not change a neuron's norm",
            ", ".join(penalties),
        )
    if keras.config.is_interactive_logging_enabled():
        print(conversion)
    else:
        _LOGGER.log(logging.WARNING if left else logging.INFO, "%s", conversion)
    return (model, conversion) if return_conversion else model


def _names(path: str) -> tuple[str, str]:
    """Returns a layer's path and its name."""
    return path, path.rpartition("/")[2]


def _in_brackets(reasons: list[str]) -> str:
    return f" ({'; '.join(reasons)})" if reasons else ""


def _reason_to_leave(layer: keras.layers.Layer) -> str | None:
    """Returns why a layer with neurons of its own cannot be rotated; None for other layers."""
    if isinstance(layer, OrthogonalLayer):
        return None
    matrices = [w for w in own_weights(layer) if len(w.shape) >= 2]
    supported = next((plain for plain in ROTATED if isinstance(layer, plain)), None)
    if not supported:
        return type(layer).__name__ if matrices else None
    if type(layer) is not supported:
        return f"a subclass, {type(layer).__name__}"
    if not layer.built:
        return "not built"
    if layer.quantization_mode:
        return f"quantized, {layer.quantization_mode}"
    if layer.lora_enabled:
        return "has LoRA"
    if layer.kernel_constraint is not None:
        return "has a kernel_constraint"
    return None if contracted_axes(layer, len(layer.kernel.shape)) else "sums over no axis"


def _freeze_all_but_rotations(model: keras.Model) -> None:
    model.trainable = True
    for layer in [model, *all_layers(model)]:
        for weight in own_weights(layer):
            weight.trainable = purpose_of(weight) == ROTATION
        if not any(isinstance(v, OrthogonalLayer) for v in [layer, *all_layers(layer)]):
            layer.trainable = False  # the averages of a normalization stay too


def _forget_compilation(model: keras.Model) -> None:
    """Drops the optimizer and the functions that were traced with the layers of before."""
    for each in [model, *all_layers(model)]:
        if isinstance(each, keras.Model):
            each.compiled, each.optimizer = False, None
            each.train_function = each.test_function = each.predict_function = None


def fold_model(model: keras.Model, copy: bool = True) -> keras.Model:
    """Returns a plain model with the outputs that the OPT model ``model`` has at inference.

    OPT layers become layers of Keras with the current kernels. The debiased batch normalization
    becomes Keras's own. The result can be loaded and run without any code of this project.

    Args:
        model: built; a plain model is no error.
        copy: whether to fold a copy. False folds ``model`` itself. Defaults to True.

    Returns:
        A model that is not compiled.

    Raises:
        ValueError: if ``model`` is not built or cannot be copied, or a layer's rotation is not
            finite.
    """
    if not model.built:
        raise ValueError("the model must be built: call it once, or give it an Input")
    for path, layer in layers_by_path(model).items():
        if not isinstance(layer, OrthogonalLayer):
            continue
        for rotation in layer.rotations if layer.built else ():
            if not np.isfinite(rotation).all():
                raise ValueError(
                    f"{path} cannot be folded: its {rotation.name} is not finite; training has "
                    "broken down"
                )
    model = copied(model) if copy else model
    for layer in all_layers(model):
        if isinstance(layer, OrthogonalLayer):
            fold(layer)
        elif isinstance(layer, BatchNormalization):
            normalization_to_plain(layer)
        elif isinstance(getattr(layer, "kernel_regularizer", None), HypersphericalEnergy):
            layer.kernel_regularizer = layer.kernel.regularizer = None
    _forget_compilation(model)
    return model


def refold(model: keras.Model, folded: keras.Model) -> None:
    """Updates ``folded``, an earlier result of `fold_model(model)`, to the weights of ``model``."""
    for old, new in zip(all_layers(model), all_layers(folded), strict=True):
        values = own_weights(old)
        if type(old) is not type(new):
            named = {w.name: w for w in values} | old.plain_weights()
            values = [named[w.name] for w in new.weights]
        for value, weight in zip(values, own_weights(new), strict=True):
            weight.assign(value)
