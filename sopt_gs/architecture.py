"""S-OPT (GS): OPT layers but the first rotate a quarter of their neurons' rows at a time."""

import functools

import keras
import numpy as np

from common import orthogonal
from common.layers import BatchNormalization, OrthogonalConv2D, StochasticOrthogonalConv2D
from common.layers.stochastic import restart_layers
from common.training.method import Method, opt_model

from .settings import Settings


def start_episode(model: keras.Model, seed: int, episode: int, reset_bn: bool = True) -> None:
    """Merges the rotations of the last episode into the neurons, and selects new rows.

    With ``reset_bn``, gamma and beta after stochastic layers return to 1 and 0, as originally.
    """
    layers = [layer for layer in model.layers if isinstance(layer, StochasticOrthogonalConv2D)]
    restart_layers(layers, seed, episode)
    if not reset_bn:
        return
    for other in model.layers:
        if isinstance(other, BatchNormalization) and any(other.input is v.output for v in layers):
            other.gamma.assign(np.ones(other.gamma.shape))
            other.beta.assign(np.zeros(other.beta.shape))


def method(settings: Settings) -> Method:
    rotate = getattr(orthogonal, settings.orthogonalize)
    fraction = settings.rotated_fraction
    layer = functools.partial(StochasticOrthogonalConv2D, rotated_fraction=fraction)
    return Method(
        opt_model(rotate, settings, layer=layer, stem=OrthogonalConv2D),
        drops=(160 / 400, 260 / 400, 340 / 400),
        episode_length=settings.iterations_per_episode,
        start_episode=functools.partial(start_episode, reset_bn=settings.reset_bn),
    )
