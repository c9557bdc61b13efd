"""Our training losses next to those that the original program printed for the same data set.

    python -m benchmarks.original --data_dir=data
    python -m benchmarks.original --runs=opt_gs,opt_ogd

The original's scripts were run once each on CIFAR-100 with another split. The log of the plain
network is the one that its authors published with wy1iu/MHE, on the official split. Ours train as
far, at full width, with batch 128 and without a warm-up. A run that was interrupted continues.
"""

import pathlib
import statistics
import subprocess
import sys
import time

from benchmarks.reporting import machine, table
from common.errors import UserError
from common.training.checkpoints import checkpoints_in
from common.training.command_line import Options, run_program, setting
from common.training.methods import known
from common.training.settings import ROOT
from comparison.results import metrics

AROUND = 10  # iterations before and after
COLUMNS = {
    "run": ("run", "{}"),
    "iteration": ("iteration", "{}"),
    "original": ("the original's loss", "{:.2f}"),
    "ours": ("ours", "{:.2f}"),
    "mean": ("mean of our 21 batches", "{:.2f}"),
}
# the losses that the original printed: by the method's folder, of the batch of each iteration
LOSSES = {
    "opt_gs": {100: 3.98, 200: 3.79},
    "opt_ls": {100: 3.97, 200: 3.69, 300: 3.54, 400: 3.40, 500: 3.43, 600: 3.29},
    "opt_ogd": {100: 3.79, 200: 3.52, 300: 3.48, 400: 3.02, 500: 2.89, 600: 2.92, 1000: 2.66},
    "opt_or": {100: 9.14, 200: 9.14, 300: 9.21, 400: 7.29, 500: 4.56, 600: 3.90},
    "baseline": {100: 9.1382},
}
FLAGS = {"baseline": ("--backbone=cnn9", "--widths=64,128,256,256")}  # other networks


class Settings(Options):
    runs: tuple[str, ...] = setting(tuple(LOSSES), "the runs", choices=tuple(LOSSES))
    data_dir: pathlib.Path = setting(ROOT / "data", "where CIFAR-100 is")
    out: pathlib.Path = setting(pathlib.Path("original"), "the folder of the runs")


def losses(folder: pathlib.Path) -> dict[int, float]:
    """Returns the loss of each iteration of a run, none while it writes a line."""
    try:
        return {int(row["iteration"]): row["fit"] for row in metrics(folder) if "fit" in row}
    except ValueError:
        return {}


def train(method: str, data_dir: pathlib.Path, folder: pathlib.Path) -> dict[int, float]:
    """Returns the losses of a full run, stopped soon after the original's last one."""
    end, output = max(LOSSES[method]) + AROUND, folder / "output.txt"
    folder.mkdir(parents=True, exist_ok=True)
    words = [f"--data_dir={data_dir.absolute()}", f"--log_dir={folder.absolute()}"]
    words += ["--log_every=1", *FLAGS.get(method, ())]
    words += ["--resume"] if checkpoints_in(folder / "checkpoints") else []
    if max(losses(folder), default=0) < end:
        with output.open("w", encoding="utf-8") as file:
            command = [sys.executable, "train.py", *words]
            process = subprocess.Popen(command, cwd=ROOT / method, stdout=file, stderr=file)
            try:
                while process.poll() is None and max(losses(folder), default=0) < end:
                    time.sleep(1)
            finally:
                process.terminate()
                process.wait()
    found = losses(folder)
    if max(found, default=0) < end:
        raise UserError(f"{method} ended early; see {output}")
    return found


def main(settings: Settings) -> None:
    found = []
    for method in settings.runs:
        fits = train(method, settings.data_dir, settings.out / method)
        flags = f" ({' '.join(FLAGS[method])})" if method in FLAGS else ""
        for iteration, there in LOSSES[method].items():
            mean = statistics.mean(fits[iteration + i] for i in range(-AROUND, AROUND + 1))
            figures = (known()[method].title + flags, iteration, there, fits[iteration], mean)
            found.append(dict(zip(COLUMNS, figures, strict=True)))
    print(*table(COLUMNS, found), "", sep="\n")
    print(f"{machine()}; seed 0, batch 128, one run each.")


if __name__ == "__main__":
    run_program(Settings, main, "benchmarks.original")
