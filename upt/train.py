"""UPT: unconstrained over-parameterized training, the control of OPT (Liu et al., CVPR 2021).

    cd upt && python train.py
    cd upt && python train.py --dataset=digits --iterations=300

A kernel is R @ F as in OPT, but R is a weight like any other: no map, no penalty, weight decay. It
answers whether it is orthogonality that helps, or the extra matrix alone. R starts at I, where the
network is the plain one. --rotation_start=normal draws it N(0, 1) as OPT's maps have it: the
network then starts out saturated, as opt_or's does.
"""

import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

from absl import flags as absl_flags

from common.training import flags

absl_flags.DEFINE_enum(
    "rotation_start", "identity", ["identity", "normal"], "where R starts: at I, or N(0, 1)"
)
flags.define_learn_neurons()


def main(settings: flags.Settings) -> None:
    # here, since TensorFlow takes seconds to import and a wrong flag should be answered at once
    from common.training.loop import train
    from upt.architecture import method

    train(settings, method(**settings.own))


if __name__ == "__main__":
    flags.run(main, __file__)
