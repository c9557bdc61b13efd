"""A method is one folder: what stands in it is all that the rest of the repository needs."""

import functools
import pathlib
import re
import shutil
import subprocess
import textwrap

import keras
import numpy as np
import pytest
import tensorflow as tf
from matplotlib.image import imsave

from common.backbones import cnn6
from common.errors import UserError
from common.orthogonal import gram_schmidt
from common.training.method import check_saving, opt_model
from common.training.methods import known
from tests.conftest import ROOT, run
from tests.test_layers import Reflected

SMALL = ["--widths=4,4,4,4", "--batch_size=16", "--dataset=digits", "--iterations=10"]


def example(of: str) -> str:
    """Returns the code in CONTRIBUTING.md's paragraph of that title."""
    text = (ROOT / "CONTRIBUTING.md").read_text().split(f"**{of}.**")[1].split("\n**")[0]
    code = "".join(re.findall(r"^(?:    .*)?\n", text, re.MULTILINE))
    return textwrap.dedent(code).strip() + "\n"


@pytest.fixture(scope="module")
def copy(tmp_path_factory) -> pathlib.Path:
    """Returns a copy of the repository with one more folder, made as CONTRIBUTING.md says."""
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
        path.write_text(text)
    (folder / "opt_xx/architecture.py").write_text(example("Add a method"))
    return folder


def test_programs_have_it_by_default(copy):
    """After the method of the same row; the list needs no TensorFlow."""
    program = "import sys; from common.training.methods import known; kinds = known()"
    program += "; print(*kinds, kinds['opt_xx'].title, {'tensorflow', 'keras'} & set(sys.modules))"
    expected = list(known())
    expected.insert(expected.index("opt_gs") + 1, "opt_xx")
    # without PYTHONPATH the copy is tested, and not what it was copied from
    printed = run("-c", program, cwd=copy, PYTHONPATH="").stdout
    assert printed == f"{' '.join(expected)} OPT (XX) set()\n"


def test_the_example_works_with_xla():
    names: dict = {}
    exec(example("Add a method"), names)  # noqa: S102
    random = np.random.default_rng(0)
    w, weights = tf.constant(random.normal(size=(2, 3, 3))), random.normal(size=(2, 3, 3))

    def result_and_gradient() -> tuple[tf.Tensor, tf.Tensor]:
        with tf.GradientTape() as tape:
            tape.watch(w)
            q = names["last_row_first"](w)
            total = tf.reduce_sum(weights * q)
        return q, tape.gradient(total, w)

    expected = result_and_gradient()
    compiled = tf.function(result_and_gradient, jit_compile=True)()
    for xla, eager in zip(compiled, expected, strict=True):
        np.testing.assert_allclose(xla, eager, atol=1e-10)  # conditions of some 100, in float64
    # the last row keeps its direction
    last = w[:, -1] / tf.norm(w[:, -1], axis=-1, keepdims=True)
    np.testing.assert_allclose(expected[0][:, -1], last, atol=1e-14)


@keras.saving.register_keras_serializable(package="tests")
class _Forgets(Reflected):
    """A map whose configuration lacks its setting: it is saved, but cannot be loaded."""

    def get_config(self) -> dict:
        return {}


@pytest.mark.parametrize(
    ("own", "message"),
    [
        (lambda w: gram_schmidt(w), "conv1_0 .* map <lambda> is not registered"),
        (functools.partial(gram_schmidt), "map partial is not registered"),
        (_Forgets(-1), "missing 1 required positional argument: 'sign'"),
        ("gram_schmidt", None),
    ],
)
def test_a_map_that_would_be_lost_is_refused_before_training(own, message):
    model = opt_model(own, known()["opt_gs"]())(cnn6, widths=[2] * 4)
    if message is None:
        check_saving(model)
        return
    with pytest.raises(UserError, match=message):
        check_saving(model)


@pytest.mark.slow
def test_compare_trains_it_and_predict_loads_it(copy, tmp_path):
    """predict.py finds the map, which `common` does not know."""
    there = {"cwd": copy, "PYTHONPATH": ""}
    run("compare.py", "--methods=baseline,opt_xx", *SMALL, f"--out={tmp_path}", **there)
    table = (tmp_path / "table.md").read_text()
    titles = [line.split("|")[1].strip() for line in table.splitlines()[2:4]]
    assert titles == ["Baseline", "OPT (XX)"]
    imsave(tmp_path / "red.png", np.full((32, 32, 3), [250, 0, 0], "uint8"))
    words = ["predict.py", str(tmp_path / "red.png")]
    log = tmp_path / "runs/opt_xx_seed1"
    models = [f"--model={log / name}.keras" for name in ("model", "folded")]
    answers = [run(*words, model, **there).stdout.splitlines() for model in models]
    assert answers[0][1:] == answers[1][1:]
