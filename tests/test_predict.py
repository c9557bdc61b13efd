"""predict.py."""

import json
import os
import pathlib

import keras
import numpy as np
import pytest
from matplotlib.image import imsave

import predict
from common.backbones import cnn6
from common.convert import fold_model
from common.errors import UserError
from tests.conftest import method_named


def answer(capsys, model: pathlib.Path, image: pathlib.Path) -> list[str]:
    """Returns the lines that predict.py prints."""
    capsys.readouterr()
    predict.main(predict.Prediction((image,), model))
    return capsys.readouterr().out.splitlines()


@pytest.fixture
def red(tmp_path) -> pathlib.Path:
    pixels = np.zeros((50, 40, 3), np.uint8)
    pixels[..., 0] = 250
    imsave(tmp_path / "red.png", pixels)
    return tmp_path / "red.png"


def write_run(path: pathlib.Path, method: object, data: str) -> None:
    facts = {"settings": {"method": method, "backbone": "cnn6"}, "data": data}
    path.write_text(json.dumps(facts))


def test_the_five_likeliest_classes(tmp_path, capsys, red):
    """The model is of an earlier run, which has other classes and another description."""
    inputs = keras.Input((32, 32, 3))
    x = keras.layers.GlobalAveragePooling2D()(inputs)
    model = keras.Model(inputs, keras.layers.Dense(7, use_bias=False)(x))
    weights = np.zeros((3, 7))
    weights[0, 4] = 0.02
    model.set_weights([weights])
    model.save(tmp_path / "folded_03.keras")
    classes = "\n".join(f"class {i}\x1b[2J" for i in range(7))
    (tmp_path / "classes_03.txt").write_text(classes)
    (tmp_path / "classes.txt").write_text("of\nanother run\n")
    data = "digits from scikit-learn: 1,437 training and 360 test images of 10 classes"
    write_run(tmp_path / "run_03.json", "opt_hr", data)
    write_run(tmp_path / "run.json", "opt_hr", "another")
    first, *lines = answer(capsys, tmp_path / "folded_03.keras", red)
    assert first == f"model: {tmp_path / 'folded_03.keras'}: opt_hr, cnn6, trained on {data}"
    assert lines[0] == f"{red}:"
    probability = np.exp(5) / (np.exp(5) + 6)
    assert lines[1] == f"  {100 * probability:5.1f} %  class 4\\x1b[2J"
    assert len(lines) == 6


def test_a_run_that_is_not_known(tmp_path):
    run = tmp_path / "run.json"
    for text in (None, "", "[]", "{}", '{"settings": 1, "data": 2}', "[" * 100_000, "\\ud800"):
        if text is not None:
            run.write_text(text)
        said = "of an unknown run, since run.json next to it is missing or damaged"
        assert predict.describe(run) == (said, None)


def test_only_a_method_of_this_repository_is_imported(tmp_path):
    found = []
    for method in ("opt_hr", "json", "tests", "./opt_hr", ["opt_hr"]):
        write_run(tmp_path / "run.json", method, "")
        found.append(predict.describe(tmp_path / "run.json")[1])
    assert found == ["opt_hr", None, None, None, None]


def test_the_model_and_the_folded_one_next_to_it(tmp_path, capsys, red):
    """Both say the same of a picture."""
    (tmp_path / "classes.txt").write_text("a\nb\nc\n")
    write_run(tmp_path / "run.json", "opt_gs", "two\nlines")
    keras.utils.set_random_seed(0)
    for method in ("opt_gs", "baseline"):
        model = method_named(method).build_model(cnn6, num_classes=3, widths=(4, 4, 4, 4))
        model.save(tmp_path / "model.keras")
        fold_model(model).save(tmp_path / "folded.keras")
        answers = [answer(capsys, tmp_path / f"{name}.keras", red) for name in ("model", "folded")]
        assert answers[0][0].endswith(r"model.keras: opt_gs, cnn6, trained on two\nlines")
        assert answers[0][1:] == answers[1][1:]


def test_files_that_are_not_a_runs(tmp_path, red):
    model, pipe = tmp_path / "folded.keras", tmp_path / "pipe"
    other, latin = tmp_path / "other/folded.keras", tmp_path / "folded_01.keras"
    os.mkfifo(pipe)
    other.parent.mkdir()
    os.mkfifo(other.with_name("classes.txt"))
    for path in (other, latin):
        path.touch()
    model.write_bytes(b"PK not a model")
    keras.Sequential([keras.layers.Dense(2)]).save(tmp_path / "folded_02.keras")  # never called
    (tmp_path / "classes_02.txt").write_text("a\nb\n")
    flat = [keras.Input((32, 32, 3)), keras.layers.Flatten()]
    for number, names in (("03", "a\nb\nc\n"), ("04", "a\nb\n")):
        keras.Sequential([*flat, keras.layers.Dense(2)]).save(tmp_path / f"folded_{number}.keras")
        (tmp_path / f"classes_{number}.txt").write_text(names)
    (tmp_path / "classes.txt").write_text("a\nb\n")
    (tmp_path / "classes_01.txt").write_bytes("café\n".encode("latin-1"))
    for image, path, message in (
        (red, tmp_path / "none.keras", "there is no file"),
        (red, pipe, "there is no file"),
        (red, other, "there is no file"),
        (pipe, model, "there is no file"),
        (red, latin, ".* classes_01.txt is not UTF-8"),
        (red, model, "is not a model of a run"),
        (red, tmp_path / "folded_02.keras", ".*folded_02.keras is not a model of a run"),
        (red, tmp_path / "folded_03.keras", r"maps .* to \(None, 2\), not images to 3 classes"),
        (model, tmp_path / "folded_04.keras", "cannot be read as an image: it is no BMP"),
    ):
        with pytest.raises(UserError, match=message):
            predict.main(predict.Prediction((image,), path))
