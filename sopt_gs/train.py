"""S-OPT (GS): stochastic OPT, which rotates some rows at a time (Liu et al., CVPR 2021).

    cd sopt_gs && python train.py

Trains CNN-6 on CIFAR-100 with the settings of the authors' sopt_gs: 400 episodes of 750 iterations
of batch 128, and a test after each. The published code cannot run, because its rotations and lists
of rows differ in size. We rotate a quarter of the channels, as in its lists.
"""

import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

from common.training.methods import run

if __name__ == "__main__":
    run(__file__)  # trains the method of architecture.py with the flags of settings.py
