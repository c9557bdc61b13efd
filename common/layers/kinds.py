"""The layers of Keras that have an OPT form, and its stochastic form."""

import keras

from .orthogonal import OrthogonalLayer
from .stochastic import StochasticLayer

_register = keras.saving.register_keras_serializable(package="opt")


@_register
class OrthogonalDense(OrthogonalLayer, keras.layers.Dense): ...


@_register
class OrthogonalEinsumDense(OrthogonalLayer, keras.layers.EinsumDense): ...


@_register
class OrthogonalConv1D(OrthogonalLayer, keras.layers.Conv1D): ...


@_register
class OrthogonalConv2D(OrthogonalLayer, keras.layers.Conv2D): ...


@_register
class OrthogonalConv3D(OrthogonalLayer, keras.layers.Conv3D): ...


@_register
class StochasticOrthogonalDense(StochasticLayer, OrthogonalDense): ...


@_register
class StochasticOrthogonalEinsumDense(StochasticLayer, OrthogonalEinsumDense): ...


@_register
class StochasticOrthogonalConv1D(StochasticLayer, OrthogonalConv1D): ...


@_register
class StochasticOrthogonalConv2D(StochasticLayer, OrthogonalConv2D): ...


@_register
class StochasticOrthogonalConv3D(StochasticLayer, OrthogonalConv3D): ...


_KINDS = (
    OrthogonalDense,
    OrthogonalEinsumDense,
    OrthogonalConv1D,
    OrthogonalConv2D,
    OrthogonalConv3D,
)
ROTATED = {kind.plain: kind for kind in _KINDS}
