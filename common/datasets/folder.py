"""A folder of the user's own images, one subfolder a class."""

import hashlib
import os
import pathlib
import zlib
from collections.abc import Iterator
from multiprocessing.pool import ThreadPool

import numpy as np
from tqdm import tqdm

from ..errors import UserError
from . import images
from .dataset import Dataset

LARGEST = 4 * 2**30  # bytes of all images in memory
ONE_IN = 5  # where no folder is for tests, one image in so many is
READERS = 4  # threads; each may hold an image of the most pixels that `images` takes

# names, in any case, of a folder for training, and of one for tests; the first one found is read
TRAIN = ("train", "training")
TEST = ("test", "testing", "val", "valid", "validation")

# path, class, and whether it is a test image (None: its content says)
File = tuple[pathlib.Path, str, bool | None]


def read(folder: pathlib.Path, image_size: int) -> Dataset:
    """Returns the images of ``folder/train/CLASS`` and ``folder/test/CLASS``, or ``folder/CLASS``.

    The first form may have other names: see `TRAIN` and `TEST`. In the second an image is a test
    image if the SHA-256 sum of its file, as a number, is a multiple of 5. That is about a fifth of
    them, and the same ones on every machine, whatever the files are called and whatever files are
    added; equal files stay together.

    Classes and images are in the order of their names. Files that are not images are left out and
    counted in one line, hidden ones silently. Links are refused.

    Raises:
        UserError: if the folder is of neither form, a file that is named like an image is not one,
            or the images would take more than `LARGEST`.
        OSError: if the folder cannot be read.
    """
    if not folder.is_dir():
        raise UserError(f"--data_dir: there is no folder {_shown(folder)}")
    others: list[str] = []
    if splits := _splits(folder):
        files = [file for path, test in splits for file in _files(path, test, others)]
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
    if others:
        print(f"note: {len(others):,} files that are not images are left out, such as {others[0]}")
    return _load(folder, files, names, image_size)


def _entries(folder: pathlib.Path | os.DirEntry[str]) -> list[os.DirEntry[str]]:
    """Returns the entries of ``folder`` by name, without hidden ones; raises for a link."""
    with os.scandir(os.fspath(folder)) as found:
        entries = [entry for entry in found if not entry.name.startswith(".")]
    for entry in entries:
        if entry.is_symlink():
            raise UserError(f"{_shown(entry.path)} is a link, and links are not followed")
    return sorted(entries, key=lambda entry: entry.name)


def _splits(folder: pathlib.Path) -> list[tuple[pathlib.Path, bool]]:
    """Returns the folders for training and for tests (True); none if all folders are classes.

    A line says which are read and which are not, unless they are train and test alone. Raises
    UserError if there is not one folder for training and one for tests.
    """
    folders = [pathlib.Path(entry) for entry in _entries(folder) if entry.is_dir()]
    train, tests = ([p for p in folders if p.name.lower() in names] for names in (TRAIN, TEST))
    have_classes = {p for p in train + tests if any(entry.is_dir() for entry in _entries(p))}
    if not (train and tests) and not have_classes:
        return []
    found = ", ".join(f"{path.name}/" for path in train + tests)
    train, tests = ([p for p in paths if p in have_classes] for paths in (train, tests))
    if len(train) != 1 or not tests:
        raise UserError(
            f"{_shown(folder)} has {found}: one folder for training and one for tests, such as "
            "train/ and test/, must have a folder for each class"
        )
    chosen = train[0], min(tests, key=lambda path: TEST.index(path.name.lower()))
    rest = ", ".join(f"{_shown(path.name)}/" for path in folders if path not in chosen)
    if rest or [path.name for path in chosen] != ["train", "test"]:
        note = f"note: {chosen[0].name}/ is for training, {chosen[1].name}/ for tests"
        print(f"{note}; left out: {rest}" if rest else note)
    return [(chosen[0], False), (chosen[1], True)]


def _files(folder: pathlib.Path, test: bool | None, others: list[str]) -> Iterator[File]:
    """Yields the images of each class in ``folder``, and adds other files' names to ``others``."""
    for entry in _entries(folder):
        if not entry.is_dir():
            others.append(_shown(entry.name))
            continue
        if not entry.name.isprintable():  # classes.txt has one name per line, in UTF-8
            raise UserError(f"{_shown(entry.path)}: the name of a class must be printable")
        found, folders = [], [entry]
        while folders:
            for inner in _entries(folders.pop()):
                path = pathlib.Path(inner)
                if inner.is_dir():
                    folders.append(inner)
                elif path.suffix.lower() in images.SUFFIXES:
                    found.append(path)
                else:
                    others.append(_shown(inner.name))
        if not found:
            raise UserError(f"{_shown(entry.path)} holds no image ({' '.join(images.SUFFIXES)})")
        yield from ((path, entry.name, test) for path in sorted(found))


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
            return f"{_shown(path)} ({error})"
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
        raise UserError(f"{_shown(folder)} has no {missing}: {reason}")
    rest = zlib.crc32(labels.data, zlib.crc32("\n".join(names).encode()))
    return Dataset(
        title="folder",
        source=_shown(folder),
        train_images=pixels[~tests],
        train_labels=labels[~tests],
        test_images=pixels[tests],
        test_labels=labels[tests],
        class_names=names,
        sum_of_rest=zlib.crc32(pixels[tests].data, zlib.crc32(tests.data, rest)),
    )


def _shown(path: str | os.PathLike) -> str:
    """Returns a name as it can be printed in one line."""
    text = os.fspath(path)
    return text if text.isprintable() else ascii(text)
