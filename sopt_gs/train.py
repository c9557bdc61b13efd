"""S-OPT (GS): stochastic OPT, which rotates some rows at a time (Liu et al., CVPR 2021).

    cd sopt_gs && python train.py
    cd sopt_gs && python train.py --dataset=digits --iterations=300 --iterations_per_episode=100

Trains CNN-6 on CIFAR-100 with the settings of the authors' sopt_gs: 400 episodes of 750 iterations
of batch 128, and a test after each episode. The rotations are made by Gram-Schmidt. The published
sopt_gs cannot run, because its rotations and its lists of rows have different sizes. We rotate a
quarter of the channels, as in its lists of rows.
"""

import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

from absl import flags as absl_flags

from common.training import flags

absl_flags.DEFINE_integer("iterations_per_episode", 750, "iterations per episode", lower_bound=1)
absl_flags.DEFINE_float(
    "rotated_fraction",
    0.25,
    "the share of a layer's input channels that is rotated at a time, over 0 and at most 1",
)
absl_flags.DEFINE_bool(
    "reset_bn", True, "reset gamma and beta to 1 and 0 at each episode, as in the original"
)
absl_flags.register_validator(
    "rotated_fraction", lambda v: 0 < v <= 1, "must be over 0 and at most 1"
)
absl_flags.DEFINE_enum(
    "orthogonalize",
    "gram_schmidt",
    ["gram_schmidt", "householder", "lowdin", "cayley"],
    "the map; the original has Gram-Schmidt, but S-OPT works with any",
)
flags.define_layer_flags()

if __name__ == "__main__":
    flags.run(__file__)  # trains the METHOD of architecture.py with these flags
