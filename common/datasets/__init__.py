"""Data sets as arrays, and the batches that a run draws from them."""

import os
import pathlib

from ..errors import UserError
from . import cifar, folder, tfds
from .batches import augment as augment
from .batches import draws as draws
from .cifar import CIFAR10, CIFAR100
from .dataset import Dataset
from .digits import load_digits_as_images


def load(name: str, data_dir: pathlib.Path, image_size: int = 32) -> Dataset:
    """Returns the data set ``name``: "cifar100", "cifar10", "digits" or "folder".

    CIFAR is looked for in ``data_dir``, then in Keras's and in TFDS's folder of downloads: in each
    as the official folder, the official archive and a TFDS copy. If there is none, TFDS downloads
    it to ``data_dir``. "folder" has the images in ``data_dir``, resized to ``image_size``.

    Raises:
        UserError: if it cannot be downloaded, or the files are not the data set.
    """
    if name == "digits":
        return load_digits_as_images()
    try:
        if name == "folder":
            return folder.read(data_dir, image_size)
        wanted = {"cifar100": CIFAR100, "cifar10": CIFAR10}[name]
        if data_dir.exists() and not data_dir.is_dir():
            raise UserError(f"--data_dir={data_dir} is not a folder")
        keras_home = os.path.expanduser(os.environ.get("KERAS_HOME") or "~/.keras")
        tfds_home = os.path.expanduser(os.environ.get("TFDS_DATA_DIR") or "~/tensorflow_datasets")
        for place in (data_dir, pathlib.Path(keras_home, "datasets"), pathlib.Path(tfds_home)):
            if data := cifar.read(wanted, place):
                return data
            if copy := tfds.find_copy(wanted, place):
                return tfds.read_copy(wanted, copy)
        return tfds.read_copy(wanted, tfds.download(wanted, data_dir))
    except OSError as error:
        path = error.filename or data_dir
        raise UserError(f"--data_dir: {path} cannot be read: {error.strerror}") from error
