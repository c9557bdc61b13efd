"""Imports for the programs: no notes about a missing GPU, and no settings of other programs."""

import contextlib
import glob
import os
import sys
import tempfile
from collections.abc import Iterator
from typing import Any

# what TensorFlow 2.21 says without a GPU, before any setting of its log takes effect
NOTES = (
    b"WARNING: All log messages before absl::InitializeLog() is called are written to STDERR",
    b"] oneDNN custom operations are on. ",
    b"] Could not find cuda drivers on your machine, GPU will not be used.",
    b"] failed call to cuInit: ",
)
# in place of a user's keras.json, matplotlibrc and environment
_SETTINGS = {
    "KERAS_BACKEND": "tensorflow",
    "KERAS_HOME": os.devnull,
    "MATPLOTLIBRC": os.devnull,
    "MPLBACKEND": "agg",
}


@contextlib.contextmanager
def _default_settings() -> Iterator[None]:
    before = {name: os.environ.get(name) for name in _SETTINGS}
    os.environ.update(_SETTINGS)
    try:
        yield
    finally:
        for name, value in before.items():
            del os.environ[name]
            os.environ |= {} if value is None else {name: value}


@contextlib.contextmanager
def default_style() -> Iterator[None]:
    """Draws what the block draws in Matplotlib's default style, whatever a matplotlibrc says."""
    with _default_settings():
        import matplotlib
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        yield


def import_tensorflow() -> Any:
    """Imports `tensorflow` and `keras` without the user's settings, and returns the first.

    Programs call it before anything else imports them. On a machine without a GPU `NOTES` are not
    shown, unless TF_CPP_MIN_LOG_LEVEL is 0.
    """
    # by default TensorFlow uses oneDNN on new CPUs alone; on others a step takes half the time too
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
    shows_all = os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "1") == "0"
    has_gpu = any(map(glob.glob, ("/dev/nvidia*", "/dev/nvhost*", "/dev/dxg")))
    filtered = contextlib.nullcontext() if shows_all or has_gpu else _without_notes()
    with filtered, _default_settings():
        import keras  # noqa: F401
        import tensorflow as tf

        tf.config.list_physical_devices()  # it looks for a GPU now, and says what it found
    return tf


@contextlib.contextmanager
def _without_notes() -> Iterator[None]:
    """Shows what the block writes to stderr after it, C++ code included, without `NOTES`."""
    sys.stderr.flush()
    before = os.dup(2)
    with tempfile.TemporaryFile() as said:
        os.dup2(said.fileno(), 2)
        try:
            yield
        finally:
            sys.stderr.flush()
            os.dup2(before, 2)
            os.close(before)
            said.seek(0)
            for line in said:
                if not any(note in line for note in NOTES):
                    os.write(2, line)
