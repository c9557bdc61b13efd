"""OPT (GS): every OPT layer turns its neurons by Gram-Schmidt on the rows of its rotation."""

import functools
from collections.abc import Callable

import keras

from common import backbones
from common.layers import OrthogonalConv2D
from common.orthogonal import gram_schmidt
from common.training import Method


def build_model(backbone: Callable[..., keras.Model] = backbones.cnn6, **kwargs) -> keras.Model:
    """Returns ``backbone`` with layers of this map; ``kwargs`` are its own (num_classes, widths)."""
    return backbone(functools.partial(OrthogonalConv2D, orthogonalize=gram_schmidt, use_bias=False), **kwargs)


METHOD = Method(build_model)
