"""OPT (HR): neurons rotated by unrolled Householder reflections (Liu et al., CVPR 2021).

    cd opt_hr && python train.py

Trains CNN-6 on CIFAR-100 for 75,000 iterations of batch 128, with the settings of the authors'
opt_hr, whose code divides by zero at R = I: see docs/fidelity.md.
"""

import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

from common.training.methods import run

if __name__ == "__main__":
    run(__file__)  # trains the method of architecture.py with the flags of settings.py
