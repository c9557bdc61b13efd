"""TFDS's copies of CIFAR, and their download."""

import contextlib
import http.client
import json
import pathlib
import re
import threading
import urllib.request

import numpy as np

from ..errors import UserError
from .cifar import Cifar
from .dataset import Dataset

_SITE = "https://www.cs.toronto.edu/~kriz/"


_FEATURES = frozenset(
    f"tensorflow_datasets.core.features.{name}"
    for name in (
        "features_dict.FeaturesDict",
        "image_feature.Image",
        "class_label_feature.ClassLabel",
        "text_feature.Text",
        "scalar.Scalar",
        "tensor_feature.Tensor",
    )
)


def find_copy(cifar: Cifar, data_dir: pathlib.Path) -> pathlib.Path | None:
    """Returns the folder of the newest copy in ``data_dir``, or None."""
    versions = sorted((data_dir / cifar.tfds_name).glob("*/dataset_info.json"))
    return versions[-1].parent if versions else None


def _check_features(text: str) -> None:
    """Raises ValueError where TFDS would import a module that features.json names.

    TFDS imports the module of every class that the file names, and so runs its code. The name of
    such a class has a dot. In a CIFAR copy's file only the names of TFDS's classes have one.
    """
    plain = json.dumps(json.loads(text))  # one form of escapes: a dot can be written as \u002e
    for word in re.findall(r'"((?:[^"\\]|\\.)*)"', plain):
        if not re.fullmatch(r"[\w ]*|\{\}", word) and word not in _FEATURES:
            raise ValueError(f"features.json asks for {word[:100]!r}, which no copy of CIFAR needs")


def read_copy(cifar: Cifar, folder: pathlib.Path) -> Dataset:
    """Returns the data set from TFDS's copy in ``folder``; no code of the copy is executed.

    Raises:
        UserError: if the copy is damaged, or names code that TFDS would run.
    """
    import tensorflow_datasets as tfds

    try:
        _check_features((folder / "features.json").read_text("utf-8"))
        builder = tfds.builder_from_directory(folder)
        parts = []
        # in the order in which they are stored, so that two runs see the same
        for part in builder.as_dataset(split=["train", "test"], batch_size=-1):
            parts += [part["image"].numpy(), part["label"].numpy().astype(np.int32)]
        names = tuple(builder.info.features["label"].names)
    except Exception as error:  # TFDS and its readers raise many kinds for a damaged copy
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise UserError(f"{folder} cannot be read as TFDS's {cifar.tfds_name}: {reason}") from error
    images, labels, test_images, test_labels = parts
    return Dataset(cifar.title, str(folder), images, labels, test_images, test_labels, names)


def is_reachable(url: str, seconds: float) -> bool:
    """Returns whether ``url`` answers within so many seconds.

    It uses a thread because Python's time limits do not hold for the look-up of a host's name.
    """
    answers = []

    def ask() -> None:
        with contextlib.suppress(OSError, ValueError, http.client.HTTPException):
            request = urllib.request.Request(url, method="HEAD")
            urllib.request.urlopen(request, timeout=seconds).close()  # raises for 400 and above
            answers.append(url)

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(seconds)
    return bool(answers)


def download(cifar: Cifar, data_dir: pathlib.Path) -> pathlib.Path:
    """Downloads the data set with TFDS, with its progress bar, and returns the folder of the copy.

    Raises:
        UserError: if the site does not answer, which is checked first since TFDS would retry for
            minutes; or if the download fails.
    """
    binary = _SITE + cifar.archive.replace("python", "binary")  # what TFDS downloads
    if not is_reachable(binary, seconds=8):
        raise UserError(
            f"there is no {cifar.title} in {data_dir}, and {_SITE} does not answer. Put "
            f"{cifar.archive} or its folder {cifar.folder}/ there, point --data_dir at a folder "
            "that has it or a TFDS copy of it, or try --dataset=digits, which needs no download"
        )
    import tensorflow_datasets as tfds

    print(f"downloading {cifar.title} to {data_dir}", flush=True)
    try:
        builder = tfds.builder(cifar.tfds_name, data_dir=data_dir)
        builder.download_and_prepare()
    except Exception as error:  # network, disk and the site's files fail in many ways
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise UserError(f"the download of {cifar.title} to {data_dir} failed: {reason}") from error
    return pathlib.Path(builder.data_dir)
