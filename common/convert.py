"""Turns plain models into OPT models, and OPT models into plain ones."""

from collections.abc import Callable, Iterable

import keras
import tensorflow as tf

from . import layers
from .orthogonal import Map, gram_schmidt, product
from .private import all_layers
from .regularizers import HypersphericalEnergy

# the new layer, and a function that sets its weights from the old layer's
Replacement = tuple[keras.layers.Layer, Callable[[keras.layers.Layer, keras.layers.Layer], None]]


def orthogonalize_model(
    model: keras.Model,
    orthogonalize: Map = gram_schmidt,
    layer_names: Iterable[str] | None = None,
    rotation_initializer="identity",
) -> keras.Model:
    """Returns a copy of ``model`` with OPT layers in place of Conv2D and Dense.

    The outputs stay the same. ``rotation_initializer`` draws R, and a kernel K becomes
    ``fix = map(R)^T K``, so that map(R) @ fix = K. At R = I, fix is K itself. The exception is
    Householder's map in even dimensions, where map(I) is a reflection.

    Args:
        model: functional or sequential, built; it is not changed.
        orthogonalize: the map. Defaults to Gram-Schmidt.
        layer_names: which layers to replace; each must be a Conv2D or Dense. Defaults to all of
            these.
        rotation_initializer: for the rotations. Defaults to I.

    Returns:
        A model that is not compiled. Its layers have the same names.

    Raises:
        ValueError: if ``model`` is not built, if a name is not that of a Conv2D or Dense, if a
            layer has something that OPT layers do not support, or if map(R) is not orthogonal.
    """
    wanted = None if layer_names is None else set(layer_names)
    found = set()

    def replace(layer: keras.layers.Layer) -> Replacement | None:
        if type(layer) not in (keras.layers.Conv2D, keras.layers.Dense) or (
            wanted is not None and layer.name not in wanted
        ):
            return None
        found.add(layer.name)
        for name in ("kernel_constraint", "kernel_regularizer", "bias_constraint"):
            if getattr(layer, name) is not None:
                raise ValueError(f"{layer.name} has a {name}, which OPT layers do not support")
        if getattr(layer, "data_format", "channels_last") != "channels_last":
            raise ValueError(f"{layer.name} is channels_first, which OPT layers do not support")
        new = (
            layers.OrthogonalConv2D
            if isinstance(layer, keras.layers.Conv2D)
            else layers.OrthogonalDense
        )
        arguments = _shared_arguments(layer, new)
        arguments |= {
            "orthogonalize": orthogonalize,
            "rotation_initializer": rotation_initializer,
            "name": layer.name,
        }
        arguments |= {
            name: getattr(layer, name) for name in ("bias_regularizer", "activity_regularizer")
        }
        return new(**arguments), _set_fix

    converted = _convert(model, replace)
    if wanted is not None and wanted - found:
        raise ValueError(f"no Conv2D or Dense layers: {', '.join(sorted(wanted - found))}")
    return converted


def _set_fix(plain: keras.layers.Layer, turned: keras.layers.Layer) -> None:
    kernel = tf.reshape(tf.cast(plain.kernel, turned.fix.dtype), turned.fix.shape)
    identity = tf.eye(kernel.shape[0], dtype=kernel.dtype)
    start = product(turned.orthogonalize, turned.rotation.value, identity)
    if tf.reduce_max(tf.abs(tf.matmul(start, start, transpose_a=True) - identity)) > 1e-3:
        raise ValueError(
            f"{turned.name}: the map makes no orthogonal matrix of the initial rotation"
        )
    turned.fix.assign(tf.matmul(start, kernel, transpose_a=True))
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
        ValueError: if ``model`` is not built, or has an OPT layer inside another layer, such as a
            wrapper: it cannot be replaced there.
    """
    folded = _convert(model, _folded)
    for layer in all_layers(folded):
        if _folded(layer) is not None:
            raise ValueError(f"{layer.name} lies inside another layer and cannot be folded")
    return folded


def refold(model: keras.Model, folded: keras.Model) -> None:
    """Updates ``folded``, an earlier result of `fold_model(model)`, to the weights of ``model``."""
    for old, new in zip(_leaves(model), _leaves(folded), strict=True):
        replacement = _folded(old)
        (replacement[1] if replacement else _copy_weights)(old, new)


def _folded(layer: keras.layers.Layer) -> Replacement | None:
    if isinstance(layer, layers.OrthogonalConv2D | layers.OrthogonalDense):
        new = (
            keras.layers.Conv2D
            if isinstance(layer, layers.OrthogonalConv2D)
            else keras.layers.Dense
        )
        return new(**_shared_arguments(layer, new), name=layer.name), _set_kernel
    if isinstance(layer, layers.BatchNormalization):
        new = keras.layers.BatchNormalization
        return new(**_shared_arguments(layer, new), name=layer.name), _set_averages
    if isinstance(getattr(layer, "kernel_regularizer", None), HypersphericalEnergy):
        return type(layer).from_config(
            layer.get_config() | {"kernel_regularizer": None}
        ), _copy_weights
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


_SHARED = {
    keras.layers.Conv2D: [
        "filters",
        "kernel_size",
        "strides",
        "padding",
        "dilation_rate",
        "groups",
        "activation",
        "use_bias",
    ],
    keras.layers.Dense: ["units", "activation", "use_bias"],
    keras.layers.BatchNormalization: ["axis", "momentum", "epsilon", "center", "scale"],
}
_SHARED[layers.OrthogonalConv2D] = _SHARED[keras.layers.Conv2D]
_SHARED[layers.OrthogonalDense] = _SHARED[keras.layers.Dense]


def _shared_arguments(layer: keras.layers.Layer, new: type[keras.layers.Layer]) -> dict:
    arguments = {name: getattr(layer, name) for name in _SHARED[new]}
    return {**arguments, "dtype": layer.dtype_policy, "trainable": layer.trainable}


def _copy_weights(old: keras.layers.Layer, new: keras.layers.Layer) -> None:
    for source, target in zip(old.weights, new.weights, strict=True):
        target.assign(source)


def _convert(
    model: keras.Model, replace: Callable[[keras.layers.Layer], Replacement | None]
) -> keras.Model:
    if not model.built:
        raise ValueError("the model must be built: call it once, or give it an Input")
    pairs = []

    def clone(layer: keras.layers.Layer) -> keras.layers.Layer:
        new, set_weights = replace(layer) or (
            layer.__class__.from_config(layer.get_config()),
            _copy_weights,
        )
        pairs.append((layer, new, set_weights))
        return new

    result = keras.models.clone_model(model, clone_function=clone, recursive=True)
    for old, new, set_weights in pairs:
        set_weights(old, new)
    # the clone of a compiled model would keep the optimizer, which a plain model does not need
    result.compiled, result.optimizer = False, None
    return result


def _leaves(model: keras.Model) -> list[keras.layers.Layer]:
    """Returns the layers of a model and of the models inside it, each once, in a fixed order."""
    found = []
    for layer in model.layers:
        inner = _leaves(layer) if isinstance(layer, keras.Model) else [layer]
        found += [leaf for leaf in inner if not any(leaf is other for other in found)]
    return found
