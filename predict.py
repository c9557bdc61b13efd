"""Classifies images with a trained network, and prints the five most likely classes of each.

    python predict.py image.png
    python predict.py --model=sopt_gs/log/folded.keras cat.png dog.jpg

It loads folded.keras or model.keras of a run (folded_00.keras of an earlier one), and classes.txt
and run.json in the same folder. Images are resized to the model's size, as in training.
"""

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


class Prediction(Options):
    images: tuple[pathlib.Path, ...] = setting((), "the files with the images", positional=True)
    model: pathlib.Path = setting(ROOT / "opt_gs/log/folded.keras", "a run's model")

    def check(self) -> None:
        if not self.images:
            raise UserError("no image is named")
        for path in (self.model, self.file("classes.txt"), *self.images):
            if not os.path.isfile(path):  # Path.is_file raises for a name that is too long
                raise UserError(f"there is no file {path}")

    def file(self, name: str) -> pathlib.Path:
        """Returns the run's file ``name``, with the number in the model's name, if any."""
        number = re.search(r"(_\d+)?$", self.model.stem)[0]  # type: ignore[index]
        return self.model.parent / name.replace(".", f"{number}.")


def describe(path: pathlib.Path) -> tuple[str, str | None]:
    """Returns a line about the run with this run.json, and its method; None if that is unknown."""
    try:
        run = json.loads(read_text(path))
        method, backbone = run["settings"]["method"], run["settings"]["backbone"]
        about = shown(f"{method}, {backbone}, trained on {run['data']}")
        return about, method if method in list(known()) else None
    except (ValueError, LookupError, TypeError, RecursionError):
        return f"of an unknown run, since {path.name} next to it is missing or damaged", None


def main(options: Prediction) -> None:
    try:
        names = read_text(options.file("classes.txt")).splitlines()
    except ValueError as error:
        raise UserError(f"{options.model.parent}: {error}") from error
    # imported here because TensorFlow takes seconds, and a wrong name should fail at once
    tf = import_tensorflow()
    import keras

    import common.layers  # noqa: F401 (model.keras is made of them)
    from common.datasets import images

    about, method = describe(options.file("run.json"))
    if method:
        importlib.import_module(f"{method}.architecture")  # registers the method's map
    try:
        model = keras.saving.load_model(options.model)
        inputs, outputs = model.input_shape, model.output_shape
    except Exception as error:  # a file that is not a run's model can raise anything
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise UserError(f"{options.model} is not a model of a run: {reason}") from error
    size = inputs[1] if isinstance(inputs, tuple) and len(inputs) == 4 else None
    if not size or (inputs, outputs) != ((None, size, size, 3), (None, len(names))):
        found = f"{inputs} to {outputs}"
        raise UserError(f"{options.model} maps {found}, not images to {len(names)} classes")
    print(f"model: {shown(options.model)}: {about}")
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
