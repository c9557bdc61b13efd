"""A run's folder: its lock, logs, checkpoints, models and summary behind one object."""

import contextlib
import dataclasses
from collections.abc import Iterator, Sequence

import keras

from ..errors import UserError
from .checkpoints import Checkpoints, Progress, locked
from .reporting import Report
from .settings import BEFORE, Settings


class RunFolder:
    """Keeps the files of a run in ``--log_dir``. On a worker that does not write it does nothing.

    As a context manager it holds the folder's lock. Call `open` before any other method.

    Args:
        settings: of the run.
        writes: whether this process is the one that writes.
    """

    def __init__(self, settings: Settings, writes: bool = True):
        self.settings, self.path, self.writes = settings, settings.log_dir, writes
        self.report: Report | None = None
        self._stack = contextlib.ExitStack()

    def __enter__(self):
        if self.writes:
            self._stack.enter_context(locked(self.path))
        return self

    def __exit__(self, *_) -> None:
        if self.report:
            self.report.close()
        self._stack.close()

    def open(self, title: str, variables: Sequence, data: str, columns: Sequence[str]) -> Progress:
        """Restores the variables if the run is to be resumed, and opens the logs.

        Args:
            title: the heading of the curves.
            variables: all that a checkpoint holds, the same in the same order at every start.
            data: what identifies the training images.
            columns: of metrics.csv, in addition to the usual ones.

        Returns:
            How far the run has come.

        Raises:
            UserError: if there is nothing to resume, or the folder cannot be written.
        """
        # "pictures" is its name in existing checkpoints
        alike = self.settings.result_settings() | {"pictures": data}
        self.checkpoints = Checkpoints(self.path / "checkpoints", variables, alike, BEFORE)
        resume = self.settings.resume
        progress = self.checkpoints.restore() if resume else Progress()
        if self.writes:
            if self.checkpoints.newest() and not resume:
                print(
                    f"note: starting anew; the checkpoints that are in {self.path} "
                    "are kept under their run's number"
                )
            sizes = progress.logs if resume else None
            self.report = Report(self.path, title, columns, sizes)
        return progress

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        """Turns a disk error into one line that names the folder."""
        try:
            yield
        except OSError as error:
            reason = error.strerror or error
            raise UserError(f"--log_dir={self.path} cannot be written: {reason}") from error

    def describe(self, **facts) -> None:
        """Adds ``facts`` to run.json."""
        if self.report:
            self.report.describe(**facts)

    def note(self, **row) -> None:
        """Writes a row of metrics.csv that has no line in the logs."""
        if self.report:
            with self._writing():
                self.report.note(**row)

    def log(self, label: str, **row) -> None:
        """Logs a training batch."""
        if self.report:
            with self._writing():
                self.report.train(label, **row)

    def test(self, label: str, **row) -> None:
        """Logs a test and draws the curves."""
        if self.report:
            with self._writing():
                self.report.test(label, **row)

    def save(self, progress: Progress, kind: str = "checkpoint") -> None:
        """Writes a checkpoint of ``kind`` "checkpoint" or "best"."""
        if self.report:
            with self._writing():
                logs = self.report.sizes()
                self.checkpoints.save(dataclasses.replace(progress, logs=logs), kind)

    def save_models(
        self, model: keras.Model, folded: keras.Model, class_names: Sequence[str]
    ) -> None:
        """Writes model.keras, folded.keras and classes.txt."""
        if self.report:
            with self._writing():
                model.save(self.path / "model.keras")
                folded.save(self.path / "folded.keras")
                (self.path / "classes.txt").write_text("\n".join(class_names) + "\n", "utf-8")

    def how_to_go_on(self) -> str:
        """Returns what to add to the message that ends a run."""
        return self.checkpoints.how_to_go_on()
