"""A run's folder: its lock, logs, summary, curves, scalars, checkpoints and models."""

import contextlib
import csv
import dataclasses
import functools
import importlib.util
import json
import os
import pathlib
import re
import sys
from collections.abc import Callable, Sequence

import keras
import tensorflow as tf
from tqdm import tqdm

from ..errors import UserError
from .checkpoints import Checkpoints, Progress, checkpoints_in
from .curves import draw
from .files import atomic_write, locked, remove_unfinished, sync_folder
from .settings import ROOT, Settings

RESULTS = ("model.keras", "folded.keras", "classes.txt")
# the newest run's files; without its checkpoints it cannot be resumed while the others are renamed
RENAMED = ("checkpoints", "metrics.csv", "curves.png", *RESULTS, "run.json")
COLUMNS = ("iteration", "learning_rate", "fit", "reg", "penalty", "acc", "test_acc", "seconds")


def _writing(write: Callable[..., None]) -> Callable[..., None]:
    """Makes ``write`` do nothing on a worker that does not write, and its errors UserErrors."""

    @functools.wraps(write)
    def guarded(self, *args, **kwargs) -> None:
        try:
            if self.writes:
                write(self, *args, **kwargs)
        except (OSError, tf.errors.OpError) as error:  # TensorBoard's are TensorFlow's
            reason = getattr(error, "strerror", None) or str(error).partition("\n")[0]
            reason += f" ({error.filename})" if getattr(error, "filename", None) else ""
            raise UserError(f"--log_dir={self.path} cannot be written: {reason}") from error

    return guarded


