"""What several test files share."""

import importlib
import importlib.util
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import common
from common.training.methods import known, method_of

# in what a failed test shows, TensorFlow's device chatter would come first
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
# a GPU sums in another order each time, and in TF32
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")

# no data set, nor setting, that the user has there
_EMPTY = tempfile.TemporaryDirectory()
os.environ |= {"KERAS_HOME": f"{_EMPTY.name}/keras", "TFDS_DATA_DIR": f"{_EMPTY.name}/tfds"}

ROOT = Path(__file__).resolve().parents[1]


def library_modules() -> dict[str, Path]:
    """Returns the files of the library's modules by name, ``common`` among them."""
    found = {}
    for path in (ROOT / "common").rglob("*.py"):
        _, *parts = path.relative_to(ROOT).with_suffix("").parts
        if parts[0] not in ("datasets", "training"):  # they are not installed
            found[".".join(["common", *parts]).removesuffix(".__init__")] = path
    return found


def method_named(name: str, **settings: object) -> Any:
    """Returns a method with its usual settings, except for ``settings``."""
    return method_of(known()[name](**settings))


def run(*words: object, cwd: Path = ROOT, **environment: str) -> subprocess.CompletedProcess:
    """Runs Python with ``words``, which must succeed."""
    options = {"env": os.environ | environment, "cwd": cwd, "text": True, "timeout": 3000}
    result = subprocess.run([sys.executable, *map(str, words)], capture_output=True, **options)
    assert result.returncode == 0, result.stdout + result.stderr
    return result


def wait_for(happens: Callable[[], object], *processes: subprocess.Popen) -> None:
    """Returns once something has happened, while ``processes`` run."""
    deadline = time.monotonic() + 300
    while not happens():
        assert not [p for p in processes if p.poll() is not None]
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.fixture
def opt_keras(monkeypatch):
    """Returns the package `opt_keras`, made of the modules of `common`."""
    for name in library_modules():
        other = "opt_keras" + name.removeprefix("common")
        monkeypatch.setitem(sys.modules, other, importlib.import_module(name))
    spec = importlib.util.spec_from_file_location("opt_keras", common.__file__)
    package = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "opt_keras", package)
    spec.loader.exec_module(package)
    return package
