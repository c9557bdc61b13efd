"""Finds the methods: the folders with a train.py, and the facts in each one's __init__.py."""

import dataclasses
import importlib
import pathlib
from typing import Any

ROOT = pathlib.Path(__file__).resolve().parents[2]
ITERATIONS = 75_000  # of most methods
BATCH_SIZE = 128  # unless there are fewer images


@dataclasses.dataclass(frozen=True)
class Facts:
    """What is known of a method without importing TensorFlow.

    Attributes:
        name: its folder's name.
        title: its name in tables and images.
        row: its place in tables; methods of the same row are sorted by name.
        defaults: flags whose default differs from that of other methods.
    """

    name: str
    title: str
    row: int
    defaults: dict[str, Any]

    @property
    def iterations(self) -> int:
        """Returns the length of a whole run."""
        return self.defaults.get("iterations", ITERATIONS)


def usual_warmup(iterations: int, whole: int) -> int:
    """Returns how many iterations of warm-up a run needs that is shorter than the whole schedule.

    It is 0 for one that is not: there the first 2,000 iterations or so, in which plain training may
    recover from the first steps, are few.
    """
    return min(400, iterations // 5) if iterations < whole else 0


def facts(name: str) -> Facts:
    """Returns the facts of the method in the folder ``name``."""
    module = importlib.import_module(name)
    return Facts(name, module.TITLE, module.ROW, dict(module.DEFAULTS))


def known() -> dict[str, Facts]:
    """Returns the facts of all methods by name, in the order of tables."""
    found = [facts(path.parent.name) for path in ROOT.glob("*/train.py")]
    return {method.name: method for method in sorted(found, key=lambda m: (m.row, m.name))}
