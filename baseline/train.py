"""Baseline: the same network with ordinary trained kernels.

    cd baseline && python train.py

It has the data, schedule, loss and weight decay of the OPT methods, for comparison with them.
"""

import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

from common.training.methods import run

if __name__ == "__main__":
    run(__file__)  # trains the method of architecture.py with the flags of settings.py
