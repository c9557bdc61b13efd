"""OPT (LS): each OPT layer rotates its neurons by the polar factor of its rotation."""

import functools

from common.orthogonal import lowdin
from common.training.method import Method
from common.training.opt_model import opt_model

build_model = functools.partial(opt_model, orthogonalize=lowdin)


def method(**options) -> Method:
    """Returns the method; ``options`` are those of `opt_model`, such as rotation_stddev."""
    return Method(functools.partial(build_model, **options))


METHOD = method()
