"""OPT (HR): every OPT layer turns its neurons by the Q of Householder's QR of its rotation."""

import functools
from collections.abc import Callable

import keras

from common import backbones
from common.layers import OrthogonalConv2D
from common.orthogonal import householder
from common.training import Method


def build_model(backbone: Callable[..., keras.Model] = backbones.cnn6, **kwargs) -> keras.Model:
    """Returns ``backbone`` with layers of this map; ``kwargs`` are its own (num_classes, widths)."""
    return backbone(functools.partial(OrthogonalConv2D, orthogonalize=householder, use_bias=False), **kwargs)


METHOD = Method(build_model)
