"""OPT (CP): each OPT layer rotates its neurons by Cayley's transform of its rotation."""

from common.orthogonal import cayley
from common.training.method import Method, opt_model

from .settings import Settings


def method(settings: Settings) -> Method:
    return Method(opt_model(cayley, settings, settings.rotation_stddev))
