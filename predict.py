"""Classifies images with a trained network, and prints the five most likely classes of each.

    python predict.py image.png
    python predict.py --model=sopt_gs/log/folded.keras cat.png dog.jpg

It loads folded.keras or model.keras of a run, and classes.txt and run.json in the same folder; of
an earlier run, folded_00.keras and so on. Images are resized to the model's size, as in training.
"""

import dataclasses
import importlib
import json
import os
import pathlib
import re
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))

from common.errors import UserError
from common.training.command_line import Options, run_program, setting
from common.training.methods import known
from common.training.settings import ROOT
from common.training.startup import import_tensorflow
from common.training.texts import read_text, shown


@dataclasses.dataclass(frozen=True)
class Prediction(Options):
    images: tuple[pathlib.Path, ...] = setting((), "the files with the images", positional=True)
    model: pathlib.Path = setting(ROOT / "opt_gs/log/folded.keras", "a run's model")

    def check(self) -> None:
        if not self.images:
            raise UserError("no image is named")
        for path in (self.model, of_run(self.model, "classes.txt"), *self.images):
            if not os.path.isfile(path):  # Path.is_file raises for a name that is too long
                raise UserError(f"there is no file {path}")


def of_run(model: pathlib.Path, name: str) -> pathlib.Path:
    """Returns the file ``name`` of the model's run: with the number in the model's name, if any."""
    number = re.search(r"(_\d+)?$", model.stem)[0]  # type: ignore[index]
    stem, _, suffix = name.partition(".")
    return model.parent / f"{stem}{number}.{suffix}"


def describe(model: pathlib.Path) -> tuple[str, str | None]:
    """Returns a line about the model's run, and its method; None if run.json does not name one."""
    path = of_run(model, "run.json")
    try:
        run = json.loads(read_text(path))
        method, backbone = run["settings"]["method"], run["settings"]["backbone"]
        text = shown(f"{method}, {backbone}, trained on {run['data']}")
        return text, method if method in list(known()) else None
    except (ValueError, LookupError, TypeError, RecursionError):
        return f"of an unknown run, since {path.name} next to it is missing or damaged", None


def main(options: Prediction) -> None:
    classes = of_run(options.model, "classes.txt")
    try:
        names = read_text(classes).splitlines()
    except ValueError as error:
        raise UserError(f"{classes.parent}: {error}") from error
    # imported here because TensorFlow takes seconds, and a wrong name should fail at once
    tf = import_tensorflow()
    import keras

    import common.layers  # noqa: F401 (model.keras is made of them)
    from common.datasets import images

    text, method = describe(options.model)
    if method:
        importlib.import_module(f"{method}.architecture")  # registers the method's map
    try:
        model = keras.saving.load_model(options.model)
    except Exception as error:  # a file that is not a model can raise anything
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise UserError(f"{options.model} is not a model of a run: {reason}") from error
    size = model.input_shape[1] if len(model.input_shape) == 4 else None
    shapes = (None, size, size, 3), (None, len(names))
    if not size or (model.input_shape, model.output_shape) != shapes:
        found = f"{model.input_shape} to {model.output_shape}"
        raise UserError(f"{options.model} maps {found}, not images to {len(names)} classes")
    print(f"model: {shown(options.model)}: {text}")
    folded = of_run(options.model, "folded.keras")
    if re.fullmatch(r"model(_\d+)?\.keras", options.model.name) and folded.is_file():
        print(f"note: {shown(folded)} is the same function as a plain model, smaller and faster")
    for path in options.images:
        try:
            image = images.decode(images.read(path), size)
        except ValueError as error:
            raise UserError(f"{path} cannot be read as an image: {error}") from error
        logits = model(image[tf.newaxis], training=False)[0]
        probabilities = tf.nn.softmax(tf.cast(logits, tf.float32))
        print(f"{shown(path)}:")
        likeliest = tf.math.top_k(probabilities, min(5, len(names)))
        for probability, index in zip(*likeliest, strict=True):
            print(f"  {100 * float(probability):5.1f} %  {shown(names[int(index)])}")


if __name__ == "__main__":
    run_program(Prediction, main, "predict.py")
