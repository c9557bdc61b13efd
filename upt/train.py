"""UPT: unconstrained over-parameterized training, the control of OPT (Liu et al., CVPR 2021).

    cd upt && python train.py

A kernel is R @ F as in OPT, but R is an ordinary weight: no map, no penalty, and weight decay. This
shows what helps: orthogonality, or only the additional matrix. R starts at I, where the network
equals the plain one; with --rotation_start=normal it starts saturated, as in opt_or.
"""

import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

from common.training.methods import run

if __name__ == "__main__":
    run(__file__)  # trains the method of architecture.py with the flags of settings.py
