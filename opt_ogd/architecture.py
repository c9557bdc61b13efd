"""OPT (OGD): the optimizer keeps rotations orthogonal, and layers use them without a map."""

import dataclasses
import functools
from collections.abc import Callable

from common.marks import NEURONS, ROTATION
from common.optimizers import OGD
from common.orthogonal import identity
from common.training.method import Method
from common.training.opt_model import opt_model

from .settings import Settings

build_model = functools.partial(opt_model, orthogonalize=identity, rotation_initializer="identity")


def make_optimizer(
    base_lr: float,
    decay: Callable,
    rotation_lr: float = Settings.rotation_lr,
    reorthogonalize_every: int = Settings.reorthogonalize_every,
) -> OGD:
    """Returns the optimizer.

    At each drop the learning rate of rotations falls to a fifth, and that of other weights to a
    tenth.
    """
    return OGD(
        decay(base_lr), decay(rotation_lr, factor=0.2), reorthogonalize_every=reorthogonalize_every
    )


class OGDMethod(Method):
    """The method, whose options are those of `build_model` and of `make_optimizer`.

    Neurons that are learned have weight decay like other weights. Fixed neurons are left out of the
    printed decay, as in the original.
    """

    def with_options(
        self,
        learn_neurons: bool = Settings.learn_neurons,
        block_size: int = Settings.block_size,
        **options,
    ) -> Method:
        return dataclasses.replace(
            self,
            build_model=functools.partial(
                build_model, learn_neurons=learn_neurons, block_size=block_size
            ),
            make_optimizer=functools.partial(make_optimizer, **options),
            undecayed=(ROTATION,) if learn_neurons else (ROTATION, NEURONS),
        )


METHOD = OGDMethod(build_model, make_optimizer, decay_factor=0.1, undecayed=(ROTATION, NEURONS))
