"""OPT (LS): each OPT layer rotates its neurons by the polar factor of its rotation."""

import functools

from common.orthogonal import lowdin
from common.training.method import Method
from common.training.opt_model import opt_model

build_model = functools.partial(opt_model, orthogonalize=lowdin)
METHOD = Method(build_model)
