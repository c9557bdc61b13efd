"""Runs: each is a row with a seed, in a process and a folder of its own."""

import contextlib
import ctypes
import itertools
import os
import pathlib
import re
import signal
import subprocess
import sys

from common.errors import UserError
from common.training.command_line import parse
from common.training.texts import shown
from comparison import results
from comparison.rows import Row

ROOT = pathlib.Path(__file__).resolve().parents[1]
SEED = r"0|[1-9][0-9]{0,9}"  # as it stands in the name of a run's folder


class SettingsError(Exception):
    """A folder holds a finished run of other settings."""


class Run:
    """One row with one seed, in a folder of its own.

    Args:
        row: the row.
        seed: the run's seed.
        out: the comparison's folder.
        flags: those of train.py that all rows have alike, seed and ``log_dir`` left out.

    Attributes:
        results: of a finished run, after `is_finished`.
        failure: why there are none, of a run that failed or whose files are damaged.
    """

    def __init__(self, row: Row, seed: str, out: pathlib.Path, flags: dict[str, str]):
        self.row, self.seed, self.out, self.alike = row, seed, out, flags
        self.name = f"{row.folder}_seed{seed}"
        self.folder = out.absolute() / "runs" / self.name
        self.iterations = int(flags["iterations"])
        self.flags = {
            **flags,
            "seed": seed,
            "log_every": str(max(1, min(100, self.iterations // 20))),
            "eval_every": str(max(1, min(500, self.iterations // 10))),
            **dict(row.flags),
        }
        self.process: subprocess.Popen | None = None
        self.results: results.Results | None = None
        self.failure: str | None = None
        self._done = 0

    def command(self) -> list[str]:
        flags = [f"--{name}={value}" for name, value in self.flags.items()]
        return [sys.executable, "train.py", *flags, f"--log_dir={self.folder}"]

    def problem(self) -> str | None:
        """Returns what is wrong with the run's flags, if anything; no run starts."""
        try:
            parse(self.row.kind, self.command()[2:])
        except UserError as error:
            return str(error)
        return None

    def is_finished(self) -> bool:
        """Returns whether the run is done; one whose files are damaged is not, but a failure.

        Raises:
            SettingsError: if it was done with other settings than those asked for.
        """
        try:
            self.results = results.read(self.folder)
        except results.DamagedError as error:
            self.failure = f"damaged: {error}; delete its folder to run it again"
        if self.results is None:
            return False
        expected = {"batch_size": self.results.usual_batch_size} | self.flags
        for name, asked in expected.items():
            there = self.results.settings.get(name, "None")
            elsewhere = name == "data_dir" and self.flags["dataset"] != "folder"
            if not elsewhere and there != asked:
                problem = f"was run with --{name}={shown(there)}, not {asked}; take another --out"
                raise SettingsError(f"{self.folder} {problem}")
        return True

    def start(self, gpu: str | None) -> None:
        """Starts the run, or goes on with it where it has a checkpoint."""
        self.folder.mkdir(parents=True, exist_ok=True)
        command = self.command()
        command += [f"--gpu_no={gpu}"] if gpu is not None else []
        command += ["--resume"] if any(self.folder.glob("checkpoints/[!.]*.npz")) else []
        with (self.folder / "output.txt").open("ab") as output:
            self.process = subprocess.Popen(
                command,
                cwd=ROOT / self.row.method,
                env=_environment(),
                stdout=output,
                stderr=subprocess.STDOUT,
                # a session of its own: the terminal's Ctrl-C is for compare.py, which then sends
                # one SIGTERM
                start_new_session=True,
                preexec_fn=_die_with_parent,
            )

    def done(self) -> int:
        """Returns how many iterations are known to be done."""
        if self.process is not None and self.process.poll() is not None:
            return self.iterations
        with contextlib.suppress(ValueError):  # a line that is just being written
            self._done = results.last_iteration(self.folder)
        return self._done

    def result(self) -> dict:
        """Returns the run's row of results.csv."""
        row = {"method": self.row.name, "seed": self.seed, "iterations": self.iterations}
        # no HTML; and in many countries a semicolon ends a cell, and the next may be a formula
        row["status"] = (self.failure or "finished").translate(str.maketrans("<>;", "() "))
        if self.failure:
            return row
        found, collapse = self.results, self.results.collapse
        columns = (
            "best_error",
            "last_error",
            "step_ms",
            "memory_gib",
            "energy",
            "drift",
            "seconds",
        )
        return row | {
            **{name: getattr(found, name) for name in columns},
            "collapsed": collapse and collapse.iteration,
            "collapsed_until": collapse and collapse.until,
        }


def with_all_seeds(runs: list[Run]) -> list[Run]:
    """Returns ``runs`` and, after those of each row, its finished or damaged ones of other seeds.

    Raises:
        SettingsError: if one of these was run with other settings.
    """
    found: list[Run] = []
    for row, own in itertools.groupby(runs, key=lambda run: run.row):
        own = list(own)
        found += own
        folders = own[0].folder.parent.glob(f"{row.folder}_seed*")
        seeds = {path.name.rpartition("_seed")[2] for path in folders} - {run.seed for run in own}
        seeds = sorted((seed for seed in seeds if re.fullmatch(SEED, seed)), key=int)
        others = [Run(row, seed, own[0].out, own[0].alike) for seed in seeds]
        found += [run for run in others if run.is_finished() or run.failure]
    return found


def _environment() -> dict[str, str]:
    """Returns this process's environment; what a run prints is UTF-8 in every locale."""
    return os.environ | {"PYTHONIOENCODING": "utf-8:backslashreplace"}


def _die_with_parent() -> None:
    # a run that outlived a killed compare.py would write beside the one that the next call starts
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
