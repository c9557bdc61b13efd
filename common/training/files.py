"""A folder that one process writes into, and files that are never half written."""

import contextlib
import fcntl
import os
import pathlib
from collections.abc import Iterator
from typing import IO

from ..errors import UserError


@contextlib.contextmanager
def locked(folder: pathlib.Path) -> Iterator[None]:
    """Locks ``folder`` for this process; the folder is made if it is missing.

    The kernel releases the lock when the process ends, in whatever way it ends.

    Raises:
        UserError: if ``folder`` cannot be written, or another process holds it.
    """
    path, was_there = folder / "lock", folder.is_dir()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = path.open("a")
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        # another process may have deleted the file between the two lines above
        if os.fstat(file.fileno()).st_ino != path.stat().st_ino:
            raise BlockingIOError
    except BlockingIOError as error:
        raise UserError(
            f"another run is writing into --log_dir={folder}; give this one a folder of its own"
        ) from error
    except OSError as error:
        raise UserError(f"--log_dir={folder} cannot be written: {error.strerror}") from error
    with file:
        try:
            yield
        finally:
            # a run that was refused leaves no files
            if [entry.name for entry in folder.iterdir()] == ["lock"]:
                path.unlink()
                if not was_there:
                    folder.rmdir()


@contextlib.contextmanager
def whole(path: pathlib.Path, hint: str = "") -> Iterator[IO[bytes]]:
    """Yields a file that takes the name ``path`` after the block: it is complete or not there.

    Raises:
        UserError: if it cannot be written, with ``hint`` at the end. What was there stays.
    """
    written = path.with_suffix(".tmp")
    try:
        path.parent.mkdir(exist_ok=True)
        with written.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        written.replace(path)
        folder = os.open(path.parent, os.O_RDONLY)
        os.fsync(folder)  # so that the new name is on the disk too
        os.close(folder)
    except OSError as error:
        with contextlib.suppress(OSError):
            written.unlink()
        reason = error.strerror or error
        raise UserError(f"{path} cannot be written: {reason}{hint}") from error
