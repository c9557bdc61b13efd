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

from common.training.methods import run

if __name__ == "__main__":
    run(__file__)  # trains the method of architecture.py with the flags of settings.py
