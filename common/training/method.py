"""Method: how training methods differ. A folder's architecture.py makes one of its settings."""

import dataclasses
from collections.abc import Callable

import keras

from .. import optimizers
from ..errors import UserError
from ..layers.orthogonal import OrthogonalLayer
from ..private import all_layers


def momentum(base_lr: float, decay: Callable) -> optimizers.Momentum:
    """Returns the optimizer of most methods."""
    return optimizers.Momentum(decay(base_lr))


@dataclasses.dataclass(frozen=True)
class Method:
    """How a method differs from the others.

    Attributes:
        build_model: takes ``backbone``, a callable that takes a layer factory, and the backbone's
            other arguments, and returns the model.
        make_optimizer: takes ``base_lr`` and ``decay``, a callable ``(rate, factor=0.1)`` that
            returns the run's schedule of a rate. Defaults to `momentum`.
        decay_factor: factor of the weight decay in the loss; the printed value is without it.
        undecayed: the marks of the weights without weight decay (see common.marks).
        drops: where the rates drop, in fractions of the run.
        episode_length: number of iterations per episode, for methods that have episodes.
        start_episode: takes the model, the run's seed and the episode's number before the episode
            begins.
    """

    build_model: Callable[..., keras.Model]
    make_optimizer: Callable[[float, Callable], keras.optimizers.Optimizer] = momentum
    decay_factor: float = 1.0
    undecayed: tuple[str, ...] = ()
    drops: tuple[float, ...] = optimizers.DROPS
    episode_length: int | None = None
    start_episode: Callable[[keras.Model, int, int], None] | None = None


def check_saving(model: keras.Model) -> None:
    """Raises UserError for a model that could not be saved or loaded, before its training.

    Keras may not know a map, or another part, of a new method.
    """
    try:
        model.to_json()
        for layer in all_layers(model):
            if isinstance(layer, OrthogonalLayer):
                type(layer).from_config(layer.get_config())
    except Exception as error:  # a method's code can raise anything
        raise UserError(f"a run saves its model, but {error}") from error
