"""CIFAR-100 and CIFAR-10, from the official folder or the official archive."""

import dataclasses
import gzip
import hashlib
import io
import math
import os
import pathlib
import sys
import tarfile
from collections.abc import Callable

import numpy as np

from ..errors import UserError
from .dataset import IMAGE, Dataset
from .unpickling import text, unpickle

LARGEST_FILE = 256 * 2**20  # bytes; CIFAR-100's training file has 155 million


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
    """Returns the data set from the official folder or the official archive in ``place``.

    The folder may be ``place`` itself, be unpacked into another one of its name, or lie where
    `keras.datasets` has put it. The archive may be unpacked to a ``.tar``.

    Returns:
        The data set, or None if there is neither of them.

    Raises:
        UserError: if what is there is not the data set.
    """
    wanted = (*cifar.train_files, cifar.test_file, cifar.names_file)
    # what else Keras has named it: NAME-target/NAME, and NAME_extracted/NAME
    nested = sorted(place.glob(f"{cifar.folder}*/{cifar.folder}"))
    folders = [
        folder
        for folder in (place / cifar.folder, *nested, place)
        if os.path.isfile(folder / wanted[0])
    ]
    name = cifar.archive.removesuffix(".tar.gz")
    archives = [place / f"{name}{suffix}" for suffix in (".tar.gz", ".tgz", ".tar")]
    archives = [archive for archive in archives if os.path.isfile(archive)]
    if not folders and not archives and os.path.isdir(place / cifar.folder):
        folders = [place / cifar.folder]  # for the error that names the missing file
    if folders:
        return _dataset(cifar, str(folders[0]), _read_folder(folders[0], wanted))
    if archives:
        archive = archives[0]
        data = _dataset(cifar, str(archive), _read_archive(archive, cifar.folder, wanted))
        if archive.suffix != ".tar":
            _warn_of_other_sum(archive, cifar.md5)
        return data
    return None


def _dataset(cifar: Cifar, source: str, contents: dict[str, bytes]) -> Dataset:
    def part(name: str, convert: Callable, *keys: str):
        try:
            # pop frees each file's bytes as soon as they are read: they are as large as the images
            return convert(cifar, *unpickle(contents.pop(name), *keys))
        except ValueError as error:
            raise UserError(f"{source}: {name}: {error}") from error

    keys = "data", cifar.label_key
    train = [part(name, _images, *keys) for name in cifar.train_files]
    images, labels = train[0] if len(train) == 1 else map(np.concatenate, zip(*train, strict=True))
    test_images, test_labels = part(cifar.test_file, _images, *keys)
    names = part(cifar.names_file, _names, cifar.names_key)
    return Dataset(cifar.title, source, images, labels, test_images, test_labels, names)


def _images(cifar: Cifar, pixels: object, labels: object) -> tuple[np.ndarray, np.ndarray]:
    labels = labels.tolist() if isinstance(labels, np.ndarray) else labels
    if not isinstance(pixels, np.ndarray) or not isinstance(labels, list):
        raise ValueError(f"it holds no data and {cifar.label_key}")
    if pixels.dtype != np.uint8:
        raise ValueError("its data is not an array of bytes")
    if pixels.ndim != 2 or pixels.shape[1] != math.prod(IMAGE) or not len(pixels):
        raise ValueError(f"its data has the shape {list(pixels.shape)}, not [images, 3072]")
    if len(labels) != len(pixels):
        raise ValueError(f"it has {len(pixels)} images and {len(labels)} labels")
    if not all(type(label) is int and 0 <= label < cifar.classes for label in labels):
        raise ValueError(f"a label is not a whole number from 0 to {cifar.classes - 1}")
    # stored as three colour planes, [3, 32, 32]
    images = np.ascontiguousarray(pixels.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1))
    return images, np.array(labels, np.int32)


def _names(cifar: Cifar, names: object) -> tuple[str, ...]:
    if (
        not isinstance(names, list)
        or len(names) != cifar.classes
        or not all(isinstance(n, str | bytes) for n in names)
    ):
        raise ValueError(f"it does not name {cifar.classes} classes")
    names = tuple(map(text, names))
    # classes.txt has one name per line, in UTF-8
    if not all(name and name.isprintable() for name in names):
        raise ValueError("the name of a class is empty or not printable")
    return names


def _read_folder(folder: pathlib.Path, wanted: tuple[str, ...]) -> dict[str, bytes]:
    contents = {}
    for name in wanted:
        path = folder / name
        if not path.is_file():
            raise UserError(f"{folder} holds no file {name}")
        if path.stat().st_size > LARGEST_FILE:
            raise UserError(f"{path} is too large to be a CIFAR file")
        try:
            contents[name] = path.read_bytes()
        except OSError as error:
            raise UserError(f"{path} cannot be read: {error.strerror}") from error
    return contents


def _read_archive(archive: pathlib.Path, folder: str, wanted: tuple[str, ...]) -> dict[str, bytes]:
    """Returns the contents of the wanted members by file name.

    They are read into memory. No member is extracted, so the archive cannot write to the disk.
    """
    contents, largest = {}, 2 * LARGEST_FILE
    try:
        with archive.open("rb") as packed:
            is_packed = packed.read(2) == b"\x1f\x8b"
            packed.seek(0)
            with gzip.open(packed) if is_packed else packed as file:
                unpacked = file.read(largest + 1)
        if len(unpacked) > largest:
            raise UserError(f"{archive} unpacks to more than a CIFAR archive can")
        with tarfile.open(fileobj=io.BytesIO(unpacked), mode="r:") as tar:
            for count, member in enumerate(tar):
                # the gaps of a sparse member are read as zeros, however large it claims to be
                if count > 1000 or member.issparse():
                    raise UserError(f"{archive} is not built like a CIFAR archive")
                path = pathlib.PurePosixPath(member.name)
                if path.is_absolute() or ".." in path.parts:
                    reason = f"a member that would leave its folder: {member.name!r}"
                    raise UserError(f"{archive} holds {reason}")
                if member.size < 0:  # the reader would go backwards, and never reach the end
                    raise UserError(f"{archive} holds a member of negative size")
                is_wanted = path.name in wanted and path.parent == pathlib.PurePosixPath(folder)
                if is_wanted and member.isfile():
                    # None is for what is no file
                    contents[path.name] = tar.extractfile(member).read()  # type: ignore[union-attr]
    except UserError:
        raise
    except Exception as error:  # a hostile archive can make the reader raise anything
        reason = str(error) or type(error).__name__
        raise UserError(f"{archive} cannot be read as an archive: {reason}") from error
    for name in wanted:
        if name not in contents:
            raise UserError(f"{archive} holds no file {folder}/{name}")
    return contents


def _warn_of_other_sum(archive: pathlib.Path, md5: str) -> None:
    try:
        with archive.open("rb") as file:
            digest = hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False))
    except OSError as error:
        raise UserError(f"{archive} cannot be read: {error.strerror}") from error
    if (found := digest.hexdigest()) != md5:
        warning = f"warning: {archive} has the MD5 sum {found}, the official file {md5}"
        print(warning, file=sys.stderr)
