"""CIFAR-100, CIFAR-10 and scikit-learn's digits as arrays, and the batches that a run draws from them.

The official CIFAR files are Python pickles. They are read by an unpickler that knows only what such a file
needs and hands even that to inert stand-ins, so that a hostile file can run nothing.
"""

import dataclasses
import gzip
import hashlib
import http.client
import io
import math
import pathlib
import pickle
import pickletools
import sys
import tarfile
import threading
import urllib.request
from collections.abc import Callable, Iterator

import numpy as np
import tensorflow as tf

from common.errors import UserError

_LARGEST_FILE = 256 * 2**20  # bytes; CIFAR-100's training file has 155 million
_PICTURE = (32, 32, 3)


@dataclasses.dataclass(frozen=True)
class Dataset:
    """A data set in memory.

    Attributes:
        title: its name as people write it.
        source: where it was read from.
        train_images, test_images: uint8 ``[count, 32, 32, 3]``.
        train_labels, test_labels: int32 ``[count]``, from 0 to ``num_classes - 1``.
        class_names: one a class.
        mirror: whether a picture may be flipped left-right; a mirrored digit is no digit.
    """

    title: str
    source: str
    train_images: np.ndarray
    train_labels: np.ndarray
    test_images: np.ndarray
    test_labels: np.ndarray
    class_names: tuple[str, ...]
    mirror: bool = True

    @property
    def num_classes(self) -> int:
        return len(self.class_names)

    def __str__(self) -> str:
        counts = f"{len(self.train_labels):,} training and {len(self.test_labels):,} test pictures"
        return f"{self.title} from {self.source}: {counts} of {self.num_classes} classes"


@dataclasses.dataclass(frozen=True)
class _Cifar:
    """What tells the two CIFAR data sets apart: of the official Python archive and of TFDS's copy."""

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


