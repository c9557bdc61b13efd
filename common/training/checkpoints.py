"""Checkpoints: all that a run needs to continue bit for bit.

A checkpoint is one NumPy ``.npz`` file, which is either complete or not there. It holds every
weight of the model, every variable of the optimizer and, in its member ``facts.json``, what else a
run has to know. Each member has a checksum. The order of the images, their augmentation and S-OPT's
rows are functions of seed and iteration, so no state of a random generator is needed.
"""

import contextlib
import dataclasses
import fcntl
import json
import math
import os
import pathlib
import re
import sys
import zipfile
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from ..errors import UserError
from . import collapse

VERSION = 2  # of facts.json
KEPT = 2  # how many regular checkpoints are kept; the best one is kept too
_NAME = re.compile(r"(checkpoint|best)_(\d{8,12})\.npz")
_LOGS = {"number", "train", "test", "metrics"}  # the keys of Report.sizes


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


@dataclasses.dataclass(frozen=True)
class Progress:
    """How far a run has come.

    Attributes:
        iteration: number of training steps done.
        seconds: time that they took.
        test_accuracy: of the last test, if there was one.
        best_accuracy: of all tests so far; -1 before the first.
        logs: number of the run's log files, and the size of each in bytes.
        collapse: what collapse.Watch keeps.

    Raises:
        ValueError: if a value is impossible.
    """

    iteration: int = 0
    seconds: float = 0.0
    test_accuracy: float | None = None
    best_accuracy: float = -1.0
    logs: dict[str, int] = dataclasses.field(default_factory=dict)
    collapse: dict[str, Any] = dataclasses.field(default_factory=lambda: dict(collapse.START))

    def __post_init__(self):
        counts = [self.iteration, *self.logs.values()]
        figures = [
            self.seconds,
            self.best_accuracy + 1,
            0.0 if self.test_accuracy is None else self.test_accuracy,
        ]
        if not all(type(n) is int and n >= 0 for n in counts) or not all(
            type(x) is float and 0 <= x < math.inf for x in figures
        ):
            raise ValueError("it does not say how far the run had come")
        collapse.Watch.check(self.collapse)


class Checkpoints:
    """The checkpoints of a run.

    Args:
        folder: where the checkpoints are; it is made with the first one.
        variables: Keras variables, the same in the same order at every start of the run.
        settings: by name, what must be equal for the run to continue from a checkpoint.
        before: the value of a setting in runs whose checkpoints do not name it.
    """

    def __init__(
        self,
        folder: pathlib.Path,
        variables: Sequence,
        settings: dict[str, object],
        before: dict[str, object] | None = None,
    ):
        self.before = before or {}
        self.folder, self.variables = folder, list(variables)
        self.good: pathlib.Path | None = None  # the one saved or restored last
        self.settings = json.loads(
            json.dumps(settings, default=str)
        )  # in the form in which they are read back

    def newest(self) -> pathlib.Path | None:
        """Returns the checkpoint with the most iterations, damaged or not."""
        return next(iter(self._found()), None)

    def _found(self, *kinds: str) -> list[pathlib.Path]:
        found = self.folder.iterdir() if self.folder.is_dir() else ()
        named = [
            (int(m[2]), path)
            for path in found
            if (m := _NAME.fullmatch(path.name)) and (not kinds or m[1] in kinds)
        ]
        return [path for _, path in sorted(named, reverse=True)]

    def save(self, progress: Progress, kind: str = "checkpoint") -> pathlib.Path:
        """Writes a checkpoint and then deletes those of its kind that it replaces.

        Args:
            progress: how far the run has come.
            kind: "checkpoint" or "best".

        Returns:
            The checkpoint's path.

        Raises:
            UserError: if it cannot be written, or a weight is not finite. Earlier checkpoints stay.
        """
        arrays = {
            f"{i:04d}": np.asarray(variable.numpy(), order="C")
            for i, variable in enumerate(self.variables)
        }
        if not all(np.isfinite(array).all() for array in arrays.values()):
            raise UserError(
                f"after iteration {progress.iteration - 1} a weight is not finite"
                f"{self.how_to_go_on()}"
            )
        facts = json.dumps(
            {
                "version": VERSION,
                "settings": self.settings,
                "progress": dataclasses.asdict(progress),
            }
        )
        path = self.folder / f"{kind}_{progress.iteration:08d}.npz"
        written = path.with_suffix(".tmp")
        try:
            self.folder.mkdir(exist_ok=True)
            with written.open("wb") as file:
                with zipfile.ZipFile(file, "w") as archive:
                    archive.writestr("facts.json", facts)
                    for name, array in arrays.items():
                        with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                            np.lib.format.write_array(
                                member, array, version=(1, 0), allow_pickle=False
                            )
                file.flush()
                os.fsync(file.fileno())
            written.replace(path)
            folder = os.open(self.folder, os.O_RDONLY)
            os.fsync(folder)  # so that the new name is on the disk too
            os.close(folder)
        except OSError as error:
            with contextlib.suppress(OSError):
                written.unlink()
            raise UserError(
                f"{path} cannot be written: {error.strerror or error}{self.how_to_go_on()}"
            ) from error
        self.good = path
        # those of later iterations are damaged: otherwise the run would have continued from them
        earlier = [old for old in self._found(kind) if _iteration(old) <= progress.iteration]
        for old in earlier[KEPT if kind == "checkpoint" else 1 :]:
            with contextlib.suppress(OSError):
                old.unlink()
        return path

    def how_to_go_on(self) -> str:
        """Returns what to add to the message that ends a run."""
        good = self.good
        return (
            f"; the last good checkpoint is {good}, and --resume goes on from it"
            if good
            else "; there is no checkpoint"
        )

    def restore(self) -> Progress:
        """Sets the variables from the newest checkpoint that is not damaged.

        Damaged checkpoints are named on stderr.

        Returns:
            How far that run had come.

        Raises:
            UserError: if there is no such checkpoint, or its settings differ.
        """
        for path in self._found():
            try:
                facts, arrays = _read(
                    path,
                    [(variable.shape, variable.dtype) for variable in self.variables],
                    self._check,
                )
            except _Unsound as error:
                print(
                    f"warning: {path} is damaged ({error}); trying the one before it",
                    file=sys.stderr,
                )
                continue
            for variable, array in zip(self.variables, arrays, strict=True):
                variable.assign(array)
            self.good = path
            return Progress(**facts["progress"])
        what = "no sound checkpoint" if self.newest() else "no checkpoint"
        raise UserError(f"--resume: there is {what} in {self.folder}")

    def _check(self, path: pathlib.Path, settings: dict) -> None:
        for name in self.settings | settings:
            there, here = settings.get(name, self.before.get(name)), self.settings.get(name)
            if there != here:
                raise UserError(
                    f"--resume: {path} is of {name} {_words(there)}, "
                    f"and this run of {name} {_words(here)}"
                )


