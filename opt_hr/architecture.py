"""OPT (HR): each OPT layer rotates its neurons by the Q of Householder's QR of its rotation."""

import functools

from common.orthogonal import householder
from common.training.method import Method
from common.training.opt_model import opt_model

build_model = functools.partial(opt_model, orthogonalize=householder)
METHOD = Method(build_model)
