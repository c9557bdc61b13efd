"""A method is one folder: what stands in it is all that the rest of the repository needs."""

import csv
import os
import pathlib
import shutil
import subprocess
import sys

import keras
import pytest

from common.layers import OrthogonalConv2D
from common.orthogonal import lowdin
from common.training.folders import known

ROOT = pathlib.Path(__file__).resolve().parents[1]
SMALL = ["--widths=4,4,4,4", "--batch_size=16", "--dataset=digits", "--iterations=10"]


def run(folder: pathlib.Path, *words: str) -> str:
    """Runs ``python *words`` in ``folder``, which must succeed, and returns its output."""
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": "-1"}
    environment.pop("PYTHONPATH", None)  # the copy is to be tested, and not what it was copied from
    command = [sys.executable, *words]
    options = {"capture_output": True, "text": True, "timeout": 600}
    result = subprocess.run(command, cwd=folder, env=environment, check=False, **options)
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


@pytest.fixture(scope="module")
def copy(tmp_path_factory) -> pathlib.Path:
    """Returns a copy of the repository with one more folder: opt_gs with another map."""
    folder = tmp_path_factory.mktemp("repository")
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for name in filter(None, names.split("\0")):
        if (ROOT / name).is_file():  # git lists what has just been deleted too
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / name, folder / name)
    shutil.copytree(folder / "opt_gs", folder / "opt_xx")
    for path in (folder / "opt_xx").glob("*.py"):
        text = path.read_text().replace("opt_gs", "opt_xx").replace("OPT (GS)", "OPT (XX)")
        path.write_text(text.replace("gram_schmidt", "lowdin"))
    return folder


def test_compare_has_it_by_default(copy):
    """In its place: beside that of the same row, and after it by name."""
    program = "import sys, compare; sys.argv = ['compare.py']"
    program += "; print(*(row.method for row in compare.parse_arguments().rows))"
    expected = list(known())
    expected.insert(expected.index("opt_gs") + 1, "opt_xx")
    assert run(copy, "-c", program).split() == expected


def test_the_benchmarks_have_it_by_default(copy):
    program = "from benchmarks import steps; print(*steps.METHODS); print(steps.TITLES['opt_xx'])"
    methods, title = run(copy, "-c", program).splitlines()
    assert set(methods.split()) == {*known(), "opt_xx"}
    assert title == "OPT (XX)"


def test_lists_of_methods_need_no_tensorflow(copy):
    program = "import sys, compare; from benchmarks import original, scale, steps"
    program += "; print(*{'tensorflow', 'keras', 'common.training.flags'} & set(sys.modules))"
    assert run(copy, "-c", program).split() == []


@pytest.mark.slow
def test_compare_trains_it(copy, tmp_path):
    run(copy, "compare.py", "--methods=baseline,opt_xx", *SMALL, f"--out={tmp_path}")
    table = (tmp_path / "table.md").read_text()
    assert [line.split("|")[1].strip() for line in table.splitlines()[2:4]] == [
        "Baseline",
        "OPT (XX)",
    ]
    assert "OPT (XX)" in (tmp_path / "report.html").read_text()
    model = keras.saving.load_model(tmp_path / "runs" / "opt_xx_seed1" / "model.keras")
    turned = [layer for layer in model.layers if isinstance(layer, OrthogonalConv2D)]
    assert len(turned) == 7
    assert {layer.orthogonalize for layer in turned} == {lowdin}


@pytest.mark.slow
def test_the_benchmarks_time_it(copy, tmp_path):
    words = ["--methods=opt_xx", "--quick", "--widths=4,4,4,4", f"--out={tmp_path / 'steps.csv'}"]
    run(copy, "-m", "benchmarks.steps", *words)
    with (tmp_path / "steps.csv").open() as file:
        (row,) = csv.DictReader(file)
    assert row["method"] == "opt_xx"
    assert float(row["step_ms"]) > 0


@pytest.mark.slow
def test_the_tests_have_it(copy):
    """Those of scripts, backbones and checkpoints are asked of it, and those tried here pass."""
    pytest_words = ["-m", "pytest", "-q", "-p", "no:cacheprovider", "-m", ""]
    files = [f"tests/test_{name}.py" for name in ("scripts", "backbones", "checkpoints")]
    lines = run(copy, *pytest_words, "--collect-only", *files).splitlines()
    tests = [f"{files[0]}::test_trains_on_digits[opt_xx]"]
    tests += [f"{files[0]}::test_help_shows_our_flags_first_and_exits_0[opt_xx]"]
    tests += [f"{files[1]}::test_parameters[cnn6-opt_xx]"]
    assert {*tests, f"{files[2]}::test_killed_twice[opt_xx]"} <= set(lines)
    assert "3 passed" in run(copy, *pytest_words, *tests)
