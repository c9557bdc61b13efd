"""predict.py, and the example."""

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
from common.training.command_line import parse
from tests.conftest import method_named


def answer(capsys, model: pathlib.Path, image: pathlib.Path) -> list[str]:
    """Returns the lines that predict.py prints."""
    capsys.readouterr()
    predict.main(parse(predict.Prediction, [f"--model={model}", str(image)]))
    return capsys.readouterr().out.splitlines()


def red_picture(folder: pathlib.Path) -> pathlib.Path:
    red = np.zeros((50, 40, 3), np.uint8)
    red[..., 0] = 250
    imsave(folder / "red.png", red)
    return folder / "red.png"


DATA = "digits from scikit-learn: 1,437 training and 360 test images of 10 classes"


def test_the_five_likeliest_classes(tmp_path, capsys):
    """A model that gives red pictures class 4 does so. It is of an earlier run, which has its own
    classes and description.
    """
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
    facts = {"settings": {"method": "opt_hr", "backbone": "cnn6"}, "data": DATA}
    (tmp_path / "run_03.json").write_text(json.dumps(facts))
    (tmp_path / "run.json").write_text(json.dumps(facts | {"data": "another"}))
    first, *lines = answer(capsys, tmp_path / "folded_03.keras", red_picture(tmp_path))
    assert first == f"model: {tmp_path / 'folded_03.keras'}: opt_hr, cnn6, trained on {DATA}"
    assert lines[0] == f"{tmp_path / 'red.png'}:"
    probability = np.exp(5) / (np.exp(5) + 6)
    assert lines[1] == f"  {100 * probability:5.1f} %  class 4\\x1b[2J"
    assert len(lines) == 6


def test_a_run_that_is_not_known_is_said_to_be_so(tmp_path):
    for text in (None, "", "[]", "{}", '{"settings": 1, "data": 2}', "[" * 100_000, "\\ud800"):
        if text is not None:
            (tmp_path / "run.json").write_text(text)
        said = "of an unknown run, since run.json next to it is missing or damaged"
        assert predict.describe(tmp_path / "folded.keras") == (said, None)
    (tmp_path / "run.json").write_bytes(b"\xff")
    assert "damaged" in predict.describe(tmp_path / "folded.keras")[0]
    (tmp_path / "run.json").unlink()
    os.mkfifo(tmp_path / "run.json")  # nobody writes into it
    assert "damaged" in predict.describe(tmp_path / "folded.keras")[0]


def test_only_a_method_of_this_repository_is_imported(tmp_path):
    found = []
    for method in ("opt_hr", "json", "tests", "./opt_hr", ["opt_hr"]):
        facts = {"settings": {"method": method, "backbone": "cnn6"}, "data": ""}
        (tmp_path / "run.json").write_text(json.dumps(facts))
        found.append(predict.describe(tmp_path / "model.keras")[1])
    assert found == ["opt_hr", None, None, None, None]


def test_the_model_and_the_folded_one_next_to_it(tmp_path, capsys):
    """Both say the same of a picture, and one line says that the folded one is there."""
    (tmp_path / "classes.txt").write_text("a\nb\nc\n")
    facts = {"settings": {"method": "opt_gs", "backbone": "cnn6"}, "data": "two\nlines"}
    (tmp_path / "run.json").write_text(json.dumps(facts))
    keras.utils.set_random_seed(0)
    for method in ("opt_gs", "baseline"):
        model = method_named(method).build_model(cnn6, num_classes=3, widths=(4, 4, 4, 4))
        model.save(tmp_path / "model.keras")
        fold_model(model).save(tmp_path / "folded.keras")
        files = [tmp_path / f"{name}.keras" for name in ("model", "folded")]
        answers = [answer(capsys, file, red_picture(tmp_path)) for file in files]
        assert answers[0][0].endswith(r"model.keras: opt_gs, cnn6, trained on two\nlines")
        note = f"note: {tmp_path / 'folded.keras'} is the same function as a plain model, "
        assert answers[0].pop(1) == note + "smaller and faster"
        assert answers[0][1:] == answers[1][1:]


def test_files_that_are_not_models_or_images_are_one_line(tmp_path):
    picture = tmp_path / "picture.png"
    picture.write_text("not a picture")
    model, pipe, other = tmp_path / "folded.keras", tmp_path / "pipe", tmp_path / "other"
    os.mkfifo(pipe)
    other.mkdir()
    (other / "folded.keras").touch()
    os.mkfifo(other / "classes.txt")
    (tmp_path / "folded_01.keras").touch()
    (tmp_path / "classes_01.txt").write_bytes("café\n".encode("latin-1"))
    for words, message in (
        ([picture, f"--model={model}"], "there is no file"),
        ([tmp_path / "none.png"], "there is no file"),
        ([picture, f"--model={pipe}"], "there is no file"),
        ([picture, f"--model={other / 'folded.keras'}"], "there is no file"),
        ([pipe, f"--model={tmp_path / 'folded_01.keras'}"], "there is no file"),
        ([picture, f"--model={tmp_path / 'folded_01.keras'}"], ".* classes_01.txt is not UTF-8"),
    ):
        with pytest.raises(UserError, match=message):
            predict.main(parse(predict.Prediction, [str(word) for word in words]))
    model.write_bytes(b"PK not a model")
    (tmp_path / "classes.txt").write_text("a\nb\n")
    with pytest.raises(UserError, match="is not a model of a run"):
        predict.main(parse(predict.Prediction, [str(picture), f"--model={model}"]))
