"""CNN-9: three convolutions per stage."""

from collections.abc import Sequence

import keras

from . import Factory
from .cnn import cnn

WIDTHS = (64, 64, 64, 64)


def cnn9(
    layer: Factory,
    stem: Factory | None = None,
    num_classes: int = 100,
    widths: Sequence[int] = WIDTHS,
    score_regularizer: keras.regularizers.Regularizer | None = None,
    image_size: int = 32,
) -> keras.Model:
    """Returns CNN-9: three convolutions per stage.

    Args:
        layer: the factory of every layer but the classifier.
        stem: the factory of the first convolution. Defaults to ``layer``.
        num_classes: number of logits. Defaults to 100.
        widths: number of neurons per layer of the three stages and of fc6.
            Defaults to 64, 64, 64, 64.
        score_regularizer: of the classifier's kernel. Defaults to none.
        image_size: height and width of the images. Defaults to 32.
    """
    return cnn(layer, 3, widths, stem, num_classes, score_regularizer, image_size)
