"""Imports for the programs: no notes about a missing GPU, and no settings of other programs."""

import contextlib
import glob
import os
import re
import tempfile
from typing import Any

CORES = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
# what TensorFlow 2.21 says without a GPU, before any setting of its log takes effect
NOTES = rb"WARNING: All log messages before absl|\] oneDNN custom operations are on"
NOTES += rb"|\] Could not find cuda drivers|\] failed call to cuInit"
os.environ |= {"KERAS_BACKEND": "tensorflow", "MPLBACKEND": "agg", "MATPLOTLIBRC": os.devnull}
# by default TensorFlow uses oneDNN on new CPUs alone; on others a step takes half the time too
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")


def import_tensorflow() -> Any:
    """Imports `tensorflow`, which it returns, and `keras`, before anything else imports them.

    On a machine without a GPU `NOTES` are not shown, unless TF_CPP_MIN_LOG_LEVEL is 0.
    """
    shows_all = os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "1") == "0"
    shows_all = shows_all or any(map(glob.glob, ("/dev/nvidia*", "/dev/nvhost*", "/dev/dxg")))
    home = os.environ.get("KERAS_HOME", "")
    os.environ["KERAS_HOME"] = os.devnull  # no keras.json is read or written
    with contextlib.nullcontext() if shows_all else _without_notes():
        import keras  # noqa: F401
        import tensorflow as tf

        tf.config.list_physical_devices()  # it looks for a GPU now, and says what it found
    os.environ["KERAS_HOME"] = home
    return tf


@contextlib.contextmanager
def _without_notes():
    """Shows what the block writes to stderr after it, C++ code included, without `NOTES`."""
    before = os.dup(2)
    with tempfile.TemporaryFile() as said:
        os.dup2(said.fileno(), 2)
        try:
            yield
        finally:
            os.dup2(before, 2)
            os.close(before)
            said.seek(0)
            os.write(2, b"".join(line for line in said if not re.search(NOTES, line)))
