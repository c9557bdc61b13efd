"""A folder of the user's own images, one subfolder a class."""

import collections
import concurrent.futures
import hashlib
import itertools
import os
import pathlib
import re
import sys
import zlib
from collections.abc import Iterator

import numpy as np
from tqdm import tqdm

from ..errors import UserError
from . import images
from .dataset import Dataset

LARGEST = 4 * 2**30  # bytes of all images in memory
ONE_IN = 5  # how many images have one test image among them, where no folder says which
READERS = 4  # threads; each may hold an image of images.MOST_PIXELS

# words in the name of a folder for training, for tests, and for tests if there are no others
TRAIN, TEST = {"train", "training"}, {"test", "testing"}
VALIDATION = {"val", "valid", "validation", "eval", "evaluation", "dev", "holdout"}

# path, class, and whether it is a test image (None: its content says)
File = tuple[pathlib.Path, str, bool | None]


def read(folder: pathlib.Path, image_size: int) -> Dataset:
    """Returns the images of ``folder/train/CLASS`` and ``folder/test/CLASS``, or ``folder/CLASS``.

    The first form may have other names, such as ``Training`` and ``val``. In the second an image is
    a test image if the SHA-256 sum of its file, as a number, is a multiple of 5. That is about a
    fifth of them, and the same ones on every machine, whatever the files are called and whatever
    files are beside them; equal files stay together.

    Classes and images are in the order of their names; test images in the reverse order. Other
    files than images are left out and counted in one line, hidden ones silently. Links are refused.

    Raises:
        UserError: if the folder is of neither form, a file that is named like an image is not one,
            or the images would take more than `LARGEST`.
        OSError: if the folder cannot be read.
    """
    if not folder.is_dir():
        raise UserError(f"--data_dir: there is no folder {_shown(folder)}")
    others: collections.Counter[str] = collections.Counter()
    splits = _splits(folder)
    if splits:
        between = " and ".join(f"{_shown(name)}/" for name in splits)
        others[f"beside {between}"] += sum(not entry.is_dir() for entry in _entries(folder))
        parts = zip(splits, (False, True), strict=True)
        files = [file for name, test in parts for file in _files(folder / name, test, others)]
    else:
        files = [*_files(folder, None, others)]
    names = tuple(sorted({name for _, name, test in files if not test}))
    if strangers := {name for _, name, _ in files} - set(names):
        problem = f"the tests have a class {min(strangers)}, and the training images have not"
        raise UserError(f"{_shown(folder)}: {problem}")
    if len(names) < 2:
        raise UserError(f"{_shown(folder)} must hold a subfolder with images for each class")
    needed = len(files) * 3 * image_size**2
    if needed > LARGEST:
        raise UserError(
            f"{_shown(folder)}: {len(files):,} images of {image_size}x{image_size} pixels take "
            f"{needed / 2**30:,.1f} GiB of memory, more than {LARGEST >> 30}; --image_size=32 or "
            "fewer images take less"
        )
    if others.total():
        kinds = ", ".join(f"{count:,} {kind}" for kind, count in (+others).most_common(5))
        print(f"note: {others.total():,} files that are no images are left out: {kinds}")
    return _load(folder, files, names, image_size)


def _entries(folder: pathlib.Path) -> list[os.DirEntry[str]]:
    """Returns what is in ``folder`` by name, hidden entries left out; raises for a link."""
    with os.scandir(folder) as found:
        entries = [entry for entry in found if not entry.name.startswith(".")]
    for entry in entries:
        if entry.is_symlink():
            raise UserError(f"{_shown(entry.path)} is a link, and links are not followed")
    return sorted(entries, key=lambda entry: entry.name)


