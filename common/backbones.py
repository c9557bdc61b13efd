"""Networks for 32x32 pictures, built from a layer factory.

A factory is called as ``layer(filters, kernel_size, padding=..., name=...)`` and returns a Keras layer without
bias: `keras.layers.Conv2D` for plain training, `OrthogonalConv2D` with a map for OPT. Pictures come in as they
are stored, ``[batch, 32, 32, 3]`` with values 0 to 255; logits go out, ``[batch, num_classes]``.
"""

import functools
from collections.abc import Callable, Sequence

import keras

from common.layers import BatchNormalization, he_normal

Factory = Callable[..., keras.layers.Layer]


def _cnn(
    layer: Factory,
    convolutions: int,
    stem: Factory | None = None,
    num_classes: int = 100,
    widths: Sequence[int] = (64, 64, 64, 64),
) -> keras.Model:
    """Returns three stages of ``convolutions`` layers and a 2x2 max pooling, then fc6 and the scores.

    Args:
        layer: the factory of every convolution and of fc6.
        convolutions: number of convolutions a stage.
        stem: the factory of the first convolution, conv1_0. Defaults to ``layer``.
        num_classes: number of logits. Defaults to 100.
        widths: number of neurons a layer of the three stages and of fc6. Defaults to 64 each.
    """
    inputs = keras.Input((32, 32, 3), name="pictures")
    # (x - 127.5) / 128; both constants are exact in binary
    x = keras.layers.Rescaling(1 / 128, offset=-127.5 / 128, name="rescale")(inputs)
    for stage, width in enumerate(widths[:3], start=1):
        for index in range(convolutions):
            name = f"conv{stage}_{index}"
            make = stem if stem is not None and name == "conv1_0" else layer
            x = make(width, 3, padding="same", name=name)(x)
            x = BatchNormalization(name=f"{name}_bn")(x)
            x = keras.layers.ReLU(name=f"{name}_relu")(x)
        x = keras.layers.MaxPooling2D(2, 2, padding="same", name=f"pool{stage}")(x)
    x = layer(widths[3], 4, padding="valid", name="fc6")(x)
    x = keras.layers.Conv2D(num_classes, 1, use_bias=False, kernel_initializer=he_normal(), name="score")(x)
    logits = keras.layers.Flatten(name="logits")(x)
    return keras.Model(inputs, logits, name=f"cnn{3 * convolutions}")


cnn6 = functools.partial(_cnn, convolutions=2)
cnn9 = functools.partial(_cnn, convolutions=3)

BACKBONES = {"cnn6": cnn6, "cnn9": cnn9}
