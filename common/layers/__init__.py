"""Keras layers that rotate fixed random neurons, and the original's batch normalization."""

# a loaded model must find its loss and regularizers
from .. import losses, regularizers  # noqa: F401
from .base import he_normal
from .convolution import OrthogonalConv2D
from .dense import OrthogonalDense
from .normalization import BatchNormalization
from .stochastic import StochasticOrthogonalConv2D, StochasticOrthogonalDense

__all__ = [
    "BatchNormalization",
    "OrthogonalConv2D",
    "OrthogonalDense",
    "StochasticOrthogonalConv2D",
    "StochasticOrthogonalDense",
    "he_normal",
]
