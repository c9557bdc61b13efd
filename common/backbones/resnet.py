"""The residual networks of He et al. (CVPR 2016, section 4.2)."""

from collections.abc import Callable, Sequence

import keras

from ..layers import BatchNormalization, he_normal


def resnet(
    layer: Callable,
    depth: int,
    widths: Sequence[int],
    stem: Callable | None = None,
    num_classes: int = 100,
    score_regularizer: keras.regularizers.Regularizer | None = None,
    image_size: int = 32,
) -> keras.Model:
    """Returns a network of 6 ``depth`` + 2 layers in three stages; the arguments are `Network`'s.

    A stage is ``depth`` residual blocks. ``widths`` are the neurons per layer of the stages, none
    smaller than the one before. Shortcuts are of kind A and have no kernel: at the start of a stage
    they take every second pixel and fill the new channels with zeros.
    """
    inputs = keras.Input((image_size, image_size, 3), name="images")
    x = keras.layers.Rescaling(1 / 128, offset=-127.5 / 128, name="rescale")(inputs)
    x = (stem or layer)(widths[0], 3, padding="same", name="conv1")(x)
    x = keras.layers.ReLU(name="conv1_relu")(BatchNormalization(name="conv1_bn")(x))
    for stage, width in enumerate(widths, start=2):
        for block in range(depth):
            name = f"conv{stage}_{block}"
            strides = 2 if stage > 2 and block == 0 else 1
            shortcut = x
            x = layer(width, 3, strides=strides, padding="same", name=f"{name}_0")(x)
            x = keras.layers.ReLU(name=f"{name}_0_relu")(BatchNormalization(name=f"{name}_0_bn")(x))
            x = layer(width, 3, padding="same", name=f"{name}_1")(x)
            x = BatchNormalization(name=f"{name}_1_bn")(x)
            if strides > 1:
                shortcut = keras.layers.MaxPooling2D(1, strides, name=f"{name}_subsample")(shortcut)
            if new := width - shortcut.shape[-1]:
                shortcut = keras.ops.pad(shortcut, [(0, 0), (0, 0), (0, 0), (0, new)])
            x = keras.layers.Add(name=f"{name}_add")([x, shortcut])
            x = keras.layers.ReLU(name=f"{name}_relu")(x)
    x = keras.layers.GlobalAveragePooling2D(name="average")(x)
    kernel = {"kernel_initializer": he_normal(), "kernel_regularizer": score_regularizer}
    scores = keras.layers.Dense(num_classes, name="score", **kernel)(x)
    return keras.Model(inputs, scores, name=f"resnet{6 * depth + 2}")