_SITE = "https://www.cs.toronto.edu/~kriz/"
CIFAR100 = _Cifar(
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
CIFAR10 = _Cifar(
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


def load(name: str, data_dir: pathlib.Path) -> Dataset:
    """Returns the data set ``name``: "cifar100", "cifar10" or "digits".

    CIFAR is looked for in ``data_dir`` as the official folder, the official archive and a TFDS copy, in this
    order, and downloaded there by TFDS where there is none of them.

    Raises:
        UserError: where it cannot be had, or what is there is not the data set.
    """
    if name == "digits":
        return _digits()
    try:
        return _cifar({"cifar100": CIFAR100, "cifar10": CIFAR10}[name], data_dir)
    except OSError as error:
        raise UserError(f"--data_dir={data_dir} cannot be read: {error.strerror}") from error


def _digits() -> Dataset:
    """Returns the 1,797 digits that scikit-learn ships, each pixel drawn as 4x4; every fifth is a test picture."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    images = np.round(digits.images * (255 / 16)).astype(np.uint8)
    images = np.broadcast_to(images.repeat(4, 1).repeat(4, 2)[..., np.newaxis], (len(images), *_PICTURE))
    labels = digits.target.astype(np.int32)
    test = np.arange(len(labels)) % 5 == 0
    return Dataset(
        title="digits",
        source="scikit-learn",
        train_images=np.ascontiguousarray(images[~test]),
        train_labels=labels[~test],
        test_images=np.ascontiguousarray(images[test]),
        test_labels=labels[test],
        class_names=tuple(map(str, digits.target_names)),
        mirror=False,
    )


def _cifar(cifar: _Cifar, data_dir: pathlib.Path) -> Dataset:
    if data_dir.exists() and not data_dir.is_dir():
        raise UserError(f"--data_dir={data_dir} is not a folder")
    folder, archive = data_dir / cifar.folder, data_dir / cifar.archive
    if folder.is_dir():
        return _from_files(cifar, str(folder), lambda wanted: _read_folder(folder, wanted))
    if archive.is_file():
        data = _from_files(cifar, str(archive), lambda wanted: _read_archive(archive, cifar.folder, wanted))
        _warn_of_other_sum(archive, cifar.md5)
        return data
    copy = _tfds_copy(cifar, data_dir)
    if copy is None:
        copy = download(cifar, data_dir)
    return _from_tfds(cifar, copy)


# The official files


class _Array:
    """Stands in for a NumPy array while a pickle is read: keeps the array's description, runs nothing of NumPy."""

    def __setstate__(self, state):
        _, self.shape, self.dtype, self.fortran, self.raw = state

    def numpy(self) -> np.ndarray:
        """Returns the array, uint8, or raises ValueError."""
        raw = self.raw.encode("latin1") if isinstance(self.raw, str) else self.raw
        plain = isinstance(raw, bytes) and isinstance(self.shape, tuple) and all(type(n) is int for n in self.shape)
        if not plain or self.dtype.name not in ("u1", b"u1") or len(raw) != math.prod(self.shape):
            raise ValueError("an array that is not one of bytes")
        return np.frombuffer(raw, np.uint8).reshape(self.shape, order="F" if self.fortran else "C")


class _Dtype:
    def __init__(self, name, *_):
        self.name = name

    def __setstate__(self, _):
        """The rest of a dtype's state is byte order and alignment, which bytes do not have."""


_ADMITTED = {
    ("numpy.core.multiarray", "_reconstruct"): lambda *_: _Array(),
    ("numpy._core.multiarray", "_reconstruct"): lambda *_: _Array(),
    ("numpy", "ndarray"): None,  # only ever an argument of _reconstruct
    ("numpy", "dtype"): _Dtype,
}


class _Unpickler(pickle.Unpickler):
    """Reads built-in containers, numbers, strings and arrays of bytes; refuses every other name."""

    def find_class(self, module: str, name: str):
        if (module, name) not in _ADMITTED:
            asked = f"{module}.{name}"
            raise pickle.UnpicklingError(f"it asks for {asked[:100]!r}, which no such file needs")
        return _ADMITTED[module, name]


_INSTRUCTIONS = frozenset(
    """PROTO FRAME STOP MARK NONE NEWTRUE NEWFALSE INT BININT BININT1 BININT2 LONG LONG1
STRING BINSTRING SHORT_BINSTRING UNICODE BINUNICODE SHORT_BINUNICODE BINBYTES SHORT_BINBYTES BINBYTES8
EMPTY_DICT DICT SETITEM SETITEMS EMPTY_LIST LIST APPEND APPENDS EMPTY_TUPLE TUPLE TUPLE1 TUPLE2 TUPLE3
GLOBAL STACK_GLOBAL REDUCE BUILD PUT BINPUT LONG_BINPUT MEMOIZE GET BINGET LONG_BINGET""".split()  # noqa: SIM905 (one name a line is no easier to read)
)


def _check_instructions(content: bytes) -> None:
    """Refuses a pickle that would exhaust memory or the stack; nothing is built while it is looked through."""
    tuples = 0
    for count, (instruction, argument, _) in enumerate(pickletools.genops(content)):
        name = instruction.name
        if name not in _INSTRUCTIONS:
            raise pickle.UnpicklingError(f"it holds the instruction {name}, which no such file needs")
        # an array has about five tuples; thousands inside one another overflow the stack when they are hashed
        tuples += "TUPLE" in name
        # an empty list takes 72 bytes, one instruction 1; the official training file has about 200,000 instructions
        # the memory for the memo grows with the largest index
        # whole numbers of this size can be chosen to have one hash, and a dictionary of them takes hours
        large = isinstance(argument, int) and abs(argument) >= 2**60
        if count > 1_000_000 or tuples > 100 or large or ("PUT" in name and argument > count):
            raise pickle.UnpicklingError("it is built as no such file is")


def unpickle(content: bytes) -> dict:
    """Returns the dictionary that an official CIFAR file holds, its keys as strings.

    Raises:
        ValueError: if ``content`` is anything else, with the reason in words.
    """
    try:
        _check_instructions(content)
        record = _Unpickler(io.BytesIO(content), encoding="bytes").load()
    except Exception as error:  # a hostile pickle can make the unpickler raise whatever it likes
        raise ValueError(f"not a pickle of a CIFAR file ({str(error) or type(error).__name__})") from error
    if not isinstance(record, dict):
        raise ValueError("not a pickle of a CIFAR file (it holds no dictionary)")
    return {_text(key): value for key, value in record.items() if isinstance(key, str | bytes)}


def _text(value) -> str:
    return value.decode("latin1") if isinstance(value, bytes) else str(value)


def _from_files(cifar: _Cifar, source: str, read: Callable[[tuple[str, ...]], dict[str, bytes]]) -> Dataset:
    contents = read((*cifar.train_files, cifar.test_file, cifar.names_file))

    def part(name: str, convert: Callable):
        try:
            # each file's bytes are given up as soon as they are read: they are as large as the pictures
            return convert(cifar, unpickle(contents.pop(name)))
        except ValueError as error:
            raise UserError(f"{source}: {name}: {error}") from error

    train = [part(name, _pictures) for name in cifar.train_files]
    images, labels = train[0] if len(train) == 1 else map(np.concatenate, zip(*train, strict=True))
    test = part(cifar.test_file, _pictures)
    return Dataset(cifar.title, source, images, labels, *test, part(cifar.names_file, _names))


def _pictures(cifar: _Cifar, record: dict) -> tuple[np.ndarray, np.ndarray]:
    data, labels = record.get("data"), record.get(cifar.label_key)
    if not isinstance(data, _Array) or not isinstance(labels, list):
        raise ValueError(f"it holds no data and {cifar.label_key}")
    try:
        pixels = data.numpy()
    except (AttributeError, TypeError, UnicodeError) as error:
        raise ValueError("an array that is not one of bytes") from error
    if pixels.ndim != 2 or pixels.shape[1] != math.prod(_PICTURE) or not len(pixels):
        raise ValueError(f"its data has the shape {list(pixels.shape)}, not [pictures, 3072]")
    if len(labels) != len(pixels):
        raise ValueError(f"it has {len(pixels)} pictures and {len(labels)} labels")
    if not all(type(label) is int and 0 <= label < cifar.classes for label in labels):
        raise ValueError(f"a label is not a whole number from 0 to {cifar.classes - 1}")
    # stored as three colour planes, [3, 32, 32]
    images = np.ascontiguousarray(pixels.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1))
    return images, np.array(labels, np.int32)


def _names(cifar: _Cifar, record: dict) -> tuple[str, ...]:
    names = record.get(cifar.names_key)
    if not isinstance(names, list) or len(names) != cifar.classes or not all(isinstance(n, str | bytes) for n in names):
        raise ValueError(f"it does not name {cifar.classes} classes")
    names = tuple(map(_text, names))
    if not all(name and name.isprintable() for name in names):  # classes.txt has one a line, in UTF-8
        raise ValueError("the name of a class is empty or not printable")
    return names


def _read_folder(folder: pathlib.Path, wanted: tuple[str, ...]) -> dict[str, bytes]:
    contents = {}
    for name in wanted:
        path = folder / name
        if not path.is_file():
            raise UserError(f"{folder} holds no file {name}")
        if path.stat().st_size > _LARGEST_FILE:
            raise UserError(f"{path} is too large to be a CIFAR file")
        try:
            contents[name] = path.read_bytes()
        except OSError as error:
            raise UserError(f"{path} cannot be read: {error.strerror}") from error
    return contents


def _read_archive(archive: pathlib.Path, folder: str, wanted: tuple[str, ...]) -> dict[str, bytes]:
    """Reads the wanted members into memory; nothing is extracted, so that nothing can be written anywhere."""
    contents, largest = {}, 2 * _LARGEST_FILE
    try:
        with gzip.open(archive) as file:
            unpacked = file.read(largest + 1)
        if len(unpacked) > largest:
            raise UserError(f"{archive} unpacks to more than a CIFAR archive can")
        with tarfile.open(fileobj=io.BytesIO(unpacked), mode="r:") as tar:
            for count, member in enumerate(tar):
                if count > 1000 or member.issparse():  # what is not stored of a sparse member is made up as zeros, without limit
                    raise UserError(f"{archive} is built as no CIFAR archive is")
                path = pathlib.PurePosixPath(member.name)
                if path.is_absolute() or ".." in path.parts:
                    raise UserError(f"{archive} holds a member that would leave its folder: {member.name!r}")
                if member.size < 0:  # the next header would be sought before this one, without end
                    raise UserError(f"{archive} holds a member of negative size")
                if member.isfile() and path.parent.name == folder and len(path.parts) == 2 and path.name in wanted:
                    contents[path.name] = tar.extractfile(member).read()
    except UserError:
        raise
    except Exception as error:  # a hostile archive can make the reader raise whatever it likes
        raise UserError(f"{archive} cannot be read as a .tar.gz: {str(error) or type(error).__name__}") from error
    for name in wanted:
        if name not in contents:
            raise UserError(f"{archive} holds no file {folder}/{name}")
    return contents


def _warn_of_other_sum(archive: pathlib.Path, md5: str) -> None:
    try:
        with archive.open("rb") as file:
            found = hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
    except OSError as error:
        raise UserError(f"{archive} cannot be read: {error.strerror}") from error
    if found != md5:
        print(f"warning: {archive} has the MD5 sum {found}, the official file {md5}", file=sys.stderr)


# TFDS


def _tfds_copy(cifar: _Cifar, data_dir: pathlib.Path) -> pathlib.Path | None:
    versions = sorted((data_dir / cifar.tfds_name).glob("*/dataset_info.json"))
    return versions[-1].parent if versions else None


def _from_tfds(cifar: _Cifar, folder: pathlib.Path) -> Dataset:
    import tensorflow_datasets as tfds

    try:
        builder = tfds.builder_from_directory(folder)
        parts = []
        for split in ("train", "test"):
            # in the order in which they are stored, so that two runs see the same
            part = builder.as_dataset(split=split, batch_size=-1)
            parts += [part["image"].numpy(), part["label"].numpy().astype(np.int32)]
        names = tuple(builder.info.features["label"].names)
    except Exception as error:  # TFDS and its readers raise many kinds for a damaged copy
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise UserError(f"{folder} cannot be read as TFDS's {cifar.tfds_name}: {reason}") from error
    for images, labels in (parts[:2], parts[2:]):
        if images.dtype != np.uint8 or images.shape[1:] != _PICTURE or not len(labels):
            raise UserError(f"{folder} does not hold pictures of 32x32x3 bytes")
        if labels.min() < 0 or labels.max() >= cifar.classes or len(names) != cifar.classes:
            raise UserError(f"{folder} has labels that are not from 0 to {cifar.classes - 1}")
    return Dataset(cifar.title, str(folder), *parts, names)


def _is_reachable(url: str, seconds: float) -> bool:
    """Returns whether ``url`` answers; a thread, because a name look-up obeys no time limit of Python's."""
    answers = []

    def ask() -> None:
        try:
            request = urllib.request.Request(url, method="HEAD")
            with urllib.request.urlopen(request, timeout=seconds) as response:
                answers.append(response.status < 400)
        except (OSError, ValueError, http.client.HTTPException):
            answers.append(False)

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(seconds)
    return bool(answers and answers[0])


def download(cifar: _Cifar, data_dir: pathlib.Path) -> pathlib.Path:
    """Downloads the data set with TFDS, with its progress bar, and returns the folder of the copy.

    Raises:
        UserError: at once where the site does not answer (TFDS would retry for minutes), or if it fails midway.
    """
    binary = _SITE + cifar.archive.replace("python", "binary")  # what TFDS downloads
    if not _is_reachable(binary, seconds=8):
        raise UserError(
            f"there is no {cifar.title} in {data_dir}, and {_SITE} does not answer. Three ways on: "
            f"put {cifar.archive} (or its folder {cifar.folder}/) into that folder; "
            f"point --data_dir at a folder that has it, or a TFDS copy of it; "
            "or try --dataset=digits, which needs no download"
        )
    import tensorflow_datasets as tfds

    print(f"downloading {cifar.title} to {data_dir}", flush=True)
    try:
        builder = tfds.builder(cifar.tfds_name, data_dir=data_dir)
        builder.download_and_prepare()
    except Exception as error:  # the network, the disk and the site's files can each fail in their own way
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise UserError(f"the download of {cifar.title} to {data_dir} failed: {reason}") from error
    return pathlib.Path(builder.data_dir)


# Batches


def picks(
    seed: int, iteration: int, count: int, batch_size: int, mirror: bool = True, episode_length: int | None = None
) -> Iterator[np.ndarray]:
    """Yields what each batch takes from the training set, from ``iteration`` on, without end.

    A stateless function of seed and iteration: a run resumed at any iteration sees what it would have seen. An
    epoch is ``count // batch_size`` batches of one shuffle; the pictures left over are dropped.

    Args:
        seed: of the shuffles and the augmentation.
        iteration: the first one to yield.
        count: number of pictures in the training set.
        batch_size: number of pictures a batch, at most ``count``.
        mirror: whether half of the pictures are flipped left-right.
        episode_length: number of iterations after which a new shuffle begins whatever the epoch, if any.

    Yields:
        int32 ``[batch_size, 4]``: the picture's index, the crop's offset down and across (0 to 8), and 1 for a flip.
    """
    steps = count // batch_size
    while True:
        episode, inside = divmod(iteration, episode_length) if episode_length else (0, iteration)
        epoch, start = divmod(inside, steps)
        random = np.random.default_rng([seed, episode, epoch])
        order = random.permutation(count)[: steps * batch_size]
        offsets = random.integers(0, 9, (2, order.size))
        flips = random.integers(0, 2, order.size) if mirror else np.zeros_like(order)
        whole = np.stack([order, *offsets, flips], axis=-1).astype(np.int32).reshape(steps, batch_size, 4)
        left = episode_length - inside if episode_length else steps
        for batch in whole[start : start + left]:
            yield batch
            iteration += 1


def augment(images: tf.Tensor, picks: tf.Tensor) -> tf.Tensor:
    """Returns the picked pictures, padded by 4 with symmetric reflection, cropped to 32x32 and flipped.

    Nothing is padded or copied on the way: the three steps are one computation of indices and one gather.

    Args:
        images: uint8 ``[count, 32, 32, 3]``, the whole training set.
        picks: int32 ``[batch, 4]``, as :func:`picks` yields them.

    Returns:
        uint8 ``[batch, 32, 32, 3]``.
    """
    height, width, channels = images.shape[1:]
    index, down, across, flip = tf.unstack(picks[:, :, tf.newaxis], axis=1)  # each [batch, 1]

    def reflect(position: tf.Tensor, size: int) -> tf.Tensor:
        # symmetric: ... 1 0 | 0 1 2 ... size-1 | size-1 size-2 ...
        position = tf.where(position < 0, -1 - position, position)
        return tf.where(position >= size, 2 * size - 1 - position, position)

    rows = reflect(tf.range(height)[tf.newaxis] + down - 4, height)  # [batch, 32]
    columns = tf.range(width)[tf.newaxis]
    columns = tf.where(flip == 1, width - 1 - columns, columns)
    columns = reflect(columns + across - 4, width)  # [batch, 32]
    flat = ((index * height + rows) * width)[:, :, tf.newaxis] + columns[:, tf.newaxis, :]  # [batch, 32, 32]
    return tf.gather(tf.reshape(images, [-1, channels]), flat)
