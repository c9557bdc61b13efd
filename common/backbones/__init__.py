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
        facts = {}
        for node in ast.parse(path.read_text("utf-8")).body:
            match node:
                case ast.Assign(targets=[ast.Name("WIDTHS" | "WIDENING" as name)]):
                    facts[name.lower()] = ast.literal_eval(node.value)
        if "widths" in facts:
            found[path.stem] = Facts(**facts)
    return found


def load(name: str) -> Callable:
    """Returns the function that builds the network ``name``."""
    return getattr(importlib.import_module(f".{name}", __name__), name)
