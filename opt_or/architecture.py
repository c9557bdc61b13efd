"""OPT (OR): a penalty keeps rotations close to orthogonal, and layers use them without a map."""

from common.orthogonal import identity
from common.regularizers import OrthogonalityPenalty
from common.training.method import Method, opt_model

from .settings import Settings


def method(settings: Settings) -> Method:
    penalty = OrthogonalityPenalty()
    stddev = settings.rotation_stddev
    return Method(opt_model(identity, settings, stddev, rotation_regularizer=penalty))