class RunFolder:
    """Keeps the files of a run in ``--log_dir``, and its lock as a context manager.

    `open` comes before any other method. All methods raise UserError if the folder cannot be
    written, and do nothing if not ``writes``: another worker then does.

    The number in ``log_train_NN.txt`` grows with each run, as in the original. The other files are
    those of the newest run; an earlier run's are kept under its number (``metrics_00.csv``).
    """

    def __init__(self, settings: Settings, writes: bool = True):
        self.settings, self.writes = settings, writes
        self.path = settings.log_dir or ROOT / settings.method / "log"
        self.history: list[dict] = []  # rows of metrics.csv that have a line in the logs
        self.facts: dict = {}  # the content of run.json
        self._warned = False  # that the curves cannot be drawn
        self._open = contextlib.ExitStack()

    def __enter__(self):
        if self.writes:
            self._open.enter_context(locked(self.path))
        return self

    @_writing  # closing a file writes what it still holds
    def __exit__(self, *_) -> None:
        self._open.close()

    def open(self, title: str, variables: Sequence, data: str, start: dict[str, float]) -> Progress:
        """Opens the logs; for a resumed run, restores the variables and returns its progress.

        Args:
            title, data: the heading of the curves, and an identity of the training images.
            variables: of the checkpoints (see `Checkpoints`).
            start: figures before iteration 0, the first row of metrics.csv; each test has them too.
        """
        settings, self.title = self.settings.result_settings() | {"data": data}, title
        self.checkpoints = Checkpoints(self.path / "checkpoints", variables, settings)
        progress = self.checkpoints.restore() if self.settings.resume else Progress()
        self._open_logs(progress, start)
        return progress

    @_writing
    def _open_logs(self, progress: Progress, start: dict[str, float]) -> None:
        remove_unfinished(self.path)
        remove_unfinished(self.checkpoints.folder)
        sizes = progress.logs
        self.number = sizes["number"] if sizes else self._keep_earlier()
        self.files = {}
        for key in ("train", "test", "metrics"):
            name = "metrics.csv" if key == "metrics" else f"log_{key}_{self.number:02d}.txt"
            file = (self.path / name).open("r+" if sizes else "x", encoding="utf-8", newline="")
            self.files[key] = self._open.enter_context(file)
            if file.seek(0, os.SEEK_END) < sizes.get(key, 0):
                raise UserError(f"{file.name} is shorter than it was at the checkpoint")
            file.seek(file.truncate(sizes.get(key, 0)))
        self.rows = csv.DictWriter(self.files["metrics"], (*COLUMNS, *start))
        self.scalars = None
        if importlib.util.find_spec("tensorboard"):
            folder = self.path / "tensorboard" / f"{self.number:02d}"
            self.scalars = tf.summary.create_file_writer(str(folder.absolute()))
        if not sizes:
            self.rows.writeheader()
            self.rows.writerow({"iteration": 0} | start)
            return
        self.checkpoints.prune(progress.iteration)
        with contextlib.suppress(OSError, ValueError, TypeError, RecursionError):  # damaged
            self.facts = {**json.loads((self.path / "run.json").read_text(encoding="utf-8"))}
        with (self.path / "metrics.csv").open(encoding="utf-8", newline="") as file:
            rows = [row for row in csv.DictReader(file) if row["seconds"]]
        self.history = [{name: float(value) for name, value in r.items() if value} for r in rows]

    def _keep_earlier(self) -> int:
        """Renames the last run's results by its number, where needed; returns the next number."""
        if checkpoints_in(self.checkpoints.folder):
            note = "note: starting from the beginning; the checkpoints that are in "
            print(f"{note}{self.path} are kept under their run's number")
        names = [re.fullmatch(r"[a-z_]+_(\d+)(\.\w+)?", path.name) for path in self.path.iterdir()]
        last = max((int(match[1]) for match in names if match), default=-1)
        here = [path for path in (self.path / name for name in RENAMED) if path.exists()]

        def kept(path: pathlib.Path) -> pathlib.Path:
            return path.with_stem(f"{path.stem}_{last:02d}")

        if here and (last < 0 or any(kept(path).exists() for path in here)):
            # their logs were deleted: a new number, so that no file is overwritten
            last += 1
        for path in here:
            path.rename(kept(path))
        sync_folder(self.path)
        return last + 1

    @_writing
    def describe(self, **facts) -> None:
        """Adds ``facts`` to run.json: settings, versions, results."""
        self.facts |= facts
        with atomic_write(self.path / "run.json") as unfinished:
            text = json.dumps(self.facts, indent=2, default=str) + "\n"
            unfinished.write_text(text, encoding="utf-8")

    def is_finished(self) -> bool:
        """Returns whether all results are there; run.json gets its result after the others."""
        return "test_accuracy" in self.facts and all((self.path / n).is_file() for n in RESULTS)

    @_writing
    def log(self, label: str, **row) -> None:
        """Logs a training batch, whose ``row`` has the columns of `COLUMNS` but test_acc."""
        line = f"===={label}: fit={row['fit']:.4f}, reg={row['reg']:.4f}, acc={row['acc']:.4f}"
        self._add(line, "train", row)

    @_writing
    def test(self, label: str, **row) -> None:
        """Logs a test, whose ``row`` has the figures given to `open` too, and draws the curves."""
        self._add(f"++++{label}: test acc={row['test_acc']:.4f}", "test", row)
        try:
            with atomic_write(self.path / "curves.png") as unfinished:
                draw(self.history, self.title, unfinished)
        except Exception as error:  # training is worth more than the image
            if not self._warned:
                reason = " ".join(str(error).split())[:200]
                print(f"warning: curves.png cannot be drawn: {reason}", file=sys.stderr)
            self._warned = True

    def _add(self, line: str, log: str, row: dict) -> None:
        tqdm.write(line)
        self.files[log].write(line + "\n")
        self.rows.writerow(row)
        for file in (self.files[log], self.files["metrics"]):
            file.flush()
        self.history.append(row)
        if self.scalars:
            with self.scalars.as_default(step=int(row["iteration"])):
                for name in row.keys() - {"iteration", "seconds"}:
                    label = name if "/" in name else f"train/{name}".replace("train/test_", "test/")
                    tf.summary.scalar(label, row[name])
            self.scalars.flush()

    @_writing
    def save(self, progress: Progress) -> None:
        """Writes a checkpoint, after the logs."""
        sizes = {"number": self.number}
        for key, file in self.files.items():
            file.flush()
            os.fsync(file.fileno())
            sizes[key] = os.path.getsize(file.name)
        self.checkpoints.save(dataclasses.replace(progress, logs=sizes))

    @_writing
    def save_results(
        self, model: keras.Model, folded: keras.Model, class_names: Sequence[str]
    ) -> None:
        """Writes model.keras, folded.keras and classes.txt."""
        lines = "".join(f"{name}\n" for name in class_names)
        writers = model.save, folded.save, lambda path: path.write_text(lines, encoding="utf-8")
        for name, write in zip(RESULTS, writers, strict=True):
            with atomic_write(self.path / name) as unfinished:
                write(unfinished)
