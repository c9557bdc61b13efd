"""Keras layers that rotate fixed random neurons, and the original's batch normalization."""

# a loaded model must find its loss and regularizers
from .. import losses, regularizers  # noqa: F401
from .kinds import (
    OrthogonalConv1D,
    OrthogonalConv2D,
    OrthogonalConv3D,
    OrthogonalDense,
    OrthogonalEinsumDense,
    StochasticOrthogonalConv1D,
    StochasticOrthogonalConv2D,
    StochasticOrthogonalConv3D,
    StochasticOrthogonalDense,
    StochasticOrthogonalEinsumDense,
)
from .normalization import BatchNormalization
from .orthogonal import he_normal
from .stochastic import StochasticEpisodes

__all__ = [
    "BatchNormalization",
    "OrthogonalConv1D",
    "OrthogonalConv2D",
    "OrthogonalConv3D",
    "OrthogonalDense",
    "OrthogonalEinsumDense",
    "StochasticEpisodes",
    "StochasticOrthogonalConv1D",
    "StochasticOrthogonalConv2D",
    "StochasticOrthogonalConv3D",
    "StochasticOrthogonalDense",
    "StochasticOrthogonalEinsumDense",
    "he_normal",
]
