"""The plain networks of the paper: three stages of convolutions, fc6 and the scores."""

from collections.abc import Callable, Sequence

import keras

from ..layers import BatchNormalization, he_normal


def cnn(
    layer: Callable,
    depth: int,
    widths: Sequence[int],
    stem: Callable | None = None,
    num_classes: int = 100,
    score_regularizer: keras.regularizers.Regularizer | None = None,
    image_size: int = 32,
) -> keras.Model:
    """Returns a network of three stages, then fc6 and the scores; the arguments are `Network`'s.

    A stage is ``depth`` convolutions and a 2x2 max pooling. ``widths`` are the neurons per layer of
    the three stages and of fc6. On a 32x32 image fc6 sees all that is left of it; on a larger one
    it sees parts, and the scores are the mean over these.
    """
    inputs = keras.Input((image_size, image_size, 3), name="images")
    # (x - 127.5) / 128; both constants are exact in binary
    x = keras.layers.Rescaling(1 / 128, offset=-127.5 / 128, name="rescale")(inputs)
    make = stem or layer
    for stage, width in enumerate(widths[:3], start=1):
        for index in range(depth):
            name = f"conv{stage}_{index}"
            x = make(width, 3, padding="same", name=name)(x)
            x = BatchNormalization(name=f"{name}_bn")(x)
            x = keras.layers.ReLU(name=f"{name}_relu")(x)
            make = layer
        x = keras.layers.MaxPooling2D(2, 2, padding="same", name=f"pool{stage}")(x)
    x = layer(widths[3], 4, padding="valid", name="fc6")(x)
    kernel = {"kernel_initializer": he_normal(), "kernel_regularizer": score_regularizer}
    scores = keras.layers.Conv2D(num_classes, 1, use_bias=False, name="score", **kernel)(x)
    parts = keras.layers.GlobalAveragePooling2D if scores.shape[1] > 1 else keras.layers.Flatten
    return keras.Model(inputs, parts(name="logits")(scores), name=f"cnn{3 * depth}")
