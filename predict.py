"""Classifies images with a trained network, and prints the five most likely classes of each.

    python predict.py image.png
    python predict.py --model=sopt_gs/log/folded.keras cat.png dog.jpg

It loads the folded model of a run, which needs no code of OPT, and classes.txt in the same folder.
Images of any size are resized to 32x32.
"""

import argparse
import os
import pathlib

from common.training.startup import import_tensorflow


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "images",
        metavar="IMAGE",
        nargs="+",
        type=pathlib.Path,
        help="PNG, JPEG, GIF or BMP files",
    )
    parser.add_argument(
        "--model",
        type=pathlib.Path,
        default=pathlib.Path(__file__).parent / "opt_gs/log/folded.keras",
    )
    parser.error = lambda message: parser.exit(2, f"{parser.prog}: {' '.join(message.split())}\n")
    args = parser.parse_args()
    classes = args.model.parent / "classes.txt"
    for path in (args.model, classes, *args.images):
        if not os.path.isfile(path):  # Path.is_file raises for a name that is too long
            parser.error(f"there is no file {path}")
    # imported here because TensorFlow takes seconds, and a wrong name should fail at once
    tf = import_tensorflow()
    import keras

    try:
        model = keras.saving.load_model(args.model)
    except Exception as error:  # a file that is not a model can raise anything
        reason = (str(error) or type(error).__name__).splitlines()[0]
        parser.exit(2, f"{parser.prog}: {args.model} is not a folded model: {reason}\n")
    names = classes.read_text().splitlines()
    if model.input_shape != (None, 32, 32, 3) or model.output_shape != (None, len(names)):
        shapes = f"{model.input_shape} to {model.output_shape}"
        parser.exit(
            2,
            f"{parser.prog}: {args.model} maps {shapes}, "
            f"not 32x32 images to {len(names)} classes\n",
        )
    for path in args.images:
        try:
            image = tf.io.decode_image(path.read_bytes(), channels=3, expand_animations=False)
        except tf.errors.InvalidArgumentError:
            parser.exit(2, f"{parser.prog}: {path} is not an image\n")
        image = tf.image.resize(image, (32, 32), antialias=True)
        logits = model(image[tf.newaxis], training=False)[0]
        probabilities = tf.nn.softmax(tf.cast(logits, tf.float32))
        print(f"{path}:")
        for probability, index in zip(
            *tf.math.top_k(probabilities, min(5, len(names))), strict=True
        ):
            print(f"  {100 * float(probability):5.1f} %  {names[int(index)]}")


if __name__ == "__main__":
    main()
