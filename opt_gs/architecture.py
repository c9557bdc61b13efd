"""OPT (GS): each OPT layer rotates its neurons by Gram-Schmidt on the rows of its rotation."""

import functools
from collections.abc import Callable

import keras

from common.backbones.cnn6 import cnn6
from common.layers import OrthogonalConv2D
from common.orthogonal import gram_schmidt
from common.training.method import Method


def build_model(
    backbone: Callable[..., keras.Model] = cnn6,
    rotation_stddev: float = 1.0,
    learn_neurons: bool = False,
    **kwargs,
) -> keras.Model:
    """Returns ``backbone`` with OPT layers that use this map.

    Args:
        backbone: a function of the layer factory. Defaults to `cnn6`.
        rotation_stddev: rotations are drawn from N(0, rotation_stddev^2). Defaults to 1.
        learn_neurons: whether the neurons are trained too. Defaults to False.
        **kwargs: the backbone's own arguments (num_classes, widths).
    """
    layer = functools.partial(
        OrthogonalConv2D,
        orthogonalize=gram_schmidt,
        rotation_initializer=keras.initializers.RandomNormal(stddev=rotation_stddev),
        learn_neurons=learn_neurons,
        use_bias=False,
    )
    return backbone(layer, **kwargs)


def method(**options) -> Method:
    """Returns the method; ``options`` are those of `build_model`."""
    return Method(functools.partial(build_model, **options))


METHOD = method()
