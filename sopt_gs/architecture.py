"""S-OPT (GS): OPT layers rotate a quarter of their neurons' rows at a time, by Gram-Schmidt.

Only the first OPT layer rotates all of its rows.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import keras
import numpy as np

from common import orthogonal
from common.backbones.cnn6 import cnn6
from common.layers import BatchNormalization, OrthogonalConv2D, StochasticOrthogonalConv2D
from common.layers.stochastic import draw_rows
from common.orthogonal import Map, gram_schmidt
from common.training.method import Method

from .settings import Settings


def build_model(
    backbone: Callable[..., keras.Model] = cnn6,
    orthogonalize: Map = gram_schmidt,
    rotated_fraction: float = Settings.rotated_fraction,
    learn_neurons: bool = Settings.learn_neurons,
    block_size: int = Settings.block_size,
    **kwargs,
) -> keras.Model:
    """Returns ``backbone`` with stochastic layers, except for the first: an ordinary OPT layer.

    All rotations start at I.

    Args:
        backbone: a function of the layer factory and ``stem``, that of the first layer. Defaults to
            `cnn6`.
        orthogonalize: the map. Defaults to Gram-Schmidt.
        rotated_fraction: the share of a layer's input channels that is rotated at a time, over 0
            and at most 1. Defaults to a quarter.
        learn_neurons: whether the neurons are trained too. Defaults to False.
        block_size: that of the layers; 0 for None. Defaults to 0.
        **kwargs: the backbone's own arguments (num_classes, widths).
    """
    common: dict[str, Any] = {
        "orthogonalize": orthogonalize,
        "rotation_initializer": "identity",
        "learn_neurons": learn_neurons,
        "block_size": block_size or None,
        "use_bias": False,
    }
    layer = functools.partial(
        StochasticOrthogonalConv2D, rotated_fraction=rotated_fraction, **common
    )
    return backbone(layer, stem=functools.partial(OrthogonalConv2D, **common), **kwargs)


def following(model: keras.Model, layer: keras.layers.Layer) -> list[BatchNormalization]:
    """Returns the normalizations whose input is the output of ``layer``."""
    found = [other for other in model.layers if isinstance(other, BatchNormalization)]
    return [other for other in found if other.input is layer.output]


def start_episode(
    model: keras.Model,
    seed: int,
    episode: int,
    reset_bn: bool = True,
    draw: Callable[..., np.ndarray] = draw_rows,
) -> None:
    """Merges the rotations of the last episode into the neurons, and selects new rows.

    Args:
        model: of `build_model`.
        seed: for the choice of rows.
        episode: counted from 0; at 0 there is nothing to merge.
        reset_bn: whether to reset gamma and beta after stochastic layers to 1 and 0, as in the
            original. Defaults to True.
        draw: a function like `draw_rows`, the default.
    """
    layers = [layer for layer in model.layers if isinstance(layer, StochasticOrthogonalConv2D)]
    for number, layer in enumerate(layers):
        if episode:
            layer.merge()
        layer.restart(
            draw(seed, episode, number, n=layer.fix.shape[0], rows=layer.indices.shape[0])
        )
        for normalization in following(model, layer) if reset_bn else ():
            normalization.gamma.assign(np.ones(normalization.gamma.shape))
            normalization.beta.assign(np.zeros(normalization.beta.shape))


class StochasticMethod(Method):
    """The method, whose options are those below and the others of `build_model`.

    ``orthogonalize`` is the name of a map in common.orthogonal, ``iterations_per_episode`` the
    length of an episode, ``reset_bn`` as in `start_episode`.
    """

    def with_options(
        self,
        orthogonalize: str = Settings.orthogonalize,
        iterations_per_episode: int = Settings.iterations_per_episode,
        reset_bn: bool = Settings.reset_bn,
        **options,
    ) -> Method:
        rotate = getattr(orthogonal, orthogonalize)
        return dataclasses.replace(
            self,
            build_model=functools.partial(build_model, orthogonalize=rotate, **options),
            episode_length=iterations_per_episode,
            start_episode=functools.partial(start_episode, reset_bn=reset_bn),
        )


METHOD = StochasticMethod(
    build_model,
    drops=(160 / 400, 260 / 400, 340 / 400),
    episode_length=Settings.iterations_per_episode,
    start_episode=start_episode,
)
