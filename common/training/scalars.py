"""TensorBoard's scalars of a run, where TensorBoard is installed."""

import contextlib
import importlib.util
import pathlib
import shutil
from collections.abc import Iterator, Sequence

import tensorflow as tf

from ..errors import UserError


class Scalars:
    """Writes rows of metrics.csv as train/fit, test/acc, energy/conv1_0 and so on.

    Args:
        folder: where the event files are.
        rows: those of a run that is resumed, whose files are written again from the start, since
            they cannot be cut back; None for a new run.

    Raises:
        UserError: if they cannot be written; `add` too.
    """

    def __init__(self, folder: pathlib.Path, rows: Sequence[dict] | None):
        self.folder, self.writer = folder.absolute(), None
        if importlib.util.find_spec("tensorboard"):
            if rows is not None:
                shutil.rmtree(self.folder, ignore_errors=True)
            with self._one_line():
                self.writer = tf.summary.create_file_writer(str(self.folder))
        for row in rows or ():
            self.add(row)

    def add(self, row: dict[str, float]) -> None:
        """Writes a row."""
        if self.writer is None:
            return
        with self._one_line(), self.writer.as_default():
            for name in set(row) - {"iteration", "seconds"}:
                label = name if "/" in name else f"train/{name}".replace("train/test_", "test/")
                tf.summary.scalar(label, row[name], step=int(row["iteration"]))
            self.writer.flush()

    @contextlib.contextmanager
    def _one_line(self) -> Iterator[None]:
        try:
            yield
        except tf.errors.OpError as error:
            reason = error.message.splitlines()[0].rpartition("; ")[2]
            raise UserError(f"{self.folder} cannot be written: {reason}") from error
