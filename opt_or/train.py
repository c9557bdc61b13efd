"""OPT (OR): a penalty on rotations that are not orthogonal (Liu et al., CVPR 2021).

    cd opt_or && python train.py

Trains CNN-6 on CIFAR-100 as the authors' opt_or does: 75,000 iterations of batch 128. The penalty
is part of the loss and of metrics.csv, but not of the printed lines, as in the original.
"""

import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

from common.training.methods import run

if __name__ == "__main__":
    run(__file__)  # trains the method of architecture.py with the flags of settings.py
