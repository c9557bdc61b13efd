"""TFDS's copies of CIFAR, and their download."""

import http.client
import pathlib
import urllib.request

import numpy as np

from ..errors import UserError
from .cifar import Cifar
from .dataset import Dataset

SITE = "https://www.cs.toronto.edu/~kriz/"


def find_copy(cifar: Cifar, data_dir: pathlib.Path) -> pathlib.Path | None:
    """Returns the folder of the newest copy in ``data_dir``, or None."""
    versions = sorted((data_dir / cifar.tfds_name).glob("*/dataset_info.json"))
    return versions[-1].parent if versions else None


def read_copy(cifar: Cifar, folder: pathlib.Path) -> Dataset:
    """Returns the data set from TFDS's copy in ``folder``.

    Its features.json is not read: TFDS would import each module that it names, and run its code.

    Raises:
        UserError: if the copy is damaged, or of another version than the installed TFDS makes.
    """
    import tensorflow_datasets as tfds

    try:
        kind = tfds.builder_cls(cifar.tfds_name)
        builder = kind(data_dir=folder.parents[1], version=folder.name)
        arrays = []
        # in the order in which they are stored, so that two runs see the same
        for part in builder.as_dataset(split=["train", "test"], batch_size=-1):
            arrays += [part["image"].numpy(), part["label"].numpy().astype(np.int32)]
        names = tuple(builder.info.features["label"].names)
    except Exception as error:  # TFDS and its readers raise many kinds for a damaged copy
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise UserError(f"{folder} cannot be read as TFDS's {cifar.tfds_name}: {reason}") from error
    images, labels, test_images, test_labels = arrays
    return Dataset(cifar.title, str(folder), images, labels, test_images, test_labels, names)


def is_reachable(url: str, seconds: float) -> bool:
    """Returns whether ``url`` answers within so many seconds; finding its host may take longer."""
    try:
        request = urllib.request.Request(url, method="HEAD")
        urllib.request.urlopen(request, timeout=seconds).close()  # raises for 400 and above
        return True
    except (OSError, ValueError, http.client.HTTPException):  # ValueError: a bad proxy
        return False


def download(cifar: Cifar, data_dir: pathlib.Path) -> pathlib.Path:
    """Downloads the data set with TFDS, and returns the folder; a failure is a UserError."""
    binary = SITE + cifar.archive.replace("python", "binary")  # what TFDS downloads
    if not is_reachable(binary, seconds=8):  # without an answer TFDS would retry for minutes
        raise UserError(
            f"there is no {cifar.title} in {data_dir}, and {SITE} does not answer. Put "
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
