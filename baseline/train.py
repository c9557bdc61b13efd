"""Baseline: the same network with ordinary trained kernels.

    cd baseline && python train.py
    cd baseline && python train.py --dataset=digits --iterations=300

It has the data, schedule, loss and weight decay of the OPT methods, for comparison with them.
"""

import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

import math

from absl import flags as absl_flags

from common.training import flags

absl_flags.DEFINE_float("weight_decay", 5e-4, "strength of the weight decay; the original's: 5e-4")
absl_flags.register_validator(
    "weight_decay", lambda v: math.isfinite(v) and v >= 0, "must be a finite number, 0 or more"
)

if __name__ == "__main__":
    flags.run(__file__)  # trains the METHOD of architecture.py with these flags
