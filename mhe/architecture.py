"""MHE: plain kernels, with a penalty on the hyperspherical energy of each layer's neurons."""

import functools

from baseline import architecture
from common.regularizers import HypersphericalEnergy
from common.training.method import Method

from .settings import Settings


def method(settings: Settings) -> Method:
    weight = 0.1 if settings.power in ("a1", "a2") else 1.0  # the published weights
    penalty = HypersphericalEnergy(weight, settings.power, settings.model == "half_mhe")
    # for the score layer the energy is always in full space
    score_penalty = HypersphericalEnergy(10 * weight, settings.power, half_space=False)
    layer = functools.partial(architecture.layer, kernel_regularizer=penalty)
    build_model = functools.partial(architecture.build_model, score_regularizer=score_penalty)
    return Method(functools.partial(build_model, layer=layer))
