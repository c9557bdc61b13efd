"""Baseline: the same network with ordinary trained kernels.

    cd baseline && python train.py
    cd baseline && python train.py --dataset=digits --iterations=300

It has the data, schedule, loss and weight decay of the OPT methods, for comparison with them.
"""

import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

from common.training import flags


def main(settings: flags.Settings) -> None:
    # imported here because TensorFlow takes seconds, and a wrong flag should fail at once
    from baseline.architecture import METHOD
    from common.training.loop import train

    train(settings, METHOD)


if __name__ == "__main__":
    flags.run(main, __file__)
