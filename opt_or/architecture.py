"""OPT (OR): a penalty keeps rotations close to orthogonal, and layers use them without a map."""

import functools

from common.orthogonal import identity
from common.regularizers import OrthogonalityPenalty
from common.training.method import Method
from common.training.opt_model import opt_model

build_model = functools.partial(
    opt_model, orthogonalize=identity, rotation_regularizer=OrthogonalityPenalty()
)
METHOD = Method(build_model)
