"""MHE: plain kernels whose hyperspherical energy is penalized (Liu et al., NeurIPS 2018).

    cd mhe && python train.py
    cd mhe && python train.py --model=mhe --power=a2

It has the network, data, schedule and weight decay of the baseline. The weighted energies of all
layers are added to the loss. OPT keeps the energy small by its form, and MHE by this penalty.
"""

import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

from common.training.methods import run

if __name__ == "__main__":
    run(__file__)  # trains the method of architecture.py with the flags of settings.py
