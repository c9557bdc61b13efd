"""The model of the methods that have the same OPT layer everywhere."""

import functools
from collections.abc import Callable

import keras

from ..backbones import cnn6
from ..layers import OrthogonalConv2D
from ..orthogonal import Map
from .settings import RotationSettings


def opt_model(
    backbone: Callable[..., keras.Model] = cnn6,
    *,
    orthogonalize: Map,
    rotation_stddev: float = RotationSettings.rotation_stddev,
    rotation_initializer: str | keras.initializers.Initializer | None = None,
    rotation_regularizer: keras.regularizers.Regularizer | None = None,
    learn_neurons: bool = RotationSettings.learn_neurons,
    block_size: int = RotationSettings.block_size,
    **kwargs,
) -> keras.Model:
    """Returns ``backbone`` with OPT layers.

    Args:
        backbone: takes the layer factory. Defaults to CNN-6.
        orthogonalize: the map.
        rotation_stddev: rotations start N(0, rotation_stddev^2). Defaults to 1.
        rotation_initializer: another start of the rotations. Defaults to none.
        rotation_regularizer, learn_neurons: of the layers. Default to none and False.
        block_size: that of the layers; 0 for None. Defaults to 0.
        **kwargs: for the backbone (num_classes, widths).
    """
    layer = functools.partial(
        OrthogonalConv2D,
        orthogonalize=orthogonalize,
        rotation_initializer=rotation_initializer
        or keras.initializers.RandomNormal(stddev=rotation_stddev),
        rotation_regularizer=rotation_regularizer,
        learn_neurons=learn_neurons,
        block_size=block_size or None,
        use_bias=False,
    )
    return backbone(layer, **kwargs)
