"""Networks for small images, built from a layer factory; each file with WIDTHS is a network.

A factory is called as ``layer(filters, kernel_size, padding=..., name=...)`` and returns a Keras
layer without bias: `keras.layers.Conv2D` for plain training, `OrthogonalConv2D` with a map for OPT.
The inputs are images as they are stored, ``[batch, 32, 32, 3]`` (or of another ``image_size``)
with values 0 to 255; the outputs are logits, ``[batch, num_classes]``.

To add a network, put a file here: NAME.py with the function NAME and the constant WIDTHS.
"""

import ast
import dataclasses
import importlib
import pathlib
from collections.abc import Callable

Factory = Callable


@dataclasses.dataclass(frozen=True)
class Facts:
    """What is known of a network without importing Keras.

    Attributes:
        widths: WIDTHS in its file, the default number of neurons per layer.
        widening: WIDENING there, whether no width may be smaller than the one before.
    """

    widths: tuple[int, ...]
    widening: bool = False


def known() -> dict[str, Facts]:
    """Returns the facts of all networks by name; it imports no network."""
    found = {}
    for path in sorted(pathlib.Path(__file__).parent.glob("*.py")):
        constants = {}
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
                constants[node.targets[0].id] = node.value
        if "WIDTHS" in constants:
            values = {
                k: ast.literal_eval(constants[k]) for k in ("WIDTHS", "WIDENING") if k in constants
            }
            found[path.stem] = Facts(values["WIDTHS"], values.get("WIDENING", False))
    return found


def load(name: str) -> Callable:
    """Returns the function that builds the network ``name``."""
    return getattr(importlib.import_module(f".{name}", __name__), name)
