"""Plain training: ordinary convolutions with trained kernels."""

from collections.abc import Callable

import keras

from common.backbones import cnn6
from common.layers import he_normal
from common.training.method import Method

from .settings import Settings


def layer(filters: int, kernel_size: int, **kwargs) -> keras.layers.Conv2D:
    """Returns a convolution without bias, with the same initializer as OPT's neurons."""
    options = {"use_bias": False, "kernel_initializer": he_normal(), **kwargs}
    return keras.layers.Conv2D(filters, kernel_size, **options)


def build_model(
    backbone: Callable[..., keras.Model] = cnn6, layer: Callable = layer, **kwargs
) -> keras.Model:
    """Returns ``backbone`` with ordinary layers; ``kwargs`` go to it (num_classes, widths)."""
    return backbone(layer, **kwargs)


def method(settings: Settings) -> Method:
    return Method(build_model)
