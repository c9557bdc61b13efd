"""The flags that every method's train.py has, and a run's settings."""

import dataclasses
import functools
import importlib
import math
import pathlib
import sys
from typing import Any

from absl import app, flags, logging

from .. import backbones
from ..errors import UserError
from . import folders
from .folders import ROOT
from .settings import PRECISIONS, Settings
from .startup import import_tensorflow

FLAGS = flags.FLAGS
# with absl's INFO, TensorFlow prints a line for every exchange between devices
FLAGS.set_default("verbosity", logging.WARNING)

flags.DEFINE_enum(
    "dataset",
    "cifar100",
    ["cifar100", "cifar10", "digits", "folder"],
    "what to train on; digits needs no download; folder: your own images, in --data_dir",
)
flags.DEFINE_string("data_dir", str(ROOT / "data"), "where the data set is, or is downloaded to")
BACKBONES = backbones.known()
flags.DEFINE_enum("backbone", "cnn6", list(BACKBONES), "the network")
flags.DEFINE_list(
    "widths",
    None,
    "neurons per layer of each of the three stages, and of fc6 in a cnn "
    "(default: 64,64,64,64; for a resnet 16,32,64)",
)
flags.DEFINE_integer(
    "image_size",
    32,
    "height and width to which the images of --dataset=folder are resized",
    lower_bound=32,
    upper_bound=256,
)
flags.DEFINE_integer(
    "train_images",
    0,
    "number of training images, the same number of each class, and the same images in every run; "
    "0: all",
    lower_bound=0,
    upper_bound=2**31 - 1,
)
flags.DEFINE_integer(
    "iterations",
    folders.ITERATIONS,
    "training steps; the learning rate drops at the same fractions of any number of steps",
    lower_bound=1,
    upper_bound=2**31 - 1,
)
flags.DEFINE_integer(
    "batch_size",
    None,
    f"images per step (default: {folders.BATCH_SIZE}, or the most that fit a smaller training set)",
    lower_bound=1,
)
flags.DEFINE_float("base_lr", 0.1, "the first learning rate")
flags.DEFINE_integer(
    "warmup_iterations",
    0,
    "number W of iterations over which all learning rates, also that of the rotations, grow "
    "linearly from rate/W to the first rate. At rate 0.1 the first steps saturate a plain network, "
    "and it recovers only after about 2,000 steps. The log that the authors published with their "
    "MHE shows this (wy1iu/MHE on GitHub: a loss of 9.07 to 9.21 up to iteration 1,900). A run "
    "that is much shorter than 75,000 iterations needs a warm-up, or its baseline is worthless",
    lower_bound=0,
    upper_bound=2**31 - 1,
)
flags.DEFINE_integer(
    "seed",
    0,
    "seed of the initial weights, the shuffles and the augmentation",
    lower_bound=0,
    upper_bound=2**32 - 1,
)
flags.DEFINE_integer(
    "gpu_no",
    None,
    "number of the GPU; by default the first one, or the CPU if there is no GPU",
    lower_bound=0,
)
flags.DEFINE_enum(
    "jit",
    "auto",
    ["auto", "on", "off"],
    "compile with XLA: the whole step, or with --distribute the maps alone; auto: on a GPU only, "
    "since on a CPU it is slower",
)
flags.DEFINE_enum(
    "precision",
    PRECISIONS[0],
    PRECISIONS,
    "what layers compute in: Keras's dtype policies. Under the mixed ones convolutions and "
    "activations have 16 bits; the maps, all weights, the averages of batch normalization and the "
    "loss stay in float32. In mixed_float16 the loss is scaled",
)
# absl has a flag of this name for its own log files
flags.DEFINE_string(
    "log_dir",
    None,
    "where the results go (default: log/ in the method's folder)",
    allow_override=True,
)
flags.DEFINE_integer("log_every", 100, "iterations between two training lines", lower_bound=1)
flags.DEFINE_integer("eval_every", 500, "iterations between two tests", lower_bound=1)
flags.DEFINE_integer(
    "checkpoint_every",
    1000,
    "iterations between two checkpoints; the one with the best test accuracy is kept too",
    lower_bound=1,
)
flags.DEFINE_bool("resume", False, "continue from the newest sound checkpoint in --log_dir")
flags.DEFINE_integer(
    "steps_per_execution",
    None,
    "training steps per call of the device (default: 1, or 20 where XLA compiles them)",
    lower_bound=1,
    upper_bound=1000,
)
flags.DEFINE_enum(
    "distribute",
    "none",
    ["none", "mirrored", "multi_worker"],
    "train on one device, on all GPUs of this machine, or on those of several machines, which "
    "TF_CONFIG names",
)
flags.DEFINE_float("worker_timeout", 300, "seconds to wait for the other workers", lower_bound=1)
flags.DEFINE_bool(
    "deterministic",
    False,
    "let TensorFlow use deterministic operations only, also on a GPU; stop if there is none",
)
flags.register_validator("worker_timeout", math.isfinite, "must be a finite number")
flags.register_validator(
    "base_lr", lambda v: math.isfinite(v) and v >= 0, "must be a finite number, 0 or more"
)


