"""Checkpoints: all that a run needs to continue bit for bit.

A checkpoint is one NumPy ``.npz`` file, which is either complete or not there. It holds every
weight of the model, every variable of the optimizer and, in its member ``facts.json``, what else a
run has to know. Each member has a checksum. The order of the images, their augmentation and S-OPT's
rows are functions of seed and iteration, so no state of a random generator is needed.
"""

import contextlib
import dataclasses
import json
import math
import pathlib
import re
import sys
import zipfile
from collections.abc import Sequence
from typing import Any

import numpy as np

from ..errors import UserError
from . import collapse
from .files import atomic_write

KEPT = {"checkpoint": 2, "best": 1}  # how many of each kind are kept
_NAME = re.compile(r"(checkpoint|best)_(\d{8,12})\.npz")
_LOGS = {"number", "train", "test", "metrics"}  # the keys of RunFolder.sizes


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
        tested = 0.0 if self.test_accuracy is None else self.test_accuracy
        figures = [self.seconds, self.best_accuracy + 1, tested]
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
    """

    def __init__(self, folder: pathlib.Path, variables: Sequence, settings: dict[str, object]):
        self.folder, self.variables = folder, list(variables)
        self.good: pathlib.Path | None = None  # the one saved or restored last
        # as JSON returns them
        self.settings = json.loads(json.dumps(settings, default=str))

    def found(self) -> list[tuple[int, str, pathlib.Path]]:
        """Returns iteration, kind and path of each checkpoint, damaged or not; the newest first."""
        paths = self.folder.iterdir() if self.folder.is_dir() else ()
        named = [(_NAME.fullmatch(path.name), path) for path in paths]
        return sorted([(int(m[2]), m[1], path) for m, path in named if m], reverse=True)

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
        facts = {"settings": self.settings, "progress": vars(progress)}
        path = self._path(progress.iteration, kind)
        with (
            atomic_write(path, self.how_to_go_on()) as unfinished,
            zipfile.ZipFile(unfinished, "w") as archive,
        ):
            archive.writestr("facts.json", json.dumps(facts))
            for name, array in arrays.items():
                with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                    np.lib.format.write_array(member, array, version=(1, 0), allow_pickle=False)
        self.good = path
        self.prune(progress.iteration)
        return path

    def prune(self, iteration: int) -> None:
        """Deletes the checkpoints that those up to ``iteration`` replace.

        Those of later iterations are damaged: otherwise the run would have continued from them.
        """
        for kind, kept in KEPT.items():
            earlier = [path for i, k, path in self.found() if k == kind and i <= iteration]
            for path in earlier[kept:]:
                with contextlib.suppress(OSError):
                    path.unlink()

    def has(self, iteration: int, kind: str = "checkpoint") -> bool:
        """Returns whether the one saved or restored last is this one."""
        return self.good == self._path(iteration, kind)

    def _path(self, iteration: int, kind: str) -> pathlib.Path:
        return self.folder / f"{kind}_{iteration:08d}.npz"

    def how_to_go_on(self) -> str:
        """Returns what to add to the message that ends a run."""
        if not self.good:
            return "; there is no checkpoint"
        return f"; the last good checkpoint is {self.good}, and --resume goes on from it"

    def restore(self) -> Progress:
        """Sets the variables from the newest checkpoint that is not damaged.

        Damaged checkpoints are named on stderr.

        Returns:
            How far that run had come.

        Raises:
            UserError: if there is no such checkpoint, or its settings differ.
        """
        found = self.found()
        for *_, path in found:
            try:
                progress, arrays = self._read(path)
            except _Unsound as error:
                print(
                    f"warning: {path} is damaged ({error}); trying the one before it",
                    file=sys.stderr,
                )
                continue
            for variable, array in zip(self.variables, arrays, strict=True):
                variable.assign(array)
            self.good = path
            return progress
        what = "no sound checkpoint" if found else "no checkpoint"
        raise UserError(f"--resume: there is {what} in {self.folder}")

    def _read(self, path: pathlib.Path) -> tuple[Progress, list[np.ndarray]]:
        """Returns what a checkpoint holds; the file may hold anything."""
        try:
            if not path.is_file():
                raise _Unsound("it is no file")  # reading a pipe or a device might never end
            with zipfile.ZipFile(path) as archive:
                # stored members only: then a small file cannot unpack to a large one
                members = archive.infolist()
                stored = all(m.compress_type == zipfile.ZIP_STORED for m in members)
                if not stored or sum(m.file_size for m in members) > path.stat().st_size:
                    raise _Unsound("its members are not stored")
                facts = json.loads(archive.read("facts.json"))
                self._check_settings(path, facts["settings"])
                progress = Progress(**facts["progress"])
                if (
                    vars(progress).keys() != facts["progress"].keys()
                    or progress.logs.keys() != _LOGS
                ):
                    raise _Unsound("it does not say how far the run had come")
                return progress, [
                    _array(archive, f"{i:04d}.npy", variable.shape, variable.dtype)
                    for i, variable in enumerate(self.variables)
                ]
        except (UserError, _Unsound):
            raise
        except (
            Exception
        ) as error:  # damaged files make the zip, npy and JSON readers raise anything
            raise _Unsound(" ".join(str(error).split())[:100] or type(error).__name__) from error

    def _check_settings(self, path: pathlib.Path, settings: dict) -> None:
        def words(value: object) -> str:
            return ",".join(map(str, value)) if isinstance(value, list) else str(value)

        for name in self.settings | settings:
            there, here = settings.get(name), self.settings.get(name)
            if there != here:
                raise UserError(
                    f"--resume: {path} is of {name} {words(there)}, "
                    f"and this run of {name} {words(here)}"
                )


class _Unsound(Exception):  # noqa: N818 (an adjective: it describes the file)
    """A file that `Checkpoints.save` did not write, or that is damaged; the message says why."""


def _array(archive: zipfile.ZipFile, name: str, shape: Sequence[int], dtype: str) -> np.ndarray:
    with archive.open(name) as member:
        version = np.lib.format.read_magic(member)
        found = np.lib.format.read_array_header_1_0(member) if version == (1, 0) else None
        # checked before memory is allocated: the header may claim any size
        if found != (tuple(shape), False, np.dtype(dtype)):
            raise _Unsound(f"{name} is not {dtype}{list(shape)}")
        content = member.read()  # to the end, because the checksum is compared there
    return np.frombuffer(content, dtype).reshape(shape)
