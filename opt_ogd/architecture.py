"""OPT (OGD): rotations stay orthogonal by the way they are updated, and turn the neurons as they are."""

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
    backbone: Callable[..., keras.Model] = cnn6, learn_neurons: bool = False, **kwargs
) -> keras.Model:
    """Returns ``backbone`` with rotations that start at I.

    Args:
        backbone: takes the layer factory.
        learn_neurons: whether the neurons are trained too. Defaults to False.
        **kwargs: the backbone's own (num_classes, widths).
    """
    layer = functools.partial(
        OrthogonalConv2D,
        orthogonalize=identity,
        rotation_initializer="identity",
        learn_neurons=learn_neurons,
        use_bias=False,
    )
    return backbone(layer, **kwargs)


def make_optimizer(
    base_lr: float, decay: Callable, rotation_lr: float = 0.02, reorthogonalize_every: int = 0
) -> OGD:
    """Returns the optimizer; where the other weights' rate drops to a tenth, that of rotations drops to a fifth."""
    return OGD(
        decay(base_lr), decay(rotation_lr, factor=0.2), reorthogonalize_every=reorthogonalize_every
    )


def method(learn_neurons: bool = False, **options) -> Method:
    """Returns the method; ``options`` are those of `make_optimizer`.

    Neurons that are learned are decayed as the other weights are; those that are not are left out
    of the printed decay, as the original does.
    """
    return Method(
        functools.partial(build_model, learn_neurons=learn_neurons),
        functools.partial(make_optimizer, **options),
        decay_factor=0.1,
        undecayed=(ROTATION,) if learn_neurons else (ROTATION, NEURONS),
    )


METHOD = method()
