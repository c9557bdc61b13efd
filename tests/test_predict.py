"""predict.py and the example, as a reader would start them."""

import pathlib
import re
import subprocess
import sys

import keras
import numpy as np
from matplotlib.image import imsave

ROOT = pathlib.Path(__file__).resolve().parents[1]


def run(*words, cwd=ROOT) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, *map(str, words)], cwd=cwd, capture_output=True, text=True, timeout=300
    )


def test_the_five_likeliest_classes(tmp_path):
    """A model that knows red from other colours finds a red picture red."""
    inputs = keras.Input((32, 32, 3))
    x = keras.layers.GlobalAveragePooling2D()(inputs)
    model = keras.Model(inputs, keras.layers.Dense(7, use_bias=False, name="score")(x))
    weights = np.zeros((3, 7))
    weights[0, 4] = 0.02
    model.get_layer("score").set_weights([weights])
    model.save(tmp_path / "folded.keras")
    (tmp_path / "classes.txt").write_text("\n".join(f"class {i}" for i in range(7)))
    red = np.zeros((50, 40, 3), np.uint8)
    red[..., 0] = 250
    imsave(tmp_path / "red.png", red)
    result = run("predict.py", f"--model={tmp_path / 'folded.keras'}", tmp_path / "red.png")
    assert result.returncode == 0, result.stderr
    lines = result.stdout.splitlines()
    assert lines[0] == f"{tmp_path / 'red.png'}:"
    probability = np.exp(5) / (np.exp(5) + 6)
    assert lines[1] == f"  {100 * probability:5.1f} %  class 4"
    assert len(lines) == 6


def test_what_is_no_model_or_picture_is_one_line(tmp_path):
    picture = tmp_path / "picture.png"
    picture.write_text("not a picture")
    model = tmp_path / "folded.keras"
    for words, message in (
        ([picture, f"--model={model}"], "there is no file"),
        ([tmp_path / "none.png"], "there is no file"),
    ):
        result = run("predict.py", *words)
        assert result.returncode == 2
        assert re.fullmatch(rf"predict.py: {message} .*\n", result.stderr)
    model.write_bytes(b"PK not a model")
    (tmp_path / "classes.txt").write_text("a\nb\n")
    result = run("predict.py", picture, f"--model={model}")
    assert result.returncode == 2
    assert "Traceback" not in result.stderr
    assert "is not a folded model" in result.stderr


def test_the_example_learns(tmp_path, monkeypatch):
    from examples import own_model

    monkeypatch.chdir(tmp_path)
    assert own_model.main() > 0.9
    assert (tmp_path / "digits.keras").is_file()