def _iteration(path: pathlib.Path) -> int:
    return int(path.stem.rpartition("_")[2])


def _words(value: object) -> str:
    return ",".join(map(str, value)) if isinstance(value, list) else str(value)


class _Unsound(Exception):  # noqa: N818 (an adjective: it describes the file)
    """A file that `Checkpoints.save` did not write, or that is damaged; the message says why."""


def _read(path: pathlib.Path, expected: Sequence[tuple], check) -> tuple[dict, list[np.ndarray]]:
    """Returns the facts and the arrays of a checkpoint.

    The file may hold anything. ``check`` is called with the path and the settings before the arrays
    are read.
    """
    try:
        if not path.is_file():
            raise _Unsound("it is no file")  # reading a pipe or a device might never end
        with zipfile.ZipFile(path) as archive:
            # members must be stored, not compressed: then a small file cannot unpack to a large one
            members = archive.infolist()
            claimed = sum(member.file_size for member in members)
            if (
                any(m.compress_type != zipfile.ZIP_STORED for m in members)
                or claimed > path.stat().st_size
            ):
                raise _Unsound("its members are not stored")
            facts = json.loads(archive.read("facts.json"))
            check(path, facts["settings"])
            if "version" not in facts:  # written before runs watched for a collapse
                facts["progress"] = {"collapse": dict(collapse.START)} | facts["progress"]
            progress = dataclasses.asdict(Progress(**facts["progress"]))
            if facts.get("version", VERSION) != VERSION:
                raise _Unsound(f"it is of version {facts['version']}")
            if progress.keys() != facts["progress"].keys() or progress["logs"].keys() != _LOGS:
                raise _Unsound("it does not say how far the run had come")
            arrays = [_array(archive, f"{i:04d}.npy", *like) for i, like in enumerate(expected)]
    except (UserError, _Unsound):
        raise
    except Exception as error:  # damaged files make the zip, npy and JSON readers raise anything
        raise _Unsound(" ".join(str(error).split())[:100] or type(error).__name__) from error
    return facts, arrays


def _array(archive: zipfile.ZipFile, name: str, shape: Sequence[int], dtype: str) -> np.ndarray:
    with archive.open(name) as member:
        version = np.lib.format.read_magic(member)
        found = np.lib.format.read_array_header_1_0(member) if version == (1, 0) else None
        # checked before memory is allocated: the header may claim any size
        if found != (tuple(shape), False, np.dtype(dtype)):
            raise _Unsound(f"{name} is not {dtype}{list(shape)}")
        content = member.read()  # to the end, because the checksum is compared there
    return np.frombuffer(content, dtype).reshape(shape)
