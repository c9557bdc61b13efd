"""OPT (OGD): orthogonality-preserving gradient descent on the rotations (Liu et al., CVPR 2021).

    cd opt_ogd && python train.py
    cd opt_ogd && python train.py --dataset=digits --iterations=300

Trains CNN-6 on CIFAR-100 as the authors' opt_ogd does: 75,000 iterations of batch 128. Rotations
have no weight decay, and other weights a tenth of the other methods' decay. Rounding and the
truncated update make rotations drift away from orthogonality. The original never corrects this;
--reorthogonalize_every does.
"""

import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

import math

from absl import flags as absl_flags

from common.training import flags

absl_flags.DEFINE_float("rotation_lr", 0.02, "the initial learning rate of the rotations")
absl_flags.DEFINE_integer(
    "reorthogonalize_every",
    0,
    "updates between two corrections of the rotations; 0: never, as in the original",
    lower_bound=0,
    upper_bound=2**31 - 1,
)
absl_flags.register_validator(
    "rotation_lr", lambda v: math.isfinite(v) and v >= 0, "must be a finite number, 0 or more"
)
flags.define_layer_flags()

if __name__ == "__main__":
    flags.run(__file__)  # trains the METHOD of architecture.py with these flags
