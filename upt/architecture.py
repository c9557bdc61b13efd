"""UPT: every layer multiplies its neurons by a matrix that is trained without constraints."""

from collections.abc import Callable

import keras

from common.backbones.cnn6 import cnn6
from common.orthogonal import identity
from common.training.method import Method
from common.training.opt_model import opt_model

from .settings import Settings


def build_model(
    backbone: Callable[..., keras.Model] = cnn6,
    rotation_start: str = Settings.rotation_start,
    **options,
) -> keras.Model:
    """Returns ``backbone`` with kernels R @ F, R unconstrained.

    Args:
        backbone: takes the layer factory. Defaults to CNN-6.
        rotation_start: the initial R: "identity" (the network then equals the plain one) or
            "normal", N(0, 1). Defaults to identity.
        **options: the others of `opt_model`.
    """
    start = "identity" if rotation_start == "identity" else None
    return opt_model(backbone, orthogonalize=identity, rotation_initializer=start, **options)


METHOD = Method(build_model)
