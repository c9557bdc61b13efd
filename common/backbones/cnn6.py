"""CNN-6: two convolutions per stage, the network of the authors' code."""

from collections.abc import Sequence

import keras

from . import Factory
from .cnn import cnn

WIDTHS = (64, 64, 64, 64)


def cnn6(
    layer: Factory,
    stem: Factory | None = None,
    num_classes: int = 100,
    widths: Sequence[int] = WIDTHS,
    score_regularizer: keras.regularizers.Regularizer | None = None,
    image_size: int = 32,
) -> keras.Model:
    """Returns CNN-6: two convolutions per stage. The arguments are those of `cnn`."""
    return cnn(layer, 2, widths, stem, num_classes, score_regularizer, image_size)
