"""What a result depends on besides the run's settings."""

import importlib.metadata
import os
import platform
import subprocess

import keras
import numpy as np
import tensorflow as tf

from .folders import ROOT


def environment() -> dict:
    """Returns the versions of what is imported, the repository's git commit, and the device."""
    try:
        words = ["git", "-C", str(ROOT), "describe", "--always", "--dirty", "--abbrev=12"]
        commit = subprocess.run(words, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        commit = None  # no git, or no repository: a copy of the code has no commit
    gpus = tf.config.get_visible_devices("GPU")
    details = [
        tf.config.experimental.get_device_details(gpu).get("device_name", gpu.name) for gpu in gpus
    ]
    return {
        "versions": {
            "python": platform.python_version(),
            # from the modules: the packages tensorflow-cpu and tf-nightly have other names
            **{module.__name__: module.__version__ for module in (tf, keras, np)},
            "tensorflow-datasets": _installed_version("tensorflow-datasets"),
        },
        "git_commit": commit,
        "device": ", ".join(details) or f"CPU, {os.cpu_count()} cores, {platform.machine()}",
    }


def _installed_version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None