def _are_widths(words: list[str] | None) -> bool:
    sound = (w.strip().isdecimal() and len(w) < 20 and 1 <= int(w) <= 65_536 for w in words or ())
    return words is None or (bool(words) and all(sound))


flags.register_validator(
    "widths", _are_widths, "must be positive whole numbers, such as 64,64,64,64"
)


def define_layer_flags() -> None:
    """Declares --learn_neurons and --block_size, as flags of the train.py that is running."""
    flags.DEFINE_bool(
        "learn_neurons",
        False,
        "also train the neurons F, which OPT keeps as drawn; their energy may then change",
        module_name=sys.argv[0],
    )
    flags.DEFINE_integer(
        "block_size",
        0,
        "number of rows of F that a rotation turns, 2 or more: R then consists of small rotations, "
        "which cost less in wide layers but do not mix rows of different blocks; 0: one R of all "
        "rows",
        lower_bound=0,
        upper_bound=2**31 - 1,
        module_name=sys.argv[0],
    )
    flags.register_validator("block_size", lambda v: v != 1, "must be 0, or 2 or more")


def define_rotation_stddev() -> None:
    """Declares --rotation_stddev, as a flag of the train.py that is running."""
    flags.DEFINE_float(
        "rotation_stddev",
        1.0,
        "standard deviation of the rotations R at the start. The maps of Gram-Schmidt, Householder "
        "and Loewdin do not depend on R's scale, so a step turns the neurons more if R is small. "
        "Weight decay shrinks R: at rate 0.1, by a factor of e in 2,000 iterations. A short run "
        "has no time for this: 0.2 is where 3,200 iterations would have brought R",
        module_name=sys.argv[0],
    )
    flags.register_validator(
        "rotation_stddev", lambda v: math.isfinite(v) and v > 0, "must be a finite number over 0"
    )


def _path(name: str) -> pathlib.Path:
    text = FLAGS[name].value
    try:
        text.encode()  # a name that is not UTF-8 can be neither printed nor passed to TensorFlow
        path = pathlib.Path(text).expanduser()
        path.exists()  # raises an OSError if the name is too long
        return path
    except UnicodeEncodeError as error:
        raise UserError(f"--{name} is not UTF-8: {text!r}") from error
    except (RuntimeError, OSError) as error:
        raise UserError(f"--{name}={text}: {getattr(error, 'strerror', None) or error}") from error


