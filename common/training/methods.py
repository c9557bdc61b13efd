"""The methods: each is a folder with train.py, settings.py and architecture.py."""

import importlib
import pathlib
import sys
from typing import Any

from .command_line import run_program
from .settings import ROOT, Settings
from .startup import import_tensorflow


def known() -> dict[str, type[Settings]]:
    """Returns each method's class of settings by name, in the order of tables; needs no Keras."""
    names = [path.parent.name for path in ROOT.glob("*/train.py")]
    found = [importlib.import_module(f"{name}.settings").Settings for name in names]
    return {kind.method: kind for kind in sorted(found, key=lambda kind: (kind.row, kind.method))}


def method_of(settings: Settings) -> Any:
    """Returns the `Method` that ``settings`` say."""
    return importlib.import_module(f"{settings.method}.architecture").method(settings)


def run(script: str) -> None:
    """Trains the method in the folder of ``script``; every train.py ends with it."""
    name = pathlib.Path(script).resolve().parent.name
    if sys.platform == "win32":  # it lacks these file locks and signals
        print("Windows is not supported; use Linux, macOS or WSL", file=sys.stderr)
        sys.exit(2)

    def main(settings: Settings) -> None:
        # imported here because TensorFlow takes seconds, and a wrong flag should fail at once
        import_tensorflow()
        from .loop import train

        train(settings, method_of(settings))

    run_program(importlib.import_module(f"{name}.settings").Settings, main, f"{name}/train.py")
