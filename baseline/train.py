"""Baseline: the same network trained plainly, kernels learned themselves.

    cd baseline && python train.py
    cd baseline && python train.py --dataset=digits --iterations=300

Same data, schedule, loss and weight decay as the OPT methods, which it is there to be compared with.
"""

import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

from common.training import flags


def main(settings: flags.Settings) -> None:
    # here, since TensorFlow takes seconds to import and a wrong flag should be answered at once
    from baseline.architecture import METHOD
    from common.training.loop import train

    train(settings, METHOD)


if __name__ == "__main__":
    flags.run(main, __file__)
