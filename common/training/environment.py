"""Versions, commit, device and memory: a result depends on them besides the run's settings."""

import platform
import resource
import subprocess
import sys

import keras
import numpy as np
import tensorflow as tf

from .settings import ROOT
from .startup import CORES


def environment() -> dict:
    """Returns the versions of what is imported, the repository's git commit, and the device."""
    details, gpus = tf.config.experimental.get_device_details, tf.config.get_visible_devices("GPU")
    names = [details(gpu).get("device_name", "GPU") for gpu in gpus]
    cpu = f"CPU, {CORES} core{'s' * (CORES != 1)}, {platform.machine()}"
    # from the modules: the packages tensorflow-cpu and tf-nightly have other names
    versions = {module.__name__: module.__version__ for module in (tf, keras, np)}
    return {
        "versions": {"python": platform.python_version()} | versions,
        "git_commit": _commit(),
        "device": ", ".join(names) or cpu,
    }


def _commit() -> str | None:
    """Returns this repository's commit; None without git, and for a copy of the code."""
    # named, since git would look for a repository in the folders above, or take that of GIT_DIR
    repository = [f"--git-dir={ROOT / '.git'}", f"--work-tree={ROOT}"]
    words = ["git", *repository, "describe", "--always", "--dirty", "--abbrev=12"]
    try:
        return subprocess.run(words, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None


def peak_memory() -> float:
    """Returns the peak memory so far in GiB: of the GPU if there is one, else of the process."""
    if tf.config.get_visible_devices("GPU"):
        return tf.config.experimental.get_memory_info("GPU:0")["peak"] / 2**30
    used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return used / (2**30 if sys.platform == "darwin" else 2**20)  # macOS counts bytes, Linux KiB
