"""MHE: plain kernels whose hyperspherical energy is penalized (Liu et al., NeurIPS 2018).

    cd mhe && python train.py
    cd mhe && python train.py --model=mhe --power=a2
    cd mhe && python train.py --dataset=digits --iterations=300

It has the network, data, schedule and weight decay of the baseline. The weighted energies of all
layers are added to the loss. OPT keeps the energy small by its form, and MHE by this penalty.
"""

import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

from absl import flags as absl_flags

from common.training import flags

absl_flags.DEFINE_enum(
    "model",
    "half_mhe",
    ["half_mhe", "mhe"],
    "the energy: of all neurons and their opposites, or of the neurons alone",
)
absl_flags.DEFINE_enum(
    "power",
    "2",
    ["0", "1", "2", "a0", "a1", "a2"],
    "the power of the distances between neurons, or (a0 to a2) of the angles; 0: the logarithm",
)

if __name__ == "__main__":
    flags.run(__file__)  # trains the METHOD of architecture.py with these flags
