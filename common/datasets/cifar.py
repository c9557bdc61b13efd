"""CIFAR-100 and CIFAR-10, from the official folder or the official archive."""

import dataclasses
import hashlib
import os
import pathlib
import tarfile
from collections.abc import Callable
from typing import Any

import numpy as np

from ..errors import UserError
from . import images
from .dataset import Dataset
from .unpickling import unpickle


@dataclasses.dataclass(frozen=True)
class Cifar:
    """How the two CIFAR data sets differ, in the official Python archive and in TFDS's copy."""

    title: str
    tfds_name: str
    folder: str
    archive: str
    md5: str
    train_files: tuple[str, ...]
    test_file: str
    names_file: str
    label_key: str
    names_key: str
    classes: int


CIFAR100 = Cifar(
    title="CIFAR-100",
    tfds_name="cifar100",
    folder="cifar-100-python",
    archive="cifar-100-python.tar.gz",
    md5="eb9058c3a382ffc7106e4002c42a8d85",
    train_files=("train",),
    test_file="test",
    names_file="meta",
    label_key="fine_labels",
    names_key="fine_label_names",
    classes=100,
)
CIFAR10 = Cifar(
    title="CIFAR-10",
    tfds_name="cifar10",
    folder="cifar-10-batches-py",
    archive="cifar-10-python.tar.gz",
    md5="c58f30108f718f92721af3b95e74349a",
    train_files=tuple(f"data_batch_{i}" for i in range(1, 6)),
    test_file="test_batch",
    names_file="batches.meta",
    label_key="labels",
    names_key="label_names",
    classes=10,
)


def read(cifar: Cifar, place: pathlib.Path) -> Dataset | None:
    """Returns the data set from the official folder or archive in ``place``; None without them.

    The folder may be ``place`` itself, or lie in another one of its name or of `keras.datasets`.

    Raises:
        UserError: if the files are not of the data set, or the archive is not the official one.
        OSError: if they cannot be read.
    """
    # Keras unpacks into NAME-target/NAME or NAME_extracted/NAME
    nested = sorted(place.glob(f"{cifar.folder}*/{cifar.folder}"))
    folders = (place / cifar.folder, *nested, place)
    folder = next((f for f in folders if os.path.isfile(f / cifar.train_files[0])), None)
    if folder:
        return _dataset(cifar, folder, lambda name: images.read(folder / name))
    archive = place / cifar.archive
    if not os.path.isfile(archive):
        return None
    with archive.open("rb") as file:
        found = hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
    if found != cifar.md5:
        sums = f"has the MD5 sum {found}, the official file {cifar.md5}"
        raise UserError(f"{archive} {sums}: download or unpack it again")
    with tarfile.open(archive) as tar:

        def member(name: str) -> bytes:
            return tar.extractfile(f"{cifar.folder}/{name}").read()  # type: ignore[union-attr]

        return _dataset(cifar, archive, member)


def _dataset(cifar: Cifar, source: pathlib.Path, content: Callable[[str], bytes]) -> Dataset:
    def part(name: str, convert: Callable, *keys: str) -> Any:
        try:
            return convert(cifar, *unpickle(content(name), *keys))
        except ValueError as error:
            raise UserError(f"{source}: {name}: {error}") from error

    keys = "data", cifar.label_key
    train = [part(name, _images, *keys) for name in cifar.train_files]
    pixels, labels = train[0] if len(train) == 1 else map(np.concatenate, zip(*train, strict=True))
    test_pixels, test_labels = part(cifar.test_file, _images, *keys)
    names = part(cifar.names_file, _names, cifar.names_key)
    return Dataset(cifar.title, str(source), pixels, labels, test_pixels, test_labels, names)


def _images(cifar: Cifar, pixels: object, labels: object) -> tuple[np.ndarray, np.ndarray]:
    if not isinstance(pixels, np.ndarray) or not isinstance(labels, list):
        raise ValueError(f"it holds no data and {cifar.label_key}")
    numbers = all(type(label) is int and 0 <= label < cifar.classes for label in labels)
    if not labels or not numbers or pixels.shape != (len(labels), 3 * 32**2):
        raise ValueError(f"its labels do not fit its data or the {cifar.classes} classes")
    planes = pixels.reshape(-1, 3, 32, 32)  # one of each colour
    return np.ascontiguousarray(planes.transpose(0, 2, 3, 1)), np.array(labels, np.int32)


def _names(cifar: Cifar, names: object) -> tuple[str, ...]:
    found = names if isinstance(names, list) else []
    texts = tuple(n.decode("latin1") if isinstance(n, bytes) else n for n in found)
    # classes.txt has one name per line, in UTF-8
    printable = all(isinstance(name, str) and name and name.isprintable() for name in texts)
    if len(texts) != cifar.classes or not printable:
        raise ValueError(f"it does not name {cifar.classes} classes by printable texts")
    return texts
