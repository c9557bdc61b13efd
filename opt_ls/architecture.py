"""OPT (LS): each OPT layer rotates its neurons by the polar factor of its rotation."""

from common.orthogonal import lowdin
from common.training.method import Method, opt_model

from .settings import Settings


def method(settings: Settings) -> Method:
    return Method(opt_model(lowdin, settings, settings.rotation_stddev))
