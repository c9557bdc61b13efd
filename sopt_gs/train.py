"""S-OPT (GS): stochastic OPT, which rotates some of the neurons' rows at a time, by Gram-Schmidt (Liu et al., CVPR 2021).

    cd sopt_gs && python train.py
    cd sopt_gs && python train.py --dataset=digits --iterations=300 --iterations_per_episode=100

Trains CNN-6 on CIFAR-100 as the authors' sopt_gs does: 400 episodes of 750 iterations of batch 128, and a test at each
episode's end. Theirs as published cannot run, its rotations and its lists of rows being of different sizes; a quarter of
the channels, as its draw has it, is what this takes.
"""

import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

from absl import flags as absl_flags

from common.training import flags

absl_flags.DEFINE_integer("iterations_per_episode", 750, "iterations an episode", lower_bound=1)
absl_flags.DEFINE_float(
    "rotated_fraction",
    0.25,
    "how much of a layer's input channels is rotated at a time, over 0 and at most 1",
)
absl_flags.DEFINE_bool(
    "reset_bn", True, "return gamma and beta to 1 and 0 at each episode, as the original does"
)
absl_flags.register_validator(
    "rotated_fraction", lambda v: 0 < v <= 1, "must be over 0 and at most 1"
)
absl_flags.DEFINE_enum(
    "orthogonalize",
    "gram_schmidt",
    ["gram_schmidt", "householder", "lowdin", "cayley"],
    "the map: S-OPT works with any, and the original has Gram-Schmidt",
)
flags.define_learn_neurons()


def main(settings: flags.Settings) -> None:
    # here, since TensorFlow takes seconds to import and a wrong flag should be answered at once
    from common.training.loop import train
    from sopt_gs.architecture import method

    train(settings, method(**settings.own))


if __name__ == "__main__":
    flags.run(main, __file__)
