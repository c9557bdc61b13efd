"""Networks for 32x32 pictures, built from a layer factory.

A factory is called as ``layer(filters, kernel_size, padding=..., name=...)`` and returns a Keras layer without
bias: `keras.layers.Conv2D` for plain training, `OrthogonalConv2D` with a map for OPT. Pictures come in as they
are stored, ``[batch, 32, 32, 3]`` with values 0 to 255; logits go out, ``[batch, num_classes]``.
"""

import functools
from collections.abc import Callable, Sequence

import keras

from .layers import BatchNormalization, he_normal

Factory = Callable[..., keras.layers.Layer]


def _cnn(
    layer: Factory,
    convolutions: int,
    stem: Factory | None = None,
    num_classes: int = 100,
    widths: Sequence[int] = (64, 64, 64, 64),
    score_regularizer: keras.regularizers.Regularizer | None = None,
) -> keras.Model:
    """Returns three stages of ``convolutions`` layers and a 2x2 max pooling, then fc6 and the scores.

    Args:
        layer: the factory of every convolution and of fc6.
        convolutions: number of convolutions a stage.
        stem: the factory of the first convolution, conv1_0. Defaults to ``layer``.
        num_classes: number of logits. Defaults to 100.
        widths: number of neurons a layer of the three stages and of fc6. Defaults to 64 each.
        score_regularizer: of the score layer's kernel. Defaults to none.
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
    score = keras.layers.Conv2D(
        num_classes,
        1,
        use_bias=False,
        kernel_initializer=he_normal(),
        kernel_regularizer=score_regularizer,
        name="score",
    )
    logits = keras.layers.Flatten(name="logits")(score(x))
    return keras.Model(inputs, logits, name=f"cnn{3 * convolutions}")


def _resnet(
    layer: Factory,
    blocks: int,
    stem: Factory | None = None,
    num_classes: int = 100,
    widths: Sequence[int] = (16, 32, 64),
    score_regularizer: keras.regularizers.Regularizer | None = None,
) -> keras.Model:
    """Returns the residual network of He et al. (CVPR 2016, section 4.2) of 6 blocks + 2 layers.

    Shortcuts are of kind A: where a stage begins, every second pixel and zeros for the channels that are new, so
    that they have no kernel. The classifier after the global average pooling is a plain one.

    Args:
        layer: the factory of every 3x3 convolution.
        blocks: number of residual blocks a stage.
        stem: the factory of the first convolution, conv1. Defaults to ``layer``.
        num_classes: number of logits. Defaults to 100.
        widths: number of neurons a layer of the three stages, none smaller than the one before. Defaults to 16, 32, 64.
        score_regularizer: of the score layer's kernel. Defaults to none.
    """
    inputs = keras.Input((32, 32, 3), name="pictures")
    x = keras.layers.Rescaling(1 / 128, offset=-127.5 / 128, name="rescale")(inputs)
    x = (stem or layer)(widths[0], 3, padding="same", name="conv1")(x)
    x = keras.layers.ReLU(name="conv1_relu")(BatchNormalization(name="conv1_bn")(x))
    for stage, width in enumerate(widths, start=2):
        for block in range(blocks):
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
                # zero padding knows rows and columns only: channels become rows and back
                shortcut = keras.layers.Permute((3, 1, 2), name=f"{name}_channels_first")(shortcut)
                shortcut = keras.layers.ZeroPadding2D(((0, new), (0, 0)), name=f"{name}_new_channels")(shortcut)
                shortcut = keras.layers.Permute((2, 3, 1), name=f"{name}_channels_last")(shortcut)
            x = keras.layers.ReLU(name=f"{name}_relu")(keras.layers.Add(name=f"{name}_add")([x, shortcut]))
    x = keras.layers.GlobalAveragePooling2D(name="average")(x)
    score = keras.layers.Dense(num_classes, kernel_initializer=he_normal(), kernel_regularizer=score_regularizer, name="score")
    logits = score(x)
    return keras.Model(inputs, logits, name=f"resnet{6 * blocks + 2}")


cnn6 = functools.partial(_cnn, convolutions=2)
cnn9 = functools.partial(_cnn, convolutions=3)
resnet20 = functools.partial(_resnet, blocks=3)
resnet32 = functools.partial(_resnet, blocks=5)

BACKBONES = {"cnn6": cnn6, "cnn9": cnn9, "resnet20": resnet20, "resnet32": resnet32}
