"""UPT: every layer multiplies its neurons by a matrix that is trained without constraints."""

from common.orthogonal import identity
from common.training.method import Method, opt_model

from .settings import Settings


def method(settings: Settings) -> Method:
    # at R = I the network equals the plain one
    stddev = 1.0 if settings.rotation_start == "normal" else None
    return Method(opt_model(identity, settings, stddev))
