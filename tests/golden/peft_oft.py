"""Makes peft_oft.npz: the weights that PEFT's OFT merges, for tests/test_blocks.py.

    pip install torch peft
    python tests/golden/peft_oft.py

OFT is the authors' later method with block rotations. The script rotates a layer of PyTorch by
blocks of 8 inputs, with Cayley's transform (not its series), in float64, and merges the rotation
into the weight. The file has:

    weight, merged    [units, n]                before and after
    skew              [blocks, 8 * 7 / 2]       of each block, the upper triangle of Q, row by row
    versions          PEFT's and PyTorch's

PEFT computes (I - Q) (I + Q)^-1. Ours is (I + S) (I - S)^-1, so that S = -Q. The file in the
repository was made with PEFT 0.21.2 and PyTorch 2.13.0.
"""

import importlib.metadata
import pathlib

import numpy as np

FILE = pathlib.Path(__file__).with_suffix(".npz")
INPUTS, UNITS, BLOCK = 24, 5, 8


def main() -> None:
    import peft
    import torch

    torch.manual_seed(0)
    plain = torch.nn.Sequential(torch.nn.Linear(INPUTS, UNITS, bias=False, dtype=torch.float64))
    weight = plain[0].weight.detach().numpy().copy()
    # by itself PEFT takes r blocks; 0 leaves their number to their size
    config = peft.OFTConfig(
        r=0, oft_block_size=BLOCK, target_modules=["0"], use_cayley_neumann=False
    )
    model = peft.get_peft_model(plain, config)
    (skew,) = [p for name, p in model.named_parameters() if "oft_R" in name]
    with torch.no_grad():
        skew.copy_(torch.randn(skew.shape) / 2)
    figures = {"weight": weight, "skew": skew.detach().numpy().copy()}
    figures["merged"] = next(model.merge_and_unload().parameters()).detach().numpy()
    versions = [f"{name} {importlib.metadata.version(name)}" for name in ("peft", "torch")]
    np.savez(FILE, versions=versions, **figures)
    print(f"written: {FILE}, by {', '.join(versions)}")


if __name__ == "__main__":
    main()
