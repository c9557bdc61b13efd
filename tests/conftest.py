"""The library by the name under which it is installed, and the README's code that uses it so."""

import importlib
import os
import pkgutil
import re
import sys
import tempfile
import textwrap
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

import common
from common.training.methods import known, method_of

# in what a failed test shows, TensorFlow's device chatter would come first
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

# no data set, nor setting, that the user has there
_EMPTY = tempfile.TemporaryDirectory()
os.environ |= {"KERAS_HOME": f"{_EMPTY.name}/keras", "TFDS_DATA_DIR": f"{_EMPTY.name}/tfds"}

ROOT = Path(__file__).resolve().parents[1]
NOT_INSTALLED = ("common.datasets", "common.training")


def library_modules(
    folders: Iterable = common.__path__, prefix: str = "common."
) -> dict[str, Path]:
    """Returns the files of the library's modules by name, without that of ``common`` itself."""
    found = {}
    for module in pkgutil.iter_modules(folders, prefix):
        path = ROOT.joinpath(*module.name.split("."))
        if module.name in NOT_INSTALLED:
            continue
        found[module.name] = path / "__init__.py" if module.ispkg else path.with_suffix(".py")
        if module.ispkg:
            found |= library_modules([str(path)], f"{module.name}.")
    return found


def method_named(name: str, **settings: object) -> Any:
    """Returns a method with its usual settings, except for ``settings``."""
    return method_of(known()[name](**settings))


@pytest.fixture
def opt_keras(monkeypatch):
    """Returns the package `common`; ``import opt_keras`` gives it too until the test ends.

    Its modules are imported first, so that none is imported again under its other name.
    """
    monkeypatch.setitem(sys.modules, "opt_keras", common)
    for name in library_modules():
        other = "opt_keras" + name.removeprefix("common")
        monkeypatch.setitem(sys.modules, other, importlib.import_module(name))
    return common


@pytest.fixture(scope="session")
def own_model() -> str:
    """Returns the README's code for a model of one's own."""
    readme = (ROOT / "README.md").read_text()
    section = readme.split("\n## In your own model\n")[1].split("\n## ")[0]
    blocks = re.findall(r"(?:^(?:    .*)?\n)+", section, re.MULTILINE)
    python = [block for block in blocks if re.match(r"\s*(import|from) ", block)]
    return textwrap.dedent("".join(python))
