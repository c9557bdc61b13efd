"""OPT (GS): each OPT layer rotates its neurons by Gram-Schmidt on the rows of its rotation."""

from common.orthogonal import gram_schmidt
from common.training.method import Method, opt_model

from .settings import Settings


def method(settings: Settings) -> Method:
    return Method(opt_model(gram_schmidt, settings, settings.rotation_stddev))
