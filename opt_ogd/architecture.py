"""OPT (OGD): the optimizer keeps rotations orthogonal, and layers use them without a map."""

from collections.abc import Callable

from common.marks import NEURONS, ROTATION
from common.optimizers import OGD
from common.orthogonal import identity
from common.training.method import Method, opt_model

from .settings import Settings


def method(settings: Settings) -> Method:
    def make_optimizer(base_lr: float, decay: Callable) -> OGD:
        # at each drop the rate of rotations falls to a fifth, and that of other weights to a tenth
        rates = decay(base_lr), decay(settings.rotation_lr, factor=0.2)
        return OGD(*rates, reorthogonalize_every=settings.reorthogonalize_every)

    return Method(
        opt_model(identity, settings),
        make_optimizer,
        decay_factor=0.1,
        # as in the original, fixed neurons are left out of the printed decay
        undecayed=(ROTATION,) if settings.learn_neurons else (ROTATION, NEURONS),
    )
