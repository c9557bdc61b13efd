"""UPT: every layer multiplies its neurons by a matrix that is trained without constraints."""

import functools
from collections.abc import Callable

import keras

from common.backbones.cnn6 import cnn6
from common.layers import OrthogonalConv2D
from common.orthogonal import identity
from common.training.method import Method


def build_model(
    backbone: Callable[..., keras.Model] = cnn6,
    rotation_start: str = "identity",
    learn_neurons: bool = False,
    block_size: int = 0,
    **kwargs,
) -> keras.Model:
    """Returns ``backbone`` with kernels R @ F, R unconstrained.

    Args:
        backbone: a function of the layer factory. Defaults to `cnn6`.
        rotation_start: the initial R: "identity" (the network then equals the plain one) or
            "normal", N(0, 1). Defaults to identity.
        learn_neurons: whether the neurons F are trained too. Defaults to False.
        block_size: that of the layers; 0 for None. Defaults to 0.
        **kwargs: the backbone's own arguments (num_classes, widths).
    """
    starts = {
        "identity": keras.initializers.Identity,
        "normal": functools.partial(keras.initializers.RandomNormal, stddev=1.0),
    }
    layer = functools.partial(
        OrthogonalConv2D,
        orthogonalize=identity,
        rotation_initializer=starts[rotation_start](),
        learn_neurons=learn_neurons,
        block_size=block_size or None,
        use_bias=False,
    )
    return backbone(layer, **kwargs)


def method(**options) -> Method:
    """Returns the method; ``options`` are those of `build_model`."""
    return Method(functools.partial(build_model, **options))


METHOD = method()
