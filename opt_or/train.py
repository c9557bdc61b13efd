"""OPT (OR): rotations relaxed, with a penalty on their distance from orthogonality (Liu et al., CVPR 2021).

    cd opt_or && python train.py
    cd opt_or && python train.py --dataset=digits --iterations=300

Trains CNN-6 on CIFAR-100 as the authors' opt_or does: 75,000 iterations of batch 128. The penalty is
in the loss and in metrics.csv; the printed lines leave it out, as the original's do.
"""

import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

from common.training import flags

flags.define_rotation_stddev()
flags.define_learn_neurons()


def main(settings: flags.Settings) -> None:
    # here, since TensorFlow takes seconds to import and a wrong flag should be answered at once
    from common.training.loop import train
    from opt_or.architecture import method

    train(settings, method(**settings.own))


if __name__ == "__main__":
    flags.run(main, __file__)
