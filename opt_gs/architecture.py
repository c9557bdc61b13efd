"""OPT (GS): each OPT layer rotates its neurons by Gram-Schmidt on the rows of its rotation."""

import functools

from common.orthogonal import gram_schmidt
from common.training.method import Method
from common.training.opt_model import opt_model

build_model = functools.partial(opt_model, orthogonalize=gram_schmidt)
METHOD = Method(build_model)
