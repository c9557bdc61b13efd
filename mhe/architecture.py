"""MHE: plain kernels, with a penalty on the hyperspherical energy of each layer's neurons."""

import functools
from collections.abc import Callable

import keras

import baseline.architecture
from common.backbones.cnn6 import cnn6
from common.regularizers import HypersphericalEnergy
from common.training.method import Method

from .settings import Settings


def build_model(
    backbone: Callable[..., keras.Model] = cnn6,
    model: str = Settings.model,
    power: str = Settings.power,
    **kwargs,
) -> keras.Model:
    """Returns ``backbone`` with the baseline's layers and penalties of the published weights.

    Args:
        backbone: a function of the layer factory. Defaults to `cnn6`.
        model: "half_mhe" or "mhe": the energy in half space or in full space. For the score layer
            it is always in full space. Defaults to half_mhe.
        power: as in `HypersphericalEnergy`. Defaults to "2".
        **kwargs: the backbone's own arguments (num_classes, widths).
    """
    weight = 0.1 if power in ("a1", "a2") else 1.0
    penalty = HypersphericalEnergy(weight, power, half_space=model == "half_mhe")
    layer = functools.partial(baseline.architecture.layer, kernel_regularizer=penalty)
    score_penalty = HypersphericalEnergy(10 * weight, power, half_space=False)
    return backbone(layer, score_regularizer=score_penalty, **kwargs)


METHOD = Method(build_model)
