"""The model of the methods with OPT layers."""

import functools
from collections.abc import Callable
from typing import Any

import keras

from ..backbones import cnn6
from ..layers import OrthogonalConv2D
from ..orthogonal import Map
from .settings import LayerSettings


def opt_model(
    orthogonalize: Map,
    settings: LayerSettings,
    rotation_stddev: float | None = None,
    layer: Callable[..., keras.layers.Layer] = OrthogonalConv2D,
    stem: Callable[..., keras.layers.Layer] | None = None,
    **options,
) -> Callable[..., keras.Model]:
    """Returns a function that builds a backbone, by default `cnn6`, with OPT layers.

    Args:
        orthogonalize: the map.
        settings: of the method; ``learn_neurons`` and ``block_size`` are those of the layers.
        rotation_stddev: rotations start N(0, rotation_stddev^2). Defaults to None: they start at I.
        layer: the class of the layers. Defaults to `OrthogonalConv2D`.
        stem: that of the first layer. Defaults to ``layer``.
        **options: other arguments of the layers.
    """

    def build_model(backbone: Callable[..., keras.Model] = cnn6, **kwargs) -> keras.Model:
        drawn = rotation_stddev and keras.initializers.RandomNormal(stddev=rotation_stddev)
        arguments: dict[str, Any] = {
            "orthogonalize": orthogonalize,
            "rotation_initializer": drawn or "identity",
            "learn_neurons": settings.learn_neurons,
            "block_size": settings.block_size or None,
            "use_bias": False,
            **options,
        }
        first, others = (functools.partial(kind, **arguments) for kind in (stem or layer, layer))
        return backbone(others, stem=first, **kwargs)

    return build_model
