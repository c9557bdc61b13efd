"""The library as others install it: the package opt_keras."""

import ast
import re
import shutil
import sys
import tomllib
import zipfile
from pathlib import Path

import numpy as np
import pytest

import common
from tests.conftest import ROOT, library_modules, run

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())


def test_imports(tmp_path):
    """`import common` imports no framework; under its installed name it registers the layers."""
    (tmp_path / "opt_keras").symlink_to(ROOT / "common")
    code = """
import os, sys
before = dict(os.environ)
import common
print([name for name in ("tensorflow", "keras", "numpy", "absl") if name in sys.modules])
print(os.environ == before)
import tensorflow, keras
before = dict(os.environ)
import opt_keras
print("opt_keras.layers" in sys.modules, os.environ == before)
"""
    printed = run("-c", code, cwd=tmp_path, PYTHONPATH=str(ROOT)).stdout.splitlines()
    assert printed == ["[]", "True", "True True"]


def test_library_imports_only_itself_and_what_it_names():
    """No module of the library needs the scripts' modules, or what is not installed with it."""
    imported = set()
    for path in library_modules().values():
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and node.level:  # from . or from ..
                names = {(node.module or "").partition(".")[0], *(a.name for a in node.names)}
                assert not names & {"datasets", "training"}, f"{path} imports {names}"
            elif isinstance(node, ast.ImportFrom):
                imported.add(node.module.partition(".")[0])
            elif isinstance(node, ast.Import):
                imported |= {alias.name.partition(".")[0] for alias in node.names}
    dependencies = {re.match(r"[\w-]+", line)[0] for line in PROJECT["project"]["dependencies"]}
    assert imported - sys.stdlib_module_names == dependencies


def test_the_same_versions_are_asked_for_everywhere():
    requirements = (ROOT / "requirements.txt").read_text().splitlines()
    assert set(PROJECT["project"]["dependencies"]) <= set(requirements)
    ruff = re.search(r"^ruff==(.*)$", (ROOT / "requirements-dev.txt").read_text(), re.MULTILINE)[1]
    assert f"rev: v{ruff}\n" in (ROOT / ".pre-commit-config.yaml").read_text()
    build = PROJECT["build-system"]["requires"]
    assert set(build) <= set((ROOT / "requirements-dev.txt").read_text().splitlines())


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    """Returns the wheel, built from a copy, since building leaves files next to the sources."""
    source, out = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    no_caches = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "common", source / "common", ignore=no_caches)
    run("-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", out, source)
    return next(out.glob("*.whl"))


def test_the_wheel_holds_the_library_alone(wheel):
    assert wheel.name == f"opt_keras-{common.__version__}-py3-none-any.whl"
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        metadata = archive.read(f"opt_keras-{common.__version__}.dist-info/METADATA").decode()
    files = [ROOT / "common/py.typed", *library_modules().values()]
    expected = {f"opt_keras/{path.relative_to(ROOT / 'common').as_posix()}" for path in files}
    assert {name for name in names if ".dist-info/" not in name} == expected
    assert any(name.endswith("/LICENSE") for name in names)
    needed = re.findall(r"^Requires-Dist: (.*)$", metadata, re.MULTILINE)
    assert needed == ["tensorflow==2.21.*", "keras==3.15.*", "numpy>=2"]


SAVE = """
import keras, numpy as np
from {package}.layers import *
from {package}.losses import smoothed_cross_entropy
from {package}.optimizers import OGD
from {package}.orthogonal import cayley, householder, identity, lowdin
from {package}.regularizers import HypersphericalEnergy, OrthogonalityPenalty
model = keras.Sequential([
    keras.Input((32, 32, 3)),
    OrthogonalConv2D(8, 3, orthogonalize=identity),
    BatchNormalization(),
    StochasticOrthogonalConv2D(8, 3, orthogonalize=lowdin),
    keras.layers.GlobalAveragePooling2D(),
    OrthogonalDense(4, orthogonalize=cayley, rotation_regularizer=OrthogonalityPenalty()),
    StochasticOrthogonalDense(4, orthogonalize=householder),
    keras.layers.Dense(10, kernel_regularizer=HypersphericalEnergy()),
])
model.compile(OGD(0.01), smoothed_cross_entropy)
model.fit(np.load("images.npy"), np.arange(4), verbose=0)
model.save("model.keras")
np.save("saved.npy", model(np.load("images.npy"), training=False))
"""
LOAD = """
import keras, numpy as np
import {module}
model = keras.saving.load_model("model.keras", compile={compiled})
np.save("loaded.npy", model(np.load("images.npy"), training=False))
print(type(model.layers[0]).__module__, model.compiled and type(model.optimizer).__name__)
"""


@pytest.mark.slow
@pytest.mark.parametrize("saver", ["opt_keras", "common"])
def test_files_load_under_either_name(wheel, tmp_path, saver):
    """In the repository the layers alone are enough for a model that is not trained on."""
    images = np.random.default_rng(0).integers(0, 256, (4, 32, 32, 3)).astype("float32")
    np.save(tmp_path / "images.npy", images)
    paths = {"opt_keras": str(wheel), "common": str(ROOT)}  # a wheel is a zip file
    run("-c", SAVE.format(package=saver), cwd=tmp_path, PYTHONPATH=paths[saver])
    loader, module, optimizer = "opt_keras", "opt_keras", "OGD"
    if saver == "opt_keras":
        loader, module, optimizer = "common", "common.layers, common.regularizers", False
    code = LOAD.format(module=module, compiled=bool(optimizer))
    result = run("-c", code, cwd=tmp_path, PYTHONPATH=paths[loader])
    assert result.stdout.splitlines()[-1] == f"{loader}.layers {optimizer}"
    np.testing.assert_array_equal(np.load(tmp_path / "loaded.npy"), np.load(tmp_path / "saved.npy"))
