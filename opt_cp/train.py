"""OPT (CP): neurons rotated by Cayley's parametrization (Liu et al., CVPR 2021).

    cd opt_cp && python train.py

Trains CNN-6 on CIFAR-100 as the authors' opt_cp does: 75,000 iterations of batch 128, with widths
32, 64, 128, 128. The other methods have 64 everywhere: to compare, give both the same --widths.
"""

import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

from common.training.methods import run

if __name__ == "__main__":
    run(__file__)  # trains the method of architecture.py with the flags of settings.py
