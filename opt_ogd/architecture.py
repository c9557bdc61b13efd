"""OPT (OGD): rotations stay orthogonal by the way they are updated, and turn the neurons as they are."""

import functools
from collections.abc import Callable

import keras

from common import backbones
from common.layers import OrthogonalConv2D
from common.optimizers import OGD
from common.orthogonal import identity
from common.training import Method


def build_model(backbone: Callable[..., keras.Model] = backbones.cnn6, **kwargs) -> keras.Model:
    """Returns ``backbone`` with rotations that start at I; ``kwargs`` are its own (num_classes, widths)."""
    layer = functools.partial(OrthogonalConv2D, orthogonalize=identity, rotation_initializer="identity", use_bias=False)
    return backbone(layer, **kwargs)


def make_optimizer(base_lr: float, decay: Callable, rotation_lr: float = 0.02, reorthogonalize_every: int = 0) -> OGD:
    """Returns the optimizer; where the other weights' rate drops to a tenth, that of rotations drops to a fifth."""
    return OGD(decay(base_lr), decay(rotation_lr, factor=0.2), reorthogonalize_every=reorthogonalize_every)


METHOD = Method(build_model, make_optimizer, decay_factor=0.1, undecayed=("rotation", "fix"))
