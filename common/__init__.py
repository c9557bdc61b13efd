"""Orthogonal Over-Parameterized Training (OPT; Liu et al., CVPR 2021) for Keras models.

In the repository this folder is the package ``common``; installed, its library part is the package
``opt_keras``. Its modules are imported when a public name is first used, so that ``import common``
imports neither TensorFlow nor Keras.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # what editors and type checkers read; at run time `__getattr__` imports these
    from .convert import fold_model, orthogonalize_model
    from .energy import EnergyLogger, hyperspherical_energy
    from .layers import (
        BatchNormalization,
        OrthogonalConv1D,
        OrthogonalConv2D,
        OrthogonalConv3D,
        OrthogonalDense,
        OrthogonalEinsumDense,
        StochasticEpisodes,
        StochasticOrthogonalConv1D,
        StochasticOrthogonalConv2D,
        StochasticOrthogonalConv3D,
        StochasticOrthogonalDense,
        StochasticOrthogonalEinsumDense,
    )
    from .losses import smoothed_cross_entropy
    from .optimizers import OGD, Momentum
    from .orthogonal import cayley, gram_schmidt, householder, identity, lowdin, product
    from .regularizers import HypersphericalEnergy, OrthogonalityPenalty
    from .rotations import load_rotations, save_rotations

__version__ = "0.1.0"

__all__ = [
    "OGD",
    "BatchNormalization",
    "EnergyLogger",
    "HypersphericalEnergy",
    "Momentum",
    "OrthogonalConv1D",
    "OrthogonalConv2D",
    "OrthogonalConv3D",
    "OrthogonalDense",
    "OrthogonalEinsumDense",
    "OrthogonalityPenalty",
    "StochasticEpisodes",
    "StochasticOrthogonalConv1D",
    "StochasticOrthogonalConv2D",
    "StochasticOrthogonalConv3D",
    "StochasticOrthogonalDense",
    "StochasticOrthogonalEinsumDense",
    "__version__",
    "cayley",
    "fold_model",
    "gram_schmidt",
    "householder",
    "hyperspherical_energy",
    "identity",
    "load_rotations",
    "lowdin",
    "orthogonalize_model",
    "product",
    "save_rotations",
    "smoothed_cross_entropy",
]

# where the names above are looked for
_MODULES = (
    "convert",
    "energy",
    "layers",
    "losses",
    "optimizers",
    "orthogonal",
    "regularizers",
    "rotations",
)

if not TYPE_CHECKING:  # a checker would take every name for one of these

    def __getattr__(name: str) -> Any:
        if name in __all__:
            for module in _MODULES:
                found = vars(importlib.import_module(f".{module}", __name__))
                if name in found:
                    globals()[name] = found[name]  # found without this function from now on
                    return found[name]
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

    def __dir__() -> list[str]:
        return sorted(set(globals()) | set(__all__))


if __name__ == "opt_keras":
    # Keras finds a saved model's classes among the registered ones, and a class is registered when
    # its module is imported: import opt_keras must be enough to load a file.
    from . import layers, losses, optimizers, regularizers  # noqa: F401
