"""A folder of a user's images, one subfolder per class."""

import hashlib
import os
import pathlib
from collections.abc import Iterator
from multiprocessing.pool import ThreadPool

import numpy as np
from tqdm import tqdm

from ..errors import UserError
from ..training.texts import shown
from . import images
from .dataset import Dataset

LARGEST = 4 * 2**30  # bytes of all images in memory
ONE_IN = 5  # without a folder for tests, one image in so many is a test image
READERS = 4  # threads; each may hold an image of the most pixels that `images` takes
# names, in any case, of a folder for training, and of one for tests; the first one found is read
TRAIN = ("train", "training")
TEST = ("test", "testing", "val", "valid", "validation")
# path, class, and whether it is a test image (None: its content decides)
File = tuple[pathlib.Path, str, bool | None]


def read(folder: pathlib.Path, image_size: int) -> Dataset:
    """Returns the images of ``folder/train/CLASS`` and ``folder/test/CLASS``, or ``folder/CLASS``.

    In the second form an image is a test image if its file's SHA-256 sum, as a number, is a
    multiple of 5: about a fifth of them, whatever the files are called and whatever are added.

    Classes and images are in the order of their names. Files that are not images are left out and
    counted in one line, hidden ones silently. Links are refused.

    Raises:
        UserError: if the folder is of neither form, an image is not valid, or all are too large.
        OSError: if the folder cannot be read.
    """
    if not folder.is_dir():
        raise UserError(f"--data_dir: there is no folder {shown(folder)}")
    others: list[str] = []
    splits = _splits(folder) or [(folder, None)]
    files = [file for path, test in splits for file in _files(path, test, others)]
    names = tuple(sorted({name for _, name, test in files if not test}))
    if strangers := {name for _, name, _ in files} - set(names):
        problem = f"the tests have a class {min(strangers)}, and the training images have not"
        raise UserError(f"{shown(folder)}: {problem}")
    if len(names) < 2:
        raise UserError(f"{shown(folder)} must hold a subfolder with images for each class")
    if (needed := len(files) * 3 * image_size**2) > LARGEST:
        given = f"{len(files):,} images of {image_size}x{image_size} pixels"
        memory = f"{needed / 2**30:,.1f} GiB of memory, more than {LARGEST >> 30}"
        raise UserError(f"{given} take {memory}: use fewer images or a smaller --image_size")
    if others:
        first = shown(others[0])
        which = f"{len(others):,} files that are no images, or in no class,"
        print(f"note: {which} are left out, such as {first}")
    return _load(folder, files, names, image_size)


def _entries(folder: pathlib.Path | os.DirEntry[str]) -> list[os.DirEntry[str]]:
    """Returns the entries of ``folder`` by name, without hidden ones; raises for a link."""
    with os.scandir(folder) as found:
        entries = [entry for entry in found if not entry.name.startswith(".")]
    for entry in entries:
        if entry.is_symlink():
            raise UserError(f"{shown(entry.path)} is a link, and links are not followed")
    return sorted(entries, key=lambda entry: entry.name)


def _splits(folder: pathlib.Path) -> list[tuple[pathlib.Path, bool | None]]:
    """Returns the folders for training and for tests (True); none if all folders are classes."""
    folders = [pathlib.Path(entry) for entry in _entries(folder) if entry.is_dir()]
    named = [path for names in (TRAIN, TEST) for path in folders if path.name.lower() in names]
    with_classes = [path for path in named if any(entry.is_dir() for entry in _entries(path))]
    if len(named) < 2 and not with_classes:  # a class may be called train
        return []
    train = [path for path in with_classes if path.name.lower() in TRAIN]
    tests = [path for path in with_classes if path.name.lower() in TEST]
    if len(train) != 1 or not tests:
        has = f"{shown(folder)} has {', '.join(f'{path.name}/' for path in named)}"
        problem = "one folder for training and one for tests must have a folder for each class"
        raise UserError(f"{has}: {problem}")
    chosen = train[0], min(tests, key=lambda path: TEST.index(path.name.lower()))
    rest = ", ".join(f"{path.name}/" for path in folders if path not in chosen)
    if rest or [path.name for path in chosen] != ["train", "test"]:
        note = f"note: {chosen[0].name}/ is for training, {chosen[1].name}/ for tests"
        print(f"{note}; left out: {shown(rest)}" if rest else note)
    return [(chosen[0], False), (chosen[1], True)]


def _below(folder: os.DirEntry[str]) -> Iterator[pathlib.Path]:
    folders = [folder]
    while folders:
        for entry in _entries(folders.pop()):
            if entry.is_dir():
                folders.append(entry)
            else:
                yield pathlib.Path(entry)


def _files(folder: pathlib.Path, test: bool | None, others: list[str]) -> Iterator[File]:
    """Yields the images of each class in ``folder``, and adds other files' names to ``others``."""
    for entry in _entries(folder):
        if not entry.is_dir():
            others.append(entry.name)
            continue
        if not entry.name.isprintable():  # classes.txt has one name per line, in UTF-8
            raise UserError(f"{shown(entry.path)}: the name of a class must be printable")
        found = []
        for path in sorted(_below(entry)):
            if path.suffix.lower() in images.SUFFIXES:
                found.append((path, entry.name, test))
            else:
                others.append(path.name)
        if not found:
            raise UserError(f"{shown(entry.path)} holds no image ({' '.join(images.SUFFIXES)})")
        yield from found


def _load(folder: pathlib.Path, files: list[File], names: tuple[str, ...], size: int) -> Dataset:
    pixels = np.empty((len(files), size, size, 3), np.uint8)
    label_of = {name: label for label, name in enumerate(names)}
    labels = np.array([label_of[name] for _, name, _ in files], np.int32)
    tests = np.empty(len(files), bool)

    def load(i: int) -> str | None:
        """Fills in image ``i``, or returns the reason why it cannot be read."""
        path, _, test = files[i]
        try:
            content = images.read(path)
            pixels[i] = images.decode(content, size)
        except ValueError as error:
            return f"{shown(path)} ({error})"
        number = int.from_bytes(hashlib.sha256(content).digest(), "big")
        tests[i] = number % ONE_IN == 0 if test is None else test
        return None

    with ThreadPool(READERS) as pool:
        results = pool.imap(load, range(len(files)), chunksize=16)
        bar = tqdm(results, "reading", len(files), unit="image", delay=2, disable=None)
        bad = [reason for reason in bar if reason]
    if bad:
        more = f" and {len(bad) - 3:,} more" if len(bad) > 3 else ""
        raise UserError(f"cannot be read as images: {', '.join(bad[:3])}{more}")
    lacking = set(range(len(names))) - set(labels[~tests].tolist())
    if lacking or not tests.any():
        missing = f"training image of {names[min(lacking)]}" if lacking else "test image"
        reason = "a fifth, by their sums, are for tests; add images, or make train/ and test/"
        raise UserError(f"{shown(folder)} has no {missing}: {reason}")
    train = pixels[~tests], labels[~tests]
    return Dataset("folder", shown(folder), *train, pixels[tests], labels[tests], names)
