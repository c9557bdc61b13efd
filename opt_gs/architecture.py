"""OPT (GS): every OPT layer turns its neurons by the Gram-Schmidt map of its rotation."""

import functools
from collections.abc import Callable

import keras

from common import backbones
from common.layers import OrthogonalConv2D
from common.orthogonal import gram_schmidt


def build_model(backbone: Callable[..., keras.Model] = backbones.cnn6, **kwargs) -> keras.Model:
    """Returns ``backbone`` with Gram-Schmidt layers; ``kwargs`` are its own (num_classes, widths)."""
    return backbone(functools.partial(OrthogonalConv2D, orthogonalize=gram_schmidt, use_bias=False), **kwargs)
