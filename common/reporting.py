"""What a run leaves behind: the original's log lines, metrics.csv, curves.png, run.json, TensorBoard scalars."""

import csv
import importlib.metadata
import importlib.util
import json
import os
import pathlib
import platform
import re
import subprocess
from collections.abc import Sequence

import tensorflow as tf
from tqdm import tqdm

from common.errors import UserError

# the newest run's files
KEPT = ("metrics.csv", "curves.png", "model.keras", "folded.keras", "classes.txt", "run.json")
COLUMNS = ("iteration", "learning_rate", "fit", "reg", "penalty", "acc", "test_acc", "seconds")


class Report:
    """Writes one run's results into a folder, which it makes.

    ``log_train_NN.txt`` and ``log_test_NN.txt`` count up from run to run, as the original's do; the other files
    are the newest run's, and those of the run before are kept under its number (``metrics_00.csv``).

    Args:
        folder: where to; made if missing.
        title: what the picture is headed.
        extra: columns of metrics.csv beyond `COLUMNS`.

    Raises:
        UserError: if ``folder`` cannot be written.
    """

    def __init__(self, folder: pathlib.Path, title: str, extra: Sequence[str] = ()):
        self.folder, self.title, self.columns = folder.absolute(), title, (*COLUMNS, *extra)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            number = self._keep_earlier()
            self.train_log = (folder / f"log_train_{number:02d}.txt").open("x", buffering=1)
            self.test_log = (folder / f"log_test_{number:02d}.txt").open("x", buffering=1)
            self.metrics = (folder / "metrics.csv").open("x", newline="", buffering=1)
        except OSError as error:
            raise UserError(f"--log_dir={folder} cannot be written: {error.strerror}") from error
        self.rows = csv.DictWriter(self.metrics, self.columns)
        self.rows.writeheader()
        self.history: list[dict] = []
        self.facts: dict = {}
        self.scalars = None
        if importlib.util.find_spec("tensorboard"):
            self.scalars = tf.summary.create_file_writer(str(folder / "tensorboard" / f"{number:02d}"))

    def _keep_earlier(self) -> int:
        """Moves the results of the run before under its number, and returns the next one."""
        found = [m for p in self.folder.iterdir() if (m := re.fullmatch(r"([a-z_]+)_(\d+)\.\w+", p.name))]
        last = max((int(m[2]) for m in found), default=-1)
        logged = max((int(m[2]) for m in found if m[1] == "log_train"), default=-1)
        # results whose log was taken away get a number of their own, so that none is written over
        own = logged if logged == last and not any(int(m[2]) == last and not m[1].startswith("log") for m in found) else last + 1
        own = max(own, 0)
        for path in (self.folder / name for name in KEPT):
            if path.exists():
                path.rename(path.with_stem(f"{path.stem}_{own:02d}"))
                last = max(last, own)
        return last + 1

    def describe(self, **facts) -> None:
        """Adds ``facts`` to run.json: settings, versions, results. The file is whole at any time."""
        self.facts |= facts
        path = self.folder / "run.json"
        try:
            path.with_suffix(".tmp").write_text(json.dumps(self.facts, indent=2, default=str) + "\n")
            path.with_suffix(".tmp").replace(path)
        except OSError as error:
            raise UserError(f"{path} cannot be written: {error.strerror}") from error

    def note(self, **row) -> None:
        """Writes a row of metrics.csv that has no line in the logs."""
        self.rows.writerow(row)

    def train(self, label: str, **row) -> None:
        """Logs a training batch: ``row`` has iteration, learning_rate, fit, reg, penalty, acc and seconds."""
        line = f"===={label}: fit={row['fit']:.4f}, reg={row['reg']:.4f}, acc={row['acc']:.4f}"
        self._write(line, self.train_log, row)

    def test(self, label: str, **row) -> None:
        """Logs a test: ``row`` has iteration, test_acc, seconds and the extra columns. Draws the curves anew."""
        self._write(f"++++{label}: test acc={row['test_acc']:.4f}", self.test_log, row)
        self.draw()

    def _write(self, line: str, log, row: dict) -> None:
        tqdm.write(line)
        log.write(line + "\n")
        self.rows.writerow(row)
        self.history.append(row)
        if self.scalars is not None:
            with self.scalars.as_default():
                for name in set(row) - {"iteration", "seconds"}:
                    tf.summary.scalar(name, row[name], step=row["iteration"])
            self.scalars.flush()

    def draw(self) -> pathlib.Path:
        """Draws loss and accuracy against iterations and returns the picture's path."""
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure

        figure = Figure(figsize=(10, 4), layout="constrained")
        FigureCanvasAgg(figure)
        loss, error = figure.subplots(1, 2)

        def curve(axes, name: str, transform=float, **style) -> None:
            rows = [row for row in self.history if name in row]
            if rows:
                axes.plot([row["iteration"] for row in rows], [transform(row[name]) for row in rows], **style)

        curve(loss, "fit", color="tab:blue", label="training batch", lw=1)
        curve(error, "acc", lambda a: 100 * (1 - a), color="tab:blue", label="training batch", lw=1)
        curve(error, "test_acc", lambda a: 100 * (1 - a), color="tab:orange", label="test set", marker="o", ms=3)
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
        for file in (self.train_log, self.test_log, self.metrics):
            file.close()


def surroundings() -> dict:
    """Returns what a run should be told apart by besides its settings: versions, git commit, device."""
    root = pathlib.Path(__file__).resolve().parents[1]
    try:
        words = ["git", "-C", str(root), "describe", "--always", "--dirty", "--abbrev=12"]
        commit = subprocess.run(words, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        commit = None  # no git, or no repository: a copy of the code has no commit
    gpus = tf.config.get_visible_devices("GPU")
    details = [tf.config.experimental.get_device_details(gpu).get("device_name", gpu.name) for gpu in gpus]
    packages = ("tensorflow", "keras", "numpy", "tensorflow-datasets")
    return {
        "versions": {"python": platform.python_version(), **{name: importlib.metadata.version(name) for name in packages}},
        "git_commit": commit,
        "device": ", ".join(details) or f"CPU, {os.cpu_count()} cores, {platform.machine()}",
    }
