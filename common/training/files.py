"""A folder that one process writes into, and files that are complete or not there."""

import contextlib
import errno
import fcntl
import os
import pathlib
import sys
from collections.abc import Iterator
from typing import IO

from ..errors import UserError

# the errors of a file system that lacks locks, or that cannot sync a folder
_LACKS = {errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP, errno.EINVAL}
_UNFINISHED = ".unfinished_"  # in front of the name, since Keras goes by the suffix


@contextlib.contextmanager
def locked(folder: pathlib.Path) -> Iterator[None]:
    """Locks ``folder``, made if missing, until the block or the process ends; or prints a warning.

    Raises:
        UserError: if ``folder`` cannot be written, or another process holds it.
    """
    path, was_there = folder / "lock", folder.is_dir()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = path.open("a", encoding="utf-8")
        _lock(file, path)
    except BlockingIOError as error:
        other = f"another run is writing into --log_dir={folder}; give this one another folder"
        raise UserError(other) from error
    except OSError as error:
        raise UserError(f"--log_dir={folder} cannot be written: {error.strerror}") from error
    with file:
        try:
            yield
        finally:
            # a run that was refused leaves no files; the folder itself may have been deleted
            if folder.is_dir() and os.listdir(folder) == ["lock"]:
                path.unlink()
                if not was_there:
                    folder.rmdir()


def _lock(file: IO, path: pathlib.Path) -> None:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno not in _LACKS:
            raise
        warning = f"warning: {path.parent} cannot be locked ({error.strerror}); "
        warning += "do not start another run there before this one ends"
        print(warning, file=sys.stderr)
    # another process may have deleted the file before it was locked
    if os.fstat(file.fileno()).st_ino != path.stat().st_ino:
        raise BlockingIOError


def sync_folder(folder: pathlib.Path) -> None:
    """Writes the names of the files in ``folder`` to the disk, where its file system can do it."""
    try:
        number = os.open(folder, os.O_RDONLY)
    except PermissionError:  # a parent folder that this user may use and not list
        return
    try:
        os.fsync(number)
    except OSError as error:
        if error.errno not in _LACKS:
            raise
    finally:
        os.close(number)


@contextlib.contextmanager
def atomic_write(path: pathlib.Path, hint: str = "") -> Iterator[pathlib.Path]:
    """Yields the path of a file that is renamed to ``path`` after the block, so never incomplete.

    Its folder is made if it is missing.

    Raises:
        UserError: if it cannot be written, with ``hint`` at the end. An earlier file stays.
    """
    unfinished = path.with_name(_UNFINISHED + path.name)
    try:
        path.parent.mkdir(exist_ok=True)
        yield unfinished
        with unfinished.open("rb") as file:
            os.fsync(file.fileno())
        unfinished.replace(path)
        for folder in path.absolute().parents[:2]:  # the folder itself may be new
            sync_folder(folder)
    except BaseException as error:
        with contextlib.suppress(OSError):
            unfinished.unlink()
        if not isinstance(error, OSError):
            raise
        raise UserError(f"{path} cannot be written: {error.strerror or error}{hint}") from error


def remove_unfinished(folder: pathlib.Path) -> None:
    """Deletes what `atomic_write` left in ``folder`` when its process was killed."""
    for path in filter(pathlib.Path.is_file, folder.glob(f"{_UNFINISHED}*")):
        path.unlink()
