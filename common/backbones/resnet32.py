"""ResNet-32: five residual blocks per stage."""

from collections.abc import Sequence

import keras

from . import Factory
from .resnet import resnet

WIDTHS = (16, 32, 64)
WIDENING = True


def resnet32(
    layer: Factory,
    stem: Factory | None = None,
    num_classes: int = 100,
    widths: Sequence[int] = WIDTHS,
    score_regularizer: keras.regularizers.Regularizer | None = None,
    image_size: int = 32,
) -> keras.Model:
    """Returns ResNet-32: five blocks per stage. The arguments are those of `resnet`."""
    return resnet(layer, 5, widths, stem, num_classes, score_regularizer, image_size)
