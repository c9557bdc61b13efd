"""Imports for the scripts: no notes about a missing GPU, no settings of the user's own."""

import contextlib
import glob
import os
import pathlib
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

# What TensorFlow 2.21 says, on a machine without a GPU, before any setting of its log takes effect
NOTES = (
    "WARNING: All log messages before absl::InitializeLog() is called are written to STDERR",
    "] oneDNN custom operations are on. ",
    "] Could not find cuda drivers on your machine, GPU will not be used.",
    "] failed call to cuInit: ",
)
_FILTER = """
import sys
for line in sys.stdin.buffer:
    if not any(note.encode() in line for note in sys.argv[1:]):
        sys.stderr.buffer.write(line)
        sys.stderr.flush()
"""


# In place of what the user has set for other programs: no keras.json, no matplotlibrc
_SETTINGS = {
    "KERAS_BACKEND": "tensorflow",
    "KERAS_HOME": os.devnull,
    "MATPLOTLIBRC": os.devnull,
    "MPLBACKEND": "agg",
}


@contextlib.contextmanager
def _without_settings() -> Iterator[None]:
    """Keeps the user's settings of Keras and Matplotlib from what the block imports."""
    before = {name: os.environ.get(name) for name in _SETTINGS}
    os.environ.update(_SETTINGS)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


@contextlib.contextmanager
def default_style() -> Iterator[None]:
    """Draws what the block draws in Matplotlib's own style, whatever a matplotlibrc says."""
    with _without_settings():
        import matplotlib
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        yield


def import_tensorflow() -> Any:
    """Imports and returns `tensorflow`; the scripts call it before anything else imports it.

    It imports `keras` too, with none of the user's own settings.

    TensorFlow's notes are not shown, and its warnings and errors are. The user's own
    TF_CPP_MIN_LOG_LEVEL is kept, and 0 shows all. This is for the scripts alone: in an application
    the library changes no logging.
    """
    shows_all = os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "1") == "0"
    quiet = not shows_all and "tensorflow" not in sys.modules and not has_nvidia_gpu()
    with _without_notes() if quiet else contextlib.nullcontext(), _without_settings():
        import tensorflow as tf

        if quiet:
            tf.config.list_physical_devices()  # here it looks for a GPU
        import keras  # noqa: F401
    return tf


def has_nvidia_gpu(root: str = "/") -> bool:
    """Returns whether the machine has an NVIDIA GPU, with a driver or without one.

    Args:
        root: the folder that holds dev, proc and sys.
    """
    # dxg: under WSL; nvhost: Jetson
    signs = ("dev/nvidia*", "dev/nvhost*", "dev/dxg", "proc/driver/nvidia")
    vendors = pathlib.Path(root).glob("sys/bus/pci/devices/*/vendor")
    return any(glob.glob(root + sign) for sign in signs) or any(
        vendor.read_text("utf-8").strip() == "0x10de" for vendor in vendors
    )


@contextlib.contextmanager
def _without_notes() -> Iterator[None]:
    """Leaves out lines with one of `NOTES` of what the block writes to stderr, C++ code included.

    Another process reads the lines, so that the last words of a crash are not lost.
    """
    command = [sys.executable, "-I", "-S", "-c", _FILTER, *NOTES]
    sys.stderr.flush()
    read, write = os.pipe()
    # a session of its own: Ctrl-C is not for it
    with subprocess.Popen(command, stdin=read, start_new_session=True):
        before = os.dup(2)
        os.dup2(write, 2)
        os.close(write)
        os.close(read)
        try:
            yield
        finally:
            sys.stderr.flush()
            os.dup2(before, 2)
            os.close(before)
