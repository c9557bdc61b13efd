"""Method: how training methods differ. A folder's architecture.py makes one of its settings."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import keras

from .. import optimizers
from ..backbones import cnn6
from ..errors import UserError
from ..layers import OrthogonalConv2D
from ..layers.orthogonal import OrthogonalLayer
from ..orthogonal import Map
from ..private import all_layers
from .settings import LayerSettings


@dataclasses.dataclass(frozen=True)
class Method:
    """How a method differs from the others."""

    # takes a backbone, by default `cnn6`, and its arguments
    build_model: Callable[..., keras.Model]
    # takes base_lr and decay, a callable (rate, factor=0.1) that returns the schedule of a rate
    make_optimizer: Callable[[float, Callable], keras.optimizers.Optimizer] = (
        lambda base_lr, decay: optimizers.Momentum(decay(base_lr))
    )
    decay_factor: float = 1.0  # of the weight decay in the loss; reg is printed without it
    undecayed: tuple[str, ...] = ()  # marks of the weights without weight decay (common.marks)
    drops: tuple[float, ...] = optimizers.DROPS  # of the rates, in fractions of the run
    episode_length: int | None = None  # in iterations, for methods that have episodes
    # takes the model, the run's seed and the episode's number
    start_episode: Callable[[keras.Model, int, int], None] | None = None


def opt_model(
    orthogonalize: Map,
    settings: LayerSettings,
    rotation_stddev: float | None = None,
    layer: Callable[..., keras.layers.Layer] = OrthogonalConv2D,
    stem: Callable[..., keras.layers.Layer] | None = None,
    **options,
) -> Callable[..., keras.Model]:
    """Returns a `Method.build_model` with OPT layers.

    Args:
        orthogonalize, settings: the map, and the method's settings.
        rotation_stddev: rotations start N(0, rotation_stddev^2). Defaults to None: they start at I.
        layer, stem: the class of the layers, and that of the first one. Defaults to ``layer``.
        **options: other arguments of the layers.
    """

    def build_model(backbone: Callable[..., keras.Model] = cnn6, **kwargs) -> keras.Model:
        drawn = rotation_stddev and keras.initializers.RandomNormal(stddev=rotation_stddev)
        arguments: dict[str, Any] = {
            "orthogonalize": orthogonalize,
            "rotation_initializer": drawn or "identity",
            "learn_neurons": settings.learn_neurons,
            "block_size": settings.block_size or None,
            "use_bias": False,
            **options,
        }
        first, others = (functools.partial(kind, **arguments) for kind in (stem or layer, layer))
        return backbone(others, stem=first, **kwargs)

    return build_model


def check_saving(model: keras.Model) -> None:
    """Raises UserError for a model that could not be saved or loaded, before its training."""
    try:
        model.to_json()
        for layer in all_layers(model):
            if isinstance(layer, OrthogonalLayer):
                type(layer).from_config(layer.get_config())
    except Exception as error:  # a method's code, such as its map, can raise anything
        raise UserError(f"a run saves its model, but {error}") from error
