"""Classifies images with a trained network, and prints the five most likely classes of each.

    python predict.py image.png
    python predict.py --model=sopt_gs/log/folded.keras cat.png dog.jpg

It loads folded.keras or model.keras of a run, and classes.txt in the same folder; of an earlier
run, folded_00.keras and classes_00.txt. It first says what run.json there says of the model.
Images of any size are resized to what the model takes, as in training.
"""

import argparse
import importlib
import json
import os
import pathlib
import re
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))

from common.training import folders
from common.training.startup import import_tensorflow
from common.training.texts import read_text, shown


def of_run(model: pathlib.Path, name: str) -> pathlib.Path:
    """Returns the file ``name`` of the model's run: with the number in the model's name, if any."""
    number = re.search(r"(_\d+)?$", model.stem)[0]  # type: ignore[index]
    stem, _, suffix = name.partition(".")
    return model.parent / f"{stem}{number}.{suffix}"


def run_of(model: pathlib.Path) -> dict[str, str]:
    """Returns method, backbone and data of the model's run; nothing if run.json does not say."""
    try:
        run = json.loads(read_text(of_run(model, "run.json")))
        settings = run["settings"]
        found = {name: settings[name] for name in ("method", "backbone")} | {"data": run["data"]}
    except (ValueError, LookupError, TypeError, RecursionError):
        return {}
    return {name: shown(value) for name, value in found.items()}


def description(model: pathlib.Path) -> str:
    """Returns one line: the model's method, its network, and the data that it was trained on."""
    if run := run_of(model):
        return shown(f"{run['method']}, {run['backbone']}, trained on {run['data']}")
    name = of_run(model, "run.json").name
    return f"of an unknown run, since {name} next to it is missing or damaged"


def method_of(model: pathlib.Path) -> str | None:
    """Returns the method that run.json names, if it is one of this repository's folders."""
    method = run_of(model).get("method")
    return method if method in folders.known() else None


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    files = "PNG, JPEG or BMP files"
    parser.add_argument("images", metavar="IMAGE", nargs="+", type=pathlib.Path, help=files)
    usual = pathlib.Path(__file__).parent / "opt_gs/log/folded.keras"
    parser.add_argument("--model", type=pathlib.Path, default=usual)
    parser.error = lambda message: parser.exit(2, shown(f"{parser.prog}: {message}") + "\n")
    args = parser.parse_args()
    classes = of_run(args.model, "classes.txt")
    for path in (args.model, classes, *args.images):
        if not os.path.isfile(path):  # Path.is_file raises for a name that is too long
            parser.error(f"there is no file {path}")
    try:
        names = read_text(classes).splitlines()
    except ValueError as error:
        parser.error(f"{classes.parent}: {error}")
    # imported here because TensorFlow takes seconds, and a wrong name should fail at once
    tf = import_tensorflow()
    import keras

    import common.layers  # noqa: F401 (model.keras is made of them)
    from common.datasets import images

    if method := method_of(args.model):
        importlib.import_module(f"{method}.architecture")  # registers the method's own map
    try:
        model = keras.saving.load_model(args.model)
    except Exception as error:  # a file that is not a model can raise anything
        reason = (str(error) or type(error).__name__).splitlines()[0]
        parser.error(f"{args.model} is not a model of a run: {reason}")
    size = model.input_shape[1] if len(model.input_shape) == 4 else None
    shapes = (None, size, size, 3), (None, len(names))
    if not size or (model.input_shape, model.output_shape) != shapes:
        found = f"{model.input_shape} to {model.output_shape}"
        parser.error(f"{args.model} maps {found}, not images to {len(names)} classes")
    print(f"model: {shown(args.model)}: {description(args.model)}")
    folded = of_run(args.model, "folded.keras")
    if re.fullmatch(r"model(_\d+)?\.keras", args.model.name) and folded.is_file():
        print(f"note: {shown(folded)} is the same function as a plain model, smaller and faster")
    for path in args.images:
        try:
            image = images.decode(images.read(path), size)
        except ValueError as error:
            parser.error(f"{path} cannot be read as an image: {error}")
        logits = model(image[tf.newaxis], training=False)[0]
        probabilities = tf.nn.softmax(tf.cast(logits, tf.float32))
        print(f"{shown(path)}:")
        likeliest = tf.math.top_k(probabilities, min(5, len(names)))
        for probability, index in zip(*likeliest, strict=True):
            print(f"  {100 * float(probability):5.1f} %  {shown(names[int(index)])}")


if __name__ == "__main__":
    main()
