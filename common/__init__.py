"""Orthogonal Over-Parameterized Training (OPT; Liu et al., CVPR 2021) for Keras models.

Installed, the library part of this folder is the package ``opt_keras``, which has the public names.
In the repository it is ``common``, which has none: ``import common`` imports no TensorFlow.
"""

from typing import TYPE_CHECKING

__version__ = "0.1.0"

if TYPE_CHECKING or __name__ == "opt_keras":
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
