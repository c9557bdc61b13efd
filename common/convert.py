"""Turns plain models into OPT models, and OPT models into plain ones."""

import dataclasses
import logging
from collections.abc import Iterable

import keras
import tensorflow as tf

from . import layers
from .cloning import Replacement, convert_layers, copy_weights, leaves_of
from .energy import is_orthogonal_layer, orthogonality_drift
from .layers import convolution
from .layers.blocks import turned_back
from .orthogonal import Map, gram_schmidt
from .private import all_layers
from .regularizers import HypersphericalEnergy

_LOGGER = logging.getLogger(__name__)
_TURNED = {keras.layers.Conv2D: layers.OrthogonalConv2D, keras.layers.Dense: layers.OrthogonalDense}
# the arguments that a layer of Keras shares with ours
_SHARED = {
    keras.layers.Conv2D: (*convolution.OWN, "activation", "use_bias"),
    keras.layers.Dense: ("units", "activation", "use_bias"),
    keras.layers.BatchNormalization: ("axis", "momentum", "epsilon", "center", "scale"),
}
# Keras's other layers that have neurons
_OTHER_KERNELS = (
    keras.layers.Conv1D,
    keras.layers.Conv3D,
    keras.layers.Conv1DTranspose,
    keras.layers.Conv2DTranspose,
    keras.layers.Conv3DTranspose,
    keras.layers.DepthwiseConv1D,
    keras.layers.DepthwiseConv2D,
    keras.layers.SeparableConv1D,
    keras.layers.SeparableConv2D,
    keras.layers.EinsumDense,
)


@dataclasses.dataclass(frozen=True)
class Conversion:
    """What `orthogonalize_model` did.

    Attributes:
        turned: names of the layers that became OPT layers.
        added_weights: by how many numbers the model has grown.
        left: by name, layers with neurons that stayed as they are, and why.
    """

    turned: tuple[str, ...]
    added_weights: int
    left: dict[str, str]

    def __str__(self) -> str:
        layers_of = "layer" if len(self.turned) == 1 else "layers"
        text = f"{len(self.turned)} {layers_of} turned into OPT layers, "
        text += f"which adds {self.added_weights:,} weights"
        reasons: dict[str, list[str]] = {}
        for name, reason in self.left.items():
            reasons.setdefault(reason, []).append(name)
        left = [f"{', '.join(names)} ({reason})" for reason, names in reasons.items()]
        return text + (f"; left as they are: {'; '.join(left)}" if left else "")


def orthogonalize_model(
    model: keras.Model,
    orthogonalize: Map | str = gram_schmidt,
    layer_names: str | Iterable[str] | None = None,
    rotation_initializer="identity",
    return_conversion: bool = False,
    block_size: int | None = None,
) -> keras.Model | tuple[keras.Model, Conversion]:
    """Returns a copy of ``model`` with OPT layers in place of Conv2D and Dense.

    The outputs stay the same. ``rotation_initializer`` draws R, and a kernel K becomes
    ``fix = map(R)^T K``, so that map(R) @ fix = K. At R = I, fix is K itself. The exception is
    Householder's map in even dimensions, where map(I) is a reflection.

    What was turned and what was left is printed in one line. After
    `keras.config.disable_interactive_logging()` it is logged instead (logger ``common.convert`` or
    ``opt_keras.convert``), as a warning where layers were left that nobody asked to leave. A
    ``kernel_regularizer`` is dropped, with a logged warning: the norm of a neuron that is only
    turned cannot change.

    Args:
        model: functional or sequential, built; it is not changed.
        orthogonalize: the map or its name, as in `OrthogonalConv2D`. Defaults to Gram-Schmidt.
        layer_names: which layers to replace, a name or several; each must be a Conv2D or Dense.
            Defaults to all of these.
        rotation_initializer: for the rotations. Defaults to I.
        return_conversion: whether to return a `Conversion` as well. Defaults to False.
        block_size: as in `OrthogonalConv2D`, for all layers that are replaced. Defaults to None.

    Returns:
        A model that is not compiled, its layers and inputs with the same names; with
        ``return_conversion``, the model and the `Conversion`.

    Raises:
        ValueError: if ``model`` is not built, or neither functional nor sequential, or has nothing
            to turn; if a name is not that of a Conv2D or Dense; if a layer has something that OPT
            layers do not support; if ``block_size`` is below 2; or if map(R) is not orthogonal.
    """
    names = {layer_names} if isinstance(layer_names, str) else layer_names
    wanted = None if names is None else set(names)
    turned: dict[str, keras.layers.Layer] = {}
    regularized = []

    def replace(layer: keras.layers.Layer) -> Replacement | None:
        kind = type(layer)
        if kind not in _TURNED or (wanted is not None and layer.name not in wanted):
            return None
        turned[layer.name] = layer
        for name in ("kernel_constraint", "bias_constraint"):
            if getattr(layer, name) is not None:
                raise ValueError(
                    f"{layer.name} has a {name}, which OPT layers do not support; leave it out by "
                    "naming the others in `layer_names`"
                )
        if layer.kernel_regularizer is not None:
            regularized.append(layer.name)
        if getattr(layer, "data_format", "channels_last") != "channels_last":
            raise ValueError(f"{layer.name} is channels_first, which OPT layers do not support")
        new = _TURNED[kind](
            **_shared_arguments(layer, kind),
            orthogonalize=orthogonalize,
            rotation_initializer=rotation_initializer,
            block_size=block_size,
            bias_regularizer=layer.bias_regularizer,
            activity_regularizer=layer.activity_regularizer,
        )
        return new, _set_fix

    converted = convert_layers(model, replace)
    if wanted is not None and wanted - turned.keys():
        missing = ", ".join(sorted(wanted - turned.keys()))
        raise ValueError(f"no Conv2D or Dense layers: {missing}")
    left = {} if wanted is not None else _left_as_they_are(model, list(turned.values()))
    added = converted.count_params() - model.count_params()
    conversion = Conversion(tuple(turned), added, left)
    if not turned:
        reasons = "; ".join(f"{name}: {reason}" for name, reason in left.items())
        raise ValueError(f"there is no Conv2D or Dense to turn{f' ({reasons})' if reasons else ''}")
    if regularized:
        _LOGGER.warning(
            "the kernel_regularizer of %s is dropped: turning does not change a neuron's norm",
            ", ".join(regularized),
        )
    if keras.config.is_interactive_logging_enabled():
        print(conversion)
    else:
        _LOGGER.log(logging.WARNING if left else logging.INFO, "%s", conversion)
    return (converted, conversion) if return_conversion else converted


