"""Converts a plain model into an OPT model, and back."""

import dataclasses
import fnmatch
import logging
from collections import Counter
from collections.abc import Iterable

import keras
import numpy as np

from .layers import ROTATED, BatchNormalization
from .layers.in_place import check_kind, copied, fold, normalization_to_plain, rotate
from .layers.orthogonal import OrthogonalLayer, contracted_axes
from .marks import ROTATION, purpose_of
from .orthogonal import Map, gram_schmidt
from .private import all_layers, layers_by_path, own_weights
from .regularizers import HypersphericalEnergy, OrthogonalityPenalty

_LOGGER = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Conversion:
    """The report of `orthogonalize_model`.

    Attributes:
        rotated: paths of the layers that became OPT layers.
        added_weights: number of weights that the model has gained.
        left: the reason for each path of a layer with neurons that stayed as it was; empty if the
            layers were named.
        trained_weights: number of weights that are trained.
        all_weights: number of all weights.
    """

    rotated: tuple[str, ...]
    added_weights: int
    left: dict[str, str]
    trained_weights: int
    all_weights: int

    def __str__(self) -> str:
        layers = f"{len(self.rotated)} layer{'s' * (len(self.rotated) != 1)}"
        text = f"{layers} rotated, which adds {self.added_weights:,} weights; "
        text += f"{self.trained_weights:,} of {self.all_weights:,} are trained"
        left = [f"{path} ({reason})" for path, reason in self.left.items()]
        return text + (f"; left as they are: {', '.join(left)}" if left else "")


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

    Also of those in nested models, wrappers, attention and layers of yours. The outputs stay the
    same: ``rotation_initializer`` draws R, and a kernel K becomes ``fix = map(R)^T K``. OPT layers
    in ``model`` stay as they are.

    Prints in one line which layers were rotated and which were left, or logs it after
    `keras.config.disable_interactive_logging()`. A ``kernel_regularizer`` is dropped, with a
    warning: a rotation keeps norms.

    Args:
        model: built; functional, sequential or a class of your own.
        orthogonalize: the map, or its name. Defaults to Gram-Schmidt.
        layer_names: the layers to rotate: a name, a path such as ``block1/attention/query``, a
            pattern such as ``block*/query``, or several. Defaults to all.
        rotation_initializer: for the rotations. Defaults to I.
        return_conversion: whether to return a `Conversion` as well. Defaults to False.
        block_size: as in `OrthogonalLayer`, for all layers that are rotated. Defaults to None.
        rotations_only: whether to train all rotations and freeze all other weights, for
            fine-tuning. A file does not keep this: call it again on a loaded model. Defaults to
            False.
        copy: whether to convert a copy. False converts ``model`` itself; compile each model that
            contains it again. Defaults to True.

    Returns:
        The model, not compiled, with the same names; with ``return_conversion``, the model and a
        `Conversion`.

    Raises:
        ValueError: if ``model`` is not built, cannot be copied or has nothing to rotate, a name
            fits no layer that can be rotated, an argument is wrong, or map(R) is not orthogonal.
    """
    chosen, left = _choice(model, layer_names)
    before, layers = model.count_params(), layers_by_path(model)
    if copy:
        model = copied(model)
        layers = dict(zip(layers, all_layers(model), strict=True))
    penalties = {p: layers[p].kernel_regularizer for p in chosen if layers[p].kernel_regularizer}
    arguments = {
        "orthogonalize": orthogonalize,
        "rotation_initializer": rotation_initializer,
        "block_size": block_size,
    }
    kernels = {path: layers[path].kernel for path in chosen}
    try:
        for path in chosen:
            layers[path].kernel_regularizer = None
            rotate(layers[path], ROTATED[type(layers[path])], **arguments)
    except Exception:  # the model stays as it was, with the variables that it was compiled with
        for path in chosen:
            if isinstance(layers[path], OrthogonalLayer):
                fold(layers[path], kernels[path])
            layers[path].kernel_regularizer = penalties.get(path)
        raise
    if rotations_only:
        _freeze_all_but_rotations(model)
    _forget_compilation(model)
    after = model.count_params()
    trained = sum(w.shape.num_elements() for w in model.trainable_weights)
    conversion = Conversion(tuple(chosen), after - before, left, trained, after)
    if penalties:
        names = ", ".join(penalties)
        _LOGGER.warning("the kernel_regularizer of %s is dropped: a rotation keeps norms", names)
    if keras.config.is_interactive_logging_enabled():
        print(conversion)
    else:
        _LOGGER.log(logging.WARNING if left else logging.INFO, "%s", conversion)
    return (model, conversion) if return_conversion else model


def _choice(
    model: keras.Model, layer_names: str | Iterable[str] | None
) -> tuple[list[str], dict[str, str]]:
    """Returns the paths of the layers to rotate, and why layers are left that nobody named."""
    _check_built(model)
    layers = layers_by_path(model)
    users = Counter(id(w) for layer in [model, *layers.values()] for w in own_weights(layer))
    reasons = {path: _reason_to_leave(layer, users) for path, layer in layers.items()}
    left = {path: reason for path, reason in reasons.items() if reason}
    chosen = [path for path, layer in layers.items() if type(layer) in ROTATED and path not in left]
    opt = [path for path, layer in layers.items() if isinstance(layer, OrthogonalLayer)]
    if layer_names is None:
        if not chosen and not opt:
            raise ValueError(f"there is no layer to rotate{_in_brackets(left, left)}")
        return chosen, left
    patterns = [layer_names] if isinstance(layer_names, str) else list(layer_names)
    names = {path: (path, path.rpartition("/")[2]) for path in layers}
    fitting = {k: [path for path in layers if fnmatch.filter(names[path], k)] for k in patterns}
    if unknown := [k for k, paths in fitting.items() if not {*paths} & {*chosen, *opt}]:
        why = _in_brackets(left, [path for k in unknown for path in fitting[k]])
        raise ValueError(f"no layers that can be rotated: {', '.join(sorted(unknown))}{why}")
    return [path for path in chosen if any(path in paths for paths in fitting.values())], {}


def _in_brackets(left: dict[str, str], paths: Iterable[str]) -> str:
    reasons = [f"{path}: {left[path]}" for path in paths if path in left]
    return f" ({'; '.join(reasons)})" if reasons else ""


def _check_built(model: keras.Model) -> None:
    if not model.built:
        raise ValueError("the model must be built: call it once, or give it an Input")


def _reason_to_leave(layer: keras.layers.Layer, users: Counter[int]) -> str | None:
    """Returns why a layer with neurons cannot be rotated; None for other layers."""
    if isinstance(layer, OrthogonalLayer):
        return None
    if type(layer) not in ROTATED:
        if isinstance(layer, tuple(ROTATED)):
            return f"a subclass, {type(layer).__name__}"
        has_matrix = any(len(w.shape) >= 2 for w in own_weights(layer))
        return type(layer).__name__ if has_matrix else None
    if not layer.built:
        return "not built"
    if layer.quantization_mode:
        return f"quantized, {layer.quantization_mode}"
    if layer.lora_enabled:
        return "has LoRA"
    if layer.kernel_constraint is not None:
        return "has a kernel_constraint"
    if users[id(layer.kernel)] > 1:  # as with SpectralNormalization, or a tied decoder
        return "another layer uses its kernel"
    return None if contracted_axes(layer, len(layer.kernel.shape)) else "sums over no axis"


def _freeze_all_but_rotations(model: keras.Model) -> None:
    model.trainable = True
    for layer in [model, *all_layers(model)]:
        for weight in own_weights(layer):
            weight.trainable = purpose_of(weight) == ROTATION
        if not any(isinstance(v, OrthogonalLayer) for v in [layer, *all_layers(layer)]):
            layer.trainable = False  # the averages of a normalization stay too


def _forget_compilation(model: keras.Model) -> None:
    for each in [model, *all_layers(model)]:
        if isinstance(each, keras.Model):
            each.compiled, each.optimizer = False, None
            each.train_function = each.test_function = each.predict_function = None


def fold_model(model: keras.Model, copy: bool = True) -> keras.Model:
    """Returns a plain model with the outputs that the OPT model ``model`` has at inference.

    OPT layers become Keras's, and so does our batch normalization; penalties of this project are
    dropped, and what is frozen stays so. The result can be loaded and run without any code of this
    project, except for that of a class that makes OPT layers itself.

    Args:
        model: built; a plain model is no error.
        copy: whether to fold a copy. False folds ``model`` itself; compile each model that contains
            it again. Defaults to True.

    Returns:
        The model, not compiled.

    Raises:
        ValueError: if ``model`` or an OPT layer in it is not built, the model cannot be copied, a
            rotation is not finite, or a layer is of a subclass of ours with its own ``call``.
    """
    _check_built(model)
    for weight in model.weights:
        if purpose_of(weight) == ROTATION and not np.isfinite(weight).all():
            raise ValueError(f"{weight.path} is not finite, as after a training that broke down")
    for layer in all_layers(model):
        check_kind(layer)
        is_ours = isinstance(layer, BatchNormalization)
        if (is_ours or isinstance(layer, OrthogonalLayer)) and not layer.built:
            raise ValueError(f"{layer.name} is not built: call it once")
        if is_ours and type(layer).call is not BatchNormalization.call:
            raise ValueError(f"{layer.name} is of a subclass of our BatchNormalization")
    model = copied(model) if copy else model
    for layer in all_layers(model):
        if isinstance(layer, OrthogonalLayer):
            fold(layer, layer.kernel)
        elif isinstance(layer, BatchNormalization):
            normalization_to_plain(layer)
        for each in (layer, *own_weights(layer)):
            for name, value in [*vars(each).items()]:
                if isinstance(value, HypersphericalEnergy | OrthogonalityPenalty):
                    setattr(each, name, None)
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
