"""Checkpoints: all that a run needs to continue bit for bit.

A checkpoint is one NumPy ``.npz`` file: every weight of the model, every variable of the optimizer
and, in ``facts``, settings and progress as JSON, each with the zip format's checksum. Random draws
are functions of seed and iteration, so no state of a generator is needed.
"""

import contextlib
import dataclasses
import json
import pathlib
import re
import sys
from collections.abc import Sequence

import numpy as np

from ..errors import UserError
from .command_line import as_text
from .files import atomic_write
from .texts import shown

KEPT = 2
_NAME = re.compile(r"checkpoint_(\d{8,12})\.npz")


@dataclasses.dataclass(frozen=True)
class Progress:
    """How far a run has come."""

    iteration: int = 0
    seconds: float = 0.0
    test_accuracy: float = -1.0  # of the last test
    logs: dict[str, int] = dataclasses.field(default_factory=dict)  # number, and sizes in bytes


def checkpoints_in(folder: pathlib.Path) -> list[tuple[int, pathlib.Path]]:
    """Returns iteration and path of each checkpoint in ``folder``, the newest first."""
    paths = folder.iterdir() if folder.is_dir() else ()
    named = [(_NAME.fullmatch(path.name), path) for path in paths]
    return sorted([(int(m[1]), path) for m, path in named if m], reverse=True)


class Checkpoints:
    """The checkpoints of a run in ``folder``.

    It continues from one with the same Keras ``variables``, in this order, and ``settings``.
    """

    good: pathlib.Path | None = None  # the one that was saved or restored last

    def __init__(self, folder: pathlib.Path, variables: Sequence, settings: dict[str, object]):
        self.folder, self.variables, self.settings = folder, list(variables), settings

    def save(self, progress: Progress) -> pathlib.Path:
        """Writes a checkpoint, deletes those that it replaces, and returns its path.

        Raises:
            UserError: if it cannot be written, or a weight is not finite. Earlier checkpoints stay.
        """
        arrays = {f"{i:04d}": variable.numpy() for i, variable in enumerate(self.variables)}
        if not all(np.isfinite(array).all() for array in arrays.values()):
            last = progress.iteration - 1
            raise UserError(f"after iteration {last} a weight is not finite{self.how_to_go_on()}")
        facts = {"settings": self.settings, "progress": vars(progress)}
        path = self.folder / f"checkpoint_{progress.iteration:08d}.npz"
        with atomic_write(path, self.how_to_go_on()) as unfinished:
            np.savez(unfinished, facts=json.dumps(facts, default=str), **arrays)
        self.good = path
        self.prune(progress.iteration)
        return path

    def prune(self, iteration: int) -> None:
        """Deletes the checkpoints that those up to ``iteration`` replace.

        Those of later iterations are damaged: otherwise the run would have continued from them.
        """
        for path in [path for i, path in checkpoints_in(self.folder) if i <= iteration][KEPT:]:
            with contextlib.suppress(OSError):
                path.unlink()

    def how_to_go_on(self) -> str:
        """Returns what to add to the message that ends a run."""
        if not self.good:
            return "; there is no checkpoint"
        return f"; the last good checkpoint is {self.good}, and --resume goes on from it"

    def restore(self) -> Progress:
        """Sets the variables from the newest valid checkpoint, and returns its run's progress.

        Damaged checkpoints are named on stderr.

        Raises:
            UserError: if there is no valid checkpoint, or its settings differ.
        """
        for _, path in checkpoints_in(self.folder):
            try:
                progress, arrays = self._read(path)
            except UserError:
                raise
            except Exception as error:  # a damaged file makes the readers raise anything
                reason = shown(error, 100) or type(error).__name__
                warning = f"warning: {path} is damaged ({reason}); trying the one before it"
                print(warning, file=sys.stderr)
                continue
            for variable, array in zip(self.variables, arrays, strict=True):
                variable.assign(array)
            self.good = path
            return progress
        raise UserError(f"--resume: there is no valid checkpoint in {self.folder}")

    def _read(self, path: pathlib.Path) -> tuple[Progress, list[np.ndarray]]:
        if not path.is_file():
            raise ValueError("it is not a file")  # reading a pipe might never end
        with np.load(path, allow_pickle=False) as file:
            # packed members could take far more memory than the file
            if sum(member.file_size for member in file.zip.infolist()) > path.stat().st_size:
                raise ValueError("its members are packed")
            facts = json.loads(str(file["facts"]))
            for name in self.settings | facts["settings"]:
                there, here = (as_text(s.get(name)) for s in (facts["settings"], self.settings))
                if there != here:
                    other = f"is of {name} {there}, and this run of {name} {here}"
                    raise UserError(f"--resume: {path} {other}")
            arrays = [file[f"{i:04d}"] for i in range(len(self.variables))]
        for variable, array in zip(self.variables, arrays, strict=True):
            if (array.shape, array.dtype) != (tuple(variable.shape), np.dtype(variable.dtype)):
                raise ValueError(f"{array.dtype}{array.shape} is not of {variable.path}")
        return Progress(**facts["progress"]), arrays
