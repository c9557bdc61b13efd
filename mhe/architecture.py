"""MHE: plain kernels, with a penalty on the hyperspherical energy of each layer's neurons."""

import functools
from collections.abc import Callable

import keras

import baseline.architecture
from common.backbones import cnn6
from common.regularizers import HypersphericalEnergy
from common.training.method import Method

from .settings import Settings


def method(settings: Settings) -> Method:
    weight = 0.1 if settings.power in ("a1", "a2") else 1.0  # the published weights
    half = settings.model == "half_mhe"
    penalty = HypersphericalEnergy(weight, settings.power, half_space=half)
    # for the score layer the energy is always in full space
    score_penalty = HypersphericalEnergy(10 * weight, settings.power, half_space=False)
    layer = functools.partial(baseline.architecture.layer, kernel_regularizer=penalty)

    def build_model(backbone: Callable[..., keras.Model] = cnn6, **kwargs) -> keras.Model:
        return backbone(layer, score_regularizer=score_penalty, **kwargs)

    return Method(build_model)