def _splits(folder: pathlib.Path) -> tuple[str, str] | None:
    """Returns the names of the folders for training and for tests; None if all are classes.

    Such a folder has a word of `TRAIN`, `TEST` or `VALIDATION` in its name, in any case, and a
    folder for each class. A line says which are read and which are not, unless they are train and
    test alone.

    Raises:
        UserError: if there is not one folder for training and one for tests, or if the folders look
            like splits by other names.
    """
    below, with_images = {}, False  # the folders in each folder
    for entry in _entries(folder):
        if entry.is_dir():
            inner = _entries(pathlib.Path(entry))
            below[entry.name] = [e.name for e in inner if e.is_dir()]
            with_images |= any(e.name.lower().endswith(images.SUFFIXES) for e in inner)
    words = {name: set(re.findall("[a-z]+", name.lower())) for name in below}
    train = [name for name in below if words[name] & TRAIN]
    tests = [name for name in below if words[name] & (TEST | VALIDATION) and name not in train]
    if (train and tests) or any(below[name] for name in train + tests):
        found = ", ".join(f"{_shown(name)}/" for name in train + tests)
        train = [name for name in train if below[name]]
        tests = [name for name in tests if below[name]]
        if len(train) != 1 or not tests:
            needed = "one folder for training and one for tests, such as train/ and test/"
            needed += ", must have a folder for each class"
            raise UserError(f"{_shown(folder)} has {found}: {needed}")
        chosen = train[0], min(tests, key=lambda name: not words[name] & TEST)
        rest = [f"{_shown(name)}/" for name in below if name not in chosen]
        if rest or chosen != ("train", "test"):
            parts = "{}/ is for training, {}/ for tests".format(*map(_shown, chosen))
            print(f"note: {parts}{'; left out: ' * bool(rest)}{', '.join(rest)}")
        return chosen
    first, *others = below.values() or [[]]
    if others and len(first) > 1 and not with_images and all(names == first for names in others):
        pair = " and ".join(f"{_shown(name)}/" for name in list(below)[:2])
        problem = f"{pair} hold the same folders, such as {_shown(first[0])}/. Call splits train/ "
        problem += "and test/; a class must have images directly in its folder"
        raise UserError(f"{_shown(folder)}: {problem}")
    return None


def _files(folder: pathlib.Path, test: bool | None, others: collections.Counter) -> Iterator[File]:
    """Yields the images of each class in ``folder``, and counts in ``others`` what is none."""
    for entry in _entries(folder):
        if not entry.is_dir():
            others["outside of the classes"] += 1
            continue
        if not entry.name.isprintable():  # classes.txt has one name per line, in UTF-8
            raise UserError(f"{_shown(entry.path)}: the name of a class must be printable")
        found, folders = [], [pathlib.Path(entry.path)]
        while folders:
            for inner in _entries(folders.pop()):
                path = pathlib.Path(inner.path)
                if inner.is_dir():
                    folders.append(path)
                elif path.suffix.lower() in images.SUFFIXES:
                    found.append(path)
                else:
                    others[_shown(path.suffix.lower()) or "without a suffix"] += 1
        if not found:
            raise UserError(f"{_shown(entry.path)} holds no image ({' '.join(images.SUFFIXES)})")
        yield from ((path, entry.name, test) for path in sorted(found))


def _load(folder: pathlib.Path, files: list[File], names: tuple[str, ...], size: int) -> Dataset:
    pixels = np.empty((len(files), size, size, 3), np.uint8)
    labels = np.empty(len(files), np.int32)
    label_of = {name: label for label, name in enumerate(names)}
    # training images go in from the front and test images from the back: neither is copied
    front, back, bad = 0, len(files), []

    def load(file: File) -> tuple[np.ndarray, bool] | str:
        path, _, test = file
        try:
            content = images.read(path)
            return images.decode(content, size), _is_test(content) if test is None else test
        except ValueError as error:
            return f"{_shown(path)} ({error})"

    interval = 0.2 if sys.stderr.isatty() else 30
    with concurrent.futures.ThreadPoolExecutor(READERS) as pool:
        parts = (pool.map(load, files[i : i + 1000]) for i in range(0, len(files), 1000))
        found = itertools.chain.from_iterable(parts)
        bar = tqdm(found, "reading", len(files), unit="image", delay=2, mininterval=interval)
        for (_, name, _), result in zip(files, bar, strict=True):
            if isinstance(result, str):
                bad.append(result)
                continue
            image, test = result
            back, at, front = (back - 1, back - 1, front) if test else (back, front, front + 1)
            pixels[at], labels[at] = image, label_of[name]
    if bad:
        more = f" and {len(bad) - 3:,} more" if len(bad) > 3 else ""
        raise UserError(f"not to be read as images: {', '.join(bad[:3])}{more}")
    lacking = [name for name, label in label_of.items() if not (labels[:front] == label).any()]
    if lacking or front == len(files):
        what = f"training image of {lacking[0]}" if lacking else "test image"
        reason = "a fifth, by their sums, are for tests; add images, or make train/ and test/"
        raise UserError(f"{_shown(folder)} has no {what}: {reason}")
    rest = zlib.crc32(pixels[front:].data, zlib.crc32("\n".join(names).encode()))
    return Dataset(
        title="folder",
        source=_shown(folder),
        train_images=pixels[:front],
        train_labels=labels[:front],
        test_images=pixels[front:],
        test_labels=labels[front:],
        class_names=names,
        sum_of_rest=zlib.crc32(labels.data, rest),
    )


def _is_test(content: bytes) -> bool:
    return int.from_bytes(hashlib.sha256(content).digest(), "big") % ONE_IN == 0


def _shown(path: str | os.PathLike) -> str:
    """Returns a name as it can be printed in one line."""
    text = os.fspath(path)
    return text if text.isprintable() else ascii(text)
