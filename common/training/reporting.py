"""A run's logs: the original's lines, metrics.csv, curves.png, run.json, TensorBoard's scalars."""

import contextlib
import csv
import importlib.metadata
import importlib.util
import json
import os
import pathlib
import platform
import re
import shutil
import subprocess
from collections.abc import Iterator, Sequence

import keras
import numpy as np
import tensorflow as tf
from tqdm import tqdm

from ..errors import UserError

# the newest run's files
KEPT = (
    "metrics.csv",
    "curves.png",
    "model.keras",
    "folded.keras",
    "classes.txt",
    "run.json",
    "checkpoints",
)
COLUMNS = ("iteration", "learning_rate", "fit", "reg", "penalty", "acc", "test_acc", "seconds")


class Report:
    """Writes one run's results into a folder that exists.

    The number in ``log_train_NN.txt`` and ``log_test_NN.txt`` grows with each run, as in the
    original. The other files are those of the newest run; those of the run before it are kept under
    its number (``metrics_00.csv``).

    Args:
        folder: where the files go.
        title: the heading of the curves.
        extra: columns of metrics.csv in addition to `COLUMNS`.
        sizes: for a run that is resumed, what `sizes` returned: its files are cut back to these
            sizes and continued.

    Raises:
        UserError: if ``folder`` cannot be written, or its files are not those of ``sizes``.
    """

    def __init__(
        self,
        folder: pathlib.Path,
        title: str,
        extra: Sequence[str] = (),
        sizes: dict[str, int] | None = None,
    ):
        self.folder, self.title, self.columns = folder.absolute(), title, (*COLUMNS, *extra)
        self.history: list[dict] = []
        self.facts: dict = _read_facts(folder / "run.json") if sizes else {}
        try:
            self.number = sizes["number"] if sizes else self._keep_earlier()
            names = {
                "train": f"log_train_{self.number:02d}.txt",
                "test": f"log_test_{self.number:02d}.txt",
                "metrics": "metrics.csv",
            }
            self.files = {
                key: (folder / name).open("r+" if sizes else "x", newline="")
                for key, name in names.items()
            }
            if sizes:
                for key, file in self.files.items():
                    if file.seek(0, os.SEEK_END) < sizes[key]:
                        raise UserError(f"{file.name} is shorter than it was at the checkpoint")
                    file.truncate(sizes[key])
                    file.seek(sizes[key])
        except OSError as error:
            raise UserError(
                f"--log_dir={folder}: {error.filename} cannot be written: {error.strerror}"
            ) from error
        self.rows = csv.DictWriter(self.files["metrics"], self.columns)
        if sizes:
            with (folder / "metrics.csv").open(newline="") as file:
                rows = [
                    {name: float(value) for name, value in row.items() if value}
                    for row in csv.DictReader(file)
                ]
            self.history = [row for row in rows if "seconds" in row]
        else:
            self.rows.writeheader()
        self.scalars = None
        if importlib.util.find_spec("tensorboard"):
            with self._tensorboard() as path:
                # event files cannot be cut back: they are written again from the start
                if sizes and os.path.isdir(path):
                    shutil.rmtree(path)
                self.scalars = tf.summary.create_file_writer(path)
            for row in self.history:
                self._add_scalars(row)

    @contextlib.contextmanager
    def _tensorboard(self) -> Iterator[str]:
        """Yields the folder of the scalars; turns TensorFlow's errors about it into a UserError."""
        path = self.folder / "tensorboard" / f"{self.number:02d}"
        try:
            yield str(path)
        except tf.errors.OpError as error:
            raise UserError(
                f"{path} cannot be written: {error.message.splitlines()[0].rpartition('; ')[2]}"
            ) from error

    def _keep_earlier(self) -> int:
        """Renames the results of the run before by its number, and returns the next number."""
        names = [
            re.fullmatch(r"([a-z_]+)_(\d+)(\.\w+)?", path.name) for path in self.folder.iterdir()
        ]
        numbers = {int(m[2]) for m in names if m}
        kept = {int(m[2]) for m in names if m and not m[1].startswith("log_")}
        last = max(numbers, default=-1)
        here = [path for path in (self.folder / name for name in KEPT) if path.exists()]
        if here and (last < 0 or last in kept):
            # their logs were deleted: a new number, so that no file is overwritten
            last += 1
        for path in here:
            path.rename(path.with_stem(f"{path.stem}_{last:02d}"))
        return last + 1

    def sizes(self) -> dict[str, int]:
        """Returns the run's number and its files' sizes, after they were flushed to the disk."""
        for file in self.files.values():
            file.flush()
            os.fsync(file.fileno())
        return {
            "number": self.number,
            **{key: os.path.getsize(file.name) for key, file in self.files.items()},
        }

    def describe(self, **facts) -> None:
        """Adds ``facts`` to run.json: settings, versions, results. The file is always complete."""
        self.facts |= facts
        path = self.folder / "run.json"
        try:
            path.with_suffix(".tmp").write_text(
                json.dumps(self.facts, indent=2, default=str) + "\n"
            )
            path.with_suffix(".tmp").replace(path)
        except OSError as error:
            with contextlib.suppress(OSError):
                path.with_suffix(".tmp").unlink()
            raise UserError(f"{path} cannot be written: {error.strerror}") from error

    def note(self, **row) -> None:
        """Writes a row of metrics.csv that has no line in the logs."""
        self.rows.writerow(row)

    def train(self, label: str, **row) -> None:
        """Logs a training batch.

        ``row`` has iteration, learning_rate, fit, reg, penalty, acc and seconds.
        """
        line = f"===={label}: fit={row['fit']:.4f}, reg={row['reg']:.4f}, acc={row['acc']:.4f}"
        self._write(line, "train", row)

    def test(self, label: str, **row) -> None:
        """Logs a test and draws the curves again.

        ``row`` has iteration, test_acc, seconds and the extra columns.
        """
        self._write(f"++++{label}: test acc={row['test_acc']:.4f}", "test", row)
        self.draw()

    def _write(self, line: str, log: str, row: dict) -> None:
        tqdm.write(line)
        self.files[log].write(line + "\n")
        self.rows.writerow(row)
        for file in (self.files[log], self.files["metrics"]):
            file.flush()
        self.history.append(row)
        self._add_scalars(row)

    def _add_scalars(self, row: dict) -> None:
        """Writes a row for TensorBoard: train/fit, test/acc, energy/conv1_0 and so on."""
        if self.scalars is None:
            return
        names = {"test_acc": "test/acc"} | {
            name: f"train/{name}" for name in COLUMNS if name != "test_acc"
        }
        with self._tensorboard(), self.scalars.as_default():
            for name in set(row) - {"iteration", "seconds"}:
                tf.summary.scalar(names.get(name, name), row[name], step=int(row["iteration"]))
            self.scalars.flush()

    def draw(self) -> pathlib.Path:
        """Draws loss and error against iterations and returns the image's path."""
        from matplotlib.figure import Figure

        figure = Figure(figsize=(10, 4), layout="constrained")
        loss, error = figure.subplots(1, 2)

        def curve(axes, name: str, transform=float, **style) -> None:
            rows = [row for row in self.history if name in row]
            if rows:
                axes.plot(
                    [row["iteration"] for row in rows],
                    [transform(row[name]) for row in rows],
                    **style,
                )

        curve(loss, "fit", color="tab:blue", label="training batch", lw=1)
        curve(error, "acc", lambda a: 100 * (1 - a), color="tab:blue", label="training batch", lw=1)
        curve(
            error,
            "test_acc",
            lambda a: 100 * (1 - a),
            color="tab:orange",
            label="test set",
            marker="o",
            ms=3,
        )
        loss.set(xlabel="iteration", ylabel="loss (fit)", title="Training loss")
        error.set(xlabel="iteration", ylabel="error (%)", title="Classification error")
        error.set_ylim(bottom=0)
        for axes in (loss, error):
            axes.grid(alpha=0.3)
            if axes.lines:
                axes.legend()
        figure.suptitle(self.title)
        path = self.folder / "curves.png"
        figure.savefig(path, dpi=120)
        return path

    def close(self) -> None:
        for file in self.files.values():
            file.close()


