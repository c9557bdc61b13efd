"""OPT (OGD): the optimizer keeps rotations orthogonal, and layers use them without a map."""

import functools
from collections.abc import Callable

import keras

from common.backbones.cnn6 import cnn6
from common.layers import OrthogonalConv2D
from common.marks import NEURONS, ROTATION
from common.optimizers import OGD
from common.orthogonal import identity
from common.training.method import Method


def build_model(
    backbone: Callable[..., keras.Model] = cnn6,
    learn_neurons: bool = False,
    block_size: int = 0,
    **kwargs,
) -> keras.Model:
    """Returns ``backbone`` with OPT layers whose rotations start at I.

    Args:
        backbone: a function of the layer factory. Defaults to `cnn6`.
        learn_neurons: whether the neurons are trained too. Defaults to False.
        block_size: that of the layers; 0 for None. Defaults to 0.
        **kwargs: the backbone's own arguments (num_classes, widths).
    """
    layer = functools.partial(
        OrthogonalConv2D,
        orthogonalize=identity,
        rotation_initializer="identity",
        learn_neurons=learn_neurons,
        block_size=block_size or None,
        use_bias=False,
    )
    return backbone(layer, **kwargs)


def make_optimizer(
    base_lr: float, decay: Callable, rotation_lr: float = 0.02, reorthogonalize_every: int = 0
) -> OGD:
    """Returns the optimizer.

    At each drop the learning rate of rotations falls to a fifth, and that of other weights to a
    tenth.
    """
    return OGD(
        decay(base_lr), decay(rotation_lr, factor=0.2), reorthogonalize_every=reorthogonalize_every
    )


def method(learn_neurons: bool = False, block_size: int = 0, **options) -> Method:
    """Returns the method; ``options`` are those of `make_optimizer`.

    Neurons that are learned have weight decay like other weights. Fixed neurons are left out of the
    printed decay, as in the original.
    """
    return Method(
        functools.partial(build_model, learn_neurons=learn_neurons, block_size=block_size),
        functools.partial(make_optimizer, **options),
        decay_factor=0.1,
        undecayed=(ROTATION,) if learn_neurons else (ROTATION, NEURONS),
    )


METHOD = method()
