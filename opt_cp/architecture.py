"""OPT (CP): each OPT layer rotates its neurons by Cayley's transform of its rotation."""

import functools

from common.orthogonal import cayley
from common.training.method import Method
from common.training.opt_model import opt_model

build_model = functools.partial(opt_model, orthogonalize=cayley)
METHOD = Method(build_model)
