"""Classifies pictures with a trained network, and prints the five classes that it finds likeliest.

    python predict.py picture.png
    python predict.py --model=sopt_gs/log/folded.keras cat.png dog.jpg

Takes the folded model of a run, which needs none of OPT's code, and classes.txt beside it. Pictures of any size are
brought to 32x32.
"""

import argparse
import os
import pathlib

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "pictures", nargs="+", type=pathlib.Path, help="PNG, JPEG, GIF or BMP files"
    )
    parser.add_argument(
        "--model",
        type=pathlib.Path,
        default=pathlib.Path(__file__).parent / "opt_gs/log/folded.keras",
    )
    parser.error = lambda message: parser.exit(2, f"{parser.prog}: {' '.join(message.split())}\n")
    args = parser.parse_args()
    classes = args.model.parent / "classes.txt"
    for path in (args.model, classes, *args.pictures):
        if not os.path.isfile(path):  # Path.is_file raises for a name that is too long
            parser.error(f"there is no file {path}")
    # here, since TensorFlow takes seconds to import and a wrong name should be answered at once
    import keras
    import tensorflow as tf

    try:
        model = keras.saving.load_model(args.model)
    except Exception as error:  # what a file that is no model can raise is not for Keras to say
        reason = (str(error) or type(error).__name__).splitlines()[0]
        parser.exit(2, f"{parser.prog}: {args.model} is not a folded model: {reason}\n")
    names = classes.read_text().splitlines()
    if model.input_shape != (None, 32, 32, 3) or model.output_shape != (None, len(names)):
        shapes = f"{model.input_shape} to {model.output_shape}"
        parser.exit(
            2,
            f"{parser.prog}: {args.model} takes {shapes}, not 32x32 pictures to {len(names)} classes\n",
        )
    for path in args.pictures:
        try:
            picture = tf.io.decode_image(path.read_bytes(), channels=3, expand_animations=False)
        except tf.errors.InvalidArgumentError:
            parser.exit(2, f"{parser.prog}: {path} is not a picture\n")
        picture = tf.image.resize(picture, (32, 32), antialias=True)
        probabilities = tf.nn.softmax(model(picture[tf.newaxis], training=False)[0])
        print(f"{path}:")
        for probability, index in zip(
            *tf.math.top_k(probabilities, min(5, len(names))), strict=True
        ):
            print(f"  {100 * float(probability):5.1f} %  {names[int(index)]}")


if __name__ == "__main__":
    main()
