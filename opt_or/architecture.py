"""OPT (OR): rotations are kept near to orthogonal by a penalty, and turn the neurons as they are."""

import functools
from collections.abc import Callable

import keras

from common import backbones
from common.layers import OrthogonalConv2D
from common.losses import OrthogonalityPenalty
from common.orthogonal import identity
from common.training import Method


def build_model(backbone: Callable[..., keras.Model] = backbones.cnn6, **kwargs) -> keras.Model:
    """Returns ``backbone`` with penalized rotations; ``kwargs`` are its own (num_classes, widths)."""
    layer = functools.partial(
        OrthogonalConv2D, orthogonalize=identity, rotation_regularizer=OrthogonalityPenalty(0.1), use_bias=False
    )
    return backbone(layer, **kwargs)


METHOD = Method(build_model)