def _read_facts(path: pathlib.Path) -> dict:
    """Returns what a run.json holds; an empty dictionary if it is missing or damaged."""
    try:
        facts = json.loads(path.read_text())
    except (OSError, ValueError, RecursionError):
        return {}
    return facts if isinstance(facts, dict) else {}


def environment() -> dict:
    """Returns what a result depends on besides the run's settings: versions, git commit, device."""
    root = pathlib.Path(__file__).resolve().parents[2]
    try:
        words = ["git", "-C", str(root), "describe", "--always", "--dirty", "--abbrev=12"]
        commit = subprocess.run(words, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        commit = None  # no git, or no repository: a copy of the code has no commit
    gpus = tf.config.get_visible_devices("GPU")
    details = [
        tf.config.experimental.get_device_details(gpu).get("device_name", gpu.name) for gpu in gpus
    ]
    return {
        "versions": {
            "python": platform.python_version(),
            # from the modules: the packages tensorflow-cpu and tf-nightly have other names
            **{module.__name__: module.__version__ for module in (tf, keras, np)},
            "tensorflow-datasets": _installed_version("tensorflow-datasets"),
        },
        "git_commit": commit,
        "device": ", ".join(details) or f"CPU, {os.cpu_count()} cores, {platform.machine()}",
    }


def _installed_version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None
