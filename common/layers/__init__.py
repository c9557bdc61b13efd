"""OPT layers over Keras's Dense, EinsumDense and convolutions, and the batch normalization."""

from typing import Any

import keras

# a loaded model must find its loss and regularizers
from .. import losses, regularizers  # noqa: F401
from .normalization import BatchNormalization as BatchNormalization
from .orthogonal import OrthogonalLayer
from .orthogonal import he_normal as he_normal
from .stochastic import StochasticEpisodes as StochasticEpisodes
from .stochastic import StochasticLayer

ROTATED: dict[type[keras.layers.Layer], type[OrthogonalLayer]] = {}  # by the class of Keras


def _forms(plain: type[keras.layers.Layer]) -> Any:
    """Returns the OPT form of a class of Keras, and the stochastic one."""
    register = keras.saving.register_keras_serializable(package="opt")
    name, about = f"Orthogonal{plain.__name__}", {"__module__": __name__}
    ROTATED[plain] = register(type(name, (OrthogonalLayer, plain), about))
    stochastic = type(f"Stochastic{name}", (StochasticLayer, ROTATED[plain]), about)
    return ROTATED[plain], register(stochastic)


OrthogonalDense, StochasticOrthogonalDense = _forms(keras.layers.Dense)
OrthogonalEinsumDense, StochasticOrthogonalEinsumDense = _forms(keras.layers.EinsumDense)
OrthogonalConv1D, StochasticOrthogonalConv1D = _forms(keras.layers.Conv1D)
OrthogonalConv2D, StochasticOrthogonalConv2D = _forms(keras.layers.Conv2D)
OrthogonalConv3D, StochasticOrthogonalConv3D = _forms(keras.layers.Conv3D)
