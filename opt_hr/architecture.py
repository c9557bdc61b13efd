"""OPT (HR): each OPT layer rotates its neurons by the Q of Householder's QR of its rotation."""

from common.orthogonal import householder
from common.training.method import Method, opt_model

from .settings import Settings


def method(settings: Settings) -> Method:
    return Method(opt_model(householder, settings, settings.rotation_stddev))
