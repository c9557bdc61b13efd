"""OPT (OR): rotations are kept near to orthogonal by a penalty, and turn the neurons as they are."""

import functools
from collections.abc import Callable

import keras

from common.backbones.cnn6 import cnn6
from common.layers import OrthogonalConv2D
from common.orthogonal import identity
from common.regularizers import OrthogonalityPenalty
from common.training.method import Method


def build_model(
    backbone: Callable[..., keras.Model] = cnn6,
    rotation_stddev: float = 1.0,
    learn_neurons: bool = False,
    **kwargs,
) -> keras.Model:
    """Returns ``backbone`` with penalized rotations.

    Args:
        backbone: takes the layer factory.
        rotation_stddev: rotations start N(0, rotation_stddev^2). Defaults to 1.
        learn_neurons: whether the neurons are trained too. Defaults to False.
        **kwargs: the backbone's own (num_classes, widths).
    """
    layer = functools.partial(
        OrthogonalConv2D,
        orthogonalize=identity,
        rotation_initializer=keras.initializers.RandomNormal(stddev=rotation_stddev),
        rotation_regularizer=OrthogonalityPenalty(0.1),
        learn_neurons=learn_neurons,
        use_bias=False,
    )
    return backbone(layer, **kwargs)


def method(**options) -> Method:
    """Returns the method; ``options`` are those of `build_model`."""
    return Method(functools.partial(build_model, **options))


METHOD = method()