def _settings(folder: pathlib.Path) -> Settings:
    values = {
        field.name: FLAGS[field.name].value
        for field in dataclasses.fields(Settings)
        if field.name in FLAGS
    }
    network, ours = BACKBONES[FLAGS.backbone], FLAGS["widths"].using_default_value
    widths, count = tuple(map(int, FLAGS.widths or ())), len(network.widths)
    if widths and len(widths) != count and not ours:
        raise UserError(
            f"--widths: {FLAGS.backbone} takes {count} numbers, not {','.join(FLAGS.widths)}"
        )
    if network.widening and not ours and list(widths) != sorted(widths):
        raise UserError(
            f"--widths: no stage of {FLAGS.backbone} may be narrower than the one before"
        )
    # a method's own default is for the cnns only
    values["widths"] = widths if len(widths) == count else None
    values["data_dir"] = _path("data_dir")
    if FLAGS.dataset != "folder" and FLAGS.image_size != 32:
        raise UserError(f"--image_size is for --dataset=folder; {FLAGS.dataset} has 32x32 pixels")
    if FLAGS.dataset == "folder" and values["data_dir"] == ROOT / "data":
        raise UserError("--dataset=folder needs --data_dir, the folder with your images")
    values["log_dir"] = _path("log_dir") if FLAGS.log_dir else folder / "log"
    own = {flag.name: flag.value for flag in _own_flags()}
    return Settings(method=folder.name, own=own, **values)


def _own_flags() -> list[flags.Flag]:
    """Returns the flags of the train.py that is running."""
    return FLAGS.flags_by_module_dict().get(sys.argv[0], [])


def _parse(argv: list[str], folder: pathlib.Path) -> Settings:
    asked = {arg.lstrip("-") for arg in argv[1:] if arg.startswith("-")}
    if asked & {"help", "helpshort", "h", "?"}:
        print(_help())
        sys.exit(0)
    if "helpfull" in asked:
        print(FLAGS.get_help())
        sys.exit(0)
    try:
        if words := FLAGS(argv)[1:]:
            raise UserError(f"{words[0]!r} is not a flag; flags start with --")
        return _settings(folder)
    # ValueError: from absl's own flags, and from a flagfile that is not text
    except (flags.Error, ValueError) as error:
        raise UserError(str(error)) from error
    except RecursionError as error:  # from absl's search for flags of a similar name
        raise UserError("a flag's name is too long") from error


def _help() -> str:
    lines = [(sys.modules["__main__"].__doc__ or "").strip(), "", "Flags:"]
    for flag in FLAGS.flags_by_module_dict()[__name__] + _own_flags():
        default = "" if flag.default is None else f" (default: {flag.default_as_str[1:-1]})"
        lines += [f"  --{flag.name}", f"      {flag.help}{default}"]
    return "\n".join(lines) + "\n\nTry --helpfull for the flags of the libraries."


def run(script: str) -> None:
    """Parses the command line, trains the method and exits; every train.py ends with it.

    The flags of train.py itself are the options of METHOD in its folder's architecture.py.
    Exits with code 2 and one line on stderr if the user made a mistake, with 0 after ``--help``.

    Args:
        script: ``__file__`` of the train.py; its folder names the method and holds its facts.
    """
    if sys.platform == "win32":  # it lacks these file locks and signals
        print("Windows is not supported; use Linux, macOS or WSL", file=sys.stderr)
        sys.exit(2)
    folder = pathlib.Path(script).resolve().parent
    usual = {}
    for name, value in folders.facts(folder.name).defaults.items():
        usual[name] = FLAGS[name].default
        FLAGS.set_default(name, value)

    def train(settings: Settings) -> None:
        # imported here because TensorFlow takes seconds, and a wrong flag should fail at once
        import_tensorflow()
        from .loop import train

        architecture = importlib.import_module(f"{folder.name}.architecture")
        train(settings, architecture.METHOD.with_options(**settings.own))

    try:
        app.run(train, flags_parser=functools.partial(_parse, folder=folder))
    except UserError as error:
        first_line = " ".join(str(error).split())
        print(f"{folder.name}/{pathlib.Path(script).name}: {first_line}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("\ninterrupted", file=sys.stderr)
        sys.exit(130)
    finally:
        _forget(usual)


def _forget(defaults: dict[str, Any]) -> None:
    """Makes the flags what they were, so that a notebook can run another train.py."""
    for flag in list(_own_flags()):
        delattr(FLAGS, flag.name)
    FLAGS.unparse_flags()
    for name, value in defaults.items():
        FLAGS.set_default(name, value)
    for flag in FLAGS.flags_by_module_dict()[__name__]:
        flag.unparse()