def _left_as_they_are(model: keras.Model, turned: list[keras.layers.Layer]) -> dict[str, str]:
    """Returns the layers with neurons that were not turned, and why."""
    reached, left = leaves_of(model), {}
    for layer in all_layers(model):
        if layer in turned or is_orthogonal_layer(layer):
            continue
        if type(layer) in _TURNED:
            left[layer.name] = "inside a wrapper or another layer"
        elif isinstance(layer, keras.layers.Conv2D | keras.layers.Dense):
            left[layer.name] = f"a subclass, {type(layer).__name__}"
        elif isinstance(layer, _OTHER_KERNELS) and layer in reached:
            left[layer.name] = type(layer).__name__
    return left


def _set_fix(plain: keras.layers.Layer, turned: keras.layers.Layer) -> None:
    kernel = tf.reshape(tf.cast(plain.kernel, turned.fix.dtype), turned.fix.shape)
    matrices = turned.orthogonal_matrices()
    if any(orthogonality_drift(q) > 1e-3 for q in matrices):
        raise ValueError(
            f"{turned.name}: the map makes no orthogonal matrix of the initial rotation"
        )
    turned.fix.assign(turned_back(matrices, kernel))
    if plain.use_bias:
        turned.bias.assign(plain.bias)


def fold_model(model: keras.Model) -> keras.Model:
    """Returns a plain model with the outputs that the OPT model ``model`` has at inference.

    OPT layers become Conv2D and Dense with the current kernels. The debiased batch normalization
    becomes Keras's own. The result can be loaded and run without any code of this project.

    Args:
        model: functional or sequential, built; it is not changed.

    Returns:
        A model that is not compiled.

    Raises:
        ValueError: if ``model`` is not built, if a rotation is not finite, or if an OPT layer is
            inside another layer, such as a wrapper: it cannot be replaced there.
    """
    for layer in filter(is_orthogonal_layer, all_layers(model)):
        for rotation in layer.rotations if layer.built else ():
            if not tf.reduce_all(tf.math.is_finite(rotation)):
                raise ValueError(
                    f"{layer.name} cannot be folded: its {rotation.name} is not finite; "
                    "training has broken down"
                )
    folded = convert_layers(model, _folded)
    for layer in all_layers(folded):
        if _folded(layer) is not None:
            raise ValueError(f"{layer.name} lies inside another layer and cannot be folded")
    return folded


def refold(model: keras.Model, folded: keras.Model) -> None:
    """Updates ``folded``, an earlier result of `fold_model(model)`, to the weights of ``model``."""
    for old, new in zip(leaves_of(model), leaves_of(folded), strict=True):
        replacement = _folded(old)
        (replacement[1] if replacement else copy_weights)(old, new)


def _folded(layer: keras.layers.Layer) -> Replacement | None:
    for plain, turned in _TURNED.items():
        if isinstance(layer, turned):
            return plain(**_shared_arguments(layer, plain)), _set_kernel
    if isinstance(layer, layers.BatchNormalization):
        plain = keras.layers.BatchNormalization
        return plain(**_shared_arguments(layer, plain)), _set_averages
    if isinstance(getattr(layer, "kernel_regularizer", None), HypersphericalEnergy):
        config = layer.get_config() | {"kernel_regularizer": None}
        return type(layer).from_config(config), copy_weights
    return None


def _set_kernel(turned: keras.layers.Layer, plain: keras.layers.Layer) -> None:
    plain.kernel.assign(turned.kernel)
    if turned.use_bias:
        plain.bias.assign(turned.bias)


def _set_averages(ours: layers.BatchNormalization, plain: keras.layers.BatchNormalization) -> None:
    plain.moving_mean.assign(ours.averages()[0])
    plain.moving_variance.assign(ours.averages()[1])
    for name in ("gamma", "beta"):
        if getattr(ours, name) is not None:
            getattr(plain, name).assign(getattr(ours, name))


def _shared_arguments(layer: keras.layers.Layer, plain: type[keras.layers.Layer]) -> dict:
    names = (*_SHARED[plain], "name", "trainable")
    return {name: getattr(layer, name) for name in names} | {"dtype": layer.dtype_policy}
