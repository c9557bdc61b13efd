"""Networks for small images, by name. Keras is imported when one is built, not with this."""

import dataclasses
import importlib
from collections.abc import Callable
from typing import Any


@dataclasses.dataclass(frozen=True)
class Network:
    """A network: a builder and its depth.

    Attributes:
        builder: a file of this folder, and the function of the same name in it.
        depth: the number of convolutions, or of residual blocks, per stage.
        widths: the default numbers of neurons.
        widening: whether no width may be smaller than the one before.
    """

    builder: str
    depth: int
    widths: tuple[int, ...]
    widening: bool = False

    def __call__(self, layer: Callable, **options: Any) -> Any:
        """Returns a `keras.Model`.

        It maps images as they are stored, ``[batch, image_size, image_size, 3]`` with values 0 to
        255, to logits, ``[batch, num_classes]``.

        Args:
            layer: the factory of the layers: called as ``layer(filters, kernel_size, strides=...,
                padding=..., name=...)`` it returns a Keras layer without bias, such as
                `keras.layers.Conv2D`.
            **options: ``stem``, the factory of the first layer, defaults to ``layer``; ``widths``,
                the numbers of neurons; ``num_classes`` to 100; ``score_regularizer``, that of the
                score layer's kernel, to none; ``image_size``, height and width, to 32.
        """
        module = importlib.import_module(f".{self.builder}", __name__)
        build = getattr(module, self.builder)
        return build(layer, self.depth, **({"widths": self.widths} | options))


cnn6 = Network("cnn", 2, (64, 64, 64, 64))  # the network of the authors' code
cnn9 = Network("cnn", 3, (64, 64, 64, 64))
resnet20 = Network("resnet", 3, (16, 32, 64), widening=True)
resnet32 = Network("resnet", 5, (16, 32, 64), widening=True)


def known() -> dict[str, Network]:
    """Returns the networks above by name; ``--backbone`` takes these names."""
    return {name: value for name, value in globals().items() if isinstance(value, Network)}
