"""OPT (HR): neurons turned by Householder reflections, an orthogonalization unrolled (Liu et al., CVPR 2021).

    cd opt_hr && python train.py
    cd opt_hr && python train.py --dataset=digits --iterations=300

Trains CNN-6 on CIFAR-100 as the authors' opt_hr would: 75,000 iterations of batch 128. Theirs divides by zero at R = I and
does not fit into 24 GB at these widths; see the README's table of departures.
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
    from opt_hr.architecture import method

    train(settings, method(**settings.own))


if __name__ == "__main__":
    flags.run(main, __file__)
