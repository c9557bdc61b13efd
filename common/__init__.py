"""Orthogonal Over-Parameterized Training (OPT; Liu et al., CVPR 2021) for Keras models.

In the repository this folder is the package ``common``; installed, its library part is the package
``opt_keras``. Its modules are imported when a public name is first used, so that ``import common``
imports neither TensorFlow nor Keras.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # what editors and type checkers read; at run time `__getattr__` imports these
    from .convert import fold_model as fold_model
    from .convert import orthogonalize_model as orthogonalize_model
    from .energy import EnergyLogger as EnergyLogger
    from .energy import hyperspherical_energy as hyperspherical_energy
    from .layers import BatchNormalization as BatchNormalization
    from .layers import OrthogonalConv1D as OrthogonalConv1D
    from .layers import OrthogonalConv2D as OrthogonalConv2D
    from .layers import OrthogonalConv3D as OrthogonalConv3D
    from .layers import OrthogonalDense as OrthogonalDense
    from .layers import OrthogonalEinsumDense as OrthogonalEinsumDense
    from .layers import StochasticEpisodes as StochasticEpisodes
    from .layers import StochasticOrthogonalConv1D as StochasticOrthogonalConv1D
    from .layers import StochasticOrthogonalConv2D as StochasticOrthogonalConv2D
    from .layers import StochasticOrthogonalConv3D as StochasticOrthogonalConv3D
    from .layers import StochasticOrthogonalDense as StochasticOrthogonalDense
    from .layers import StochasticOrthogonalEinsumDense as StochasticOrthogonalEinsumDense
    from .losses import smoothed_cross_entropy as smoothed_cross_entropy
    from .optimizers import OGD as OGD
    from .optimizers import Momentum as Momentum
    from .orthogonal import cayley as cayley
    from .orthogonal import gram_schmidt as gram_schmidt
    from .orthogonal import householder as householder
    from .orthogonal import identity as identity
    from .orthogonal import lowdin as lowdin
    from .orthogonal import product as product
    from .regularizers import HypersphericalEnergy as HypersphericalEnergy
    from .regularizers import OrthogonalityPenalty as OrthogonalityPenalty
    from .rotations import load_rotations as load_rotations
    from .rotations import save_rotations as save_rotations

__version__ = "0.1.0"

# the public names of each module
_NAMES = {
    "convert": "fold_model orthogonalize_model",
    "energy": "EnergyLogger hyperspherical_energy",
    "layers": "BatchNormalization StochasticEpisodes OrthogonalConv1D OrthogonalConv2D "
    "OrthogonalConv3D OrthogonalDense OrthogonalEinsumDense StochasticOrthogonalConv1D "
    "StochasticOrthogonalConv2D StochasticOrthogonalConv3D StochasticOrthogonalDense "
    "StochasticOrthogonalEinsumDense",
    "losses": "smoothed_cross_entropy",
    "optimizers": "Momentum OGD",
    "orthogonal": "cayley gram_schmidt householder identity lowdin product",
    "regularizers": "HypersphericalEnergy OrthogonalityPenalty",
    "rotations": "load_rotations save_rotations",
}
_HOMES = {name: module for module, names in _NAMES.items() for name in names.split()}
__all__ = ["__version__", *_HOMES]

if not TYPE_CHECKING:  # a checker would take every name for one of these

    def __getattr__(name: str) -> Any:
        if name in _HOMES:
            return getattr(importlib.import_module(f".{_HOMES[name]}", __name__), name)
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

    def __dir__() -> list[str]:
        return sorted(set(globals()) | set(__all__))


if __name__ == "opt_keras":
    # Keras finds a saved model's classes among the registered ones, and a class is registered when
    # its module is imported: import opt_keras must be enough to load a file.
    from . import layers, losses, optimizers, regularizers  # noqa: F401
