"""Runs: each is a row with a seed, with a separate process and folder."""

import ctypes
import itertools
import os
import pathlib
import re
import signal
import subprocess
import sys
from typing import Any

from common.errors import UserError
from common.training.checkpoints import checkpoints_in
from common.training.command_line import as_text, parse
from common.training.settings import BATCH_SIZE, ROOT
from common.training.texts import shown
from comparison.results import Results, metrics, read
from comparison.rows import Row


class Run:
    """One row with one seed, in a folder below ``out``; ``flags`` are the same for all rows.

    Raises:
        UserError: for settings that train.py does not take.
    """

    process: subprocess.Popen | None = None
    results: Results | None = None  # of a finished run, after `is_finished`
    failure: str | None = None  # why there are none

    def __init__(self, row: Row, seed: int, out: pathlib.Path, flags: dict[str, Any]):
        self.row, self.seed, self.out, self.flags = row, seed, out, flags
        self.name = f"{row.name}_seed{seed}".replace(":", "_")
        self.folder = out.absolute() / "runs" / self.name
        self.iterations = flags.get("iterations", row.kind.iterations)
        values = flags | {"seed": seed, "log_dir": self.folder} | dict(row.flags)
        values["log_every"] = max(1, min(100, self.iterations // 20))
        values["eval_every"] = max(1, min(500, self.iterations // 10))
        words = [f"--{name}={as_text(value)}" for name, value in values.items()]
        self.settings = parse(row.kind, words)
        self.command = [sys.executable, "train.py", *words]

    def is_finished(self) -> bool:
        """Returns whether the run is done; one whose files are damaged is not, but a failure.

        Raises:
            UserError: if it was done with other settings than those asked for.
        """
        self.results = None
        try:
            self.results = read(self.folder)
        except ValueError as error:
            self.failure = f"damaged: {shown(error)}; delete its folder to run it again"
        if self.results is None:
            return False
        asked = self.settings.result_settings()
        asked["batch_size"] = asked["batch_size"] or min(BATCH_SIZE, self.results.images)
        if asked["dataset"] == "folder":
            asked["data_dir"] = self.settings.data_dir
        for name, value in asked.items():
            # a setting that is newer than the run had its default
            there = as_text(self.results.facts["settings"].get(name, getattr(self.row.kind, name)))
            if there != as_text(value):
                other = f"was run with --{name}={shown(there)}, not {as_text(value)}"
                raise UserError(f"{self.folder} {other}; take another --out")
        return True

    def start(self, gpu: int | None) -> None:
        """Starts the run, or goes on with it where it has a checkpoint."""
        self.folder.mkdir(parents=True, exist_ok=True)
        command = self.command + ([f"--gpu_no={gpu}"] if gpu is not None else [])
        command += ["--resume"] if checkpoints_in(self.folder / "checkpoints") else []
        with (self.folder / "output.txt").open("ab") as output:
            self.process = subprocess.Popen(
                command,
                cwd=ROOT / self.row.kind.method,
                env=os.environ | {"PYTHONIOENCODING": "utf-8:backslashreplace"},
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # Ctrl-C is for compare.py, which then sends one SIGTERM
                preexec_fn=_die_with_parent,
            )

    def done(self) -> int:
        """Returns how many iterations are done; 0 while a line of the log is being written."""
        if self.process is not None and self.process.poll() is not None:
            return self.iterations
        try:
            return int(metrics(self.folder)[-1]["iteration"])
        except (ValueError, IndexError):
            return 0

    def conclude(self) -> None:
        """Notes the outcome of the process."""
        if not (self.is_finished() or self.failure) or self.process.returncode:
            said = (self.folder / "output.txt").read_text("utf-8", "replace").splitlines()
            last = next(filter(str.strip, reversed(said)), "no output")
            self.failure = f"failed ({self.process.returncode}): {shown(last, 200)}"


def with_other_seeds(runs: list[Run]) -> list[Run]:
    """Returns ``runs``, and after each row's its finished or damaged ones of other seeds."""
    found: list[Run] = []
    for row, group in itertools.groupby(runs, key=lambda run: run.row):
        asked = list(group)
        out, flags, start = asked[0].out, asked[0].flags, asked[0].name.rpartition("seed")[0]
        names = [path.name for path in (out / "runs").glob(f"{start}seed*")]
        seeds = {int(m[1]) for n in names if (m := re.search("seed(0|[1-9][0-9]{0,9})$", n))}
        seeds = {seed for seed in seeds if seed < 2**32}
        others = [Run(row, seed, out, flags) for seed in sorted(seeds - {r.seed for r in asked})]
        found += asked + [run for run in others if run.is_finished() or run.failure]
    return found


def _die_with_parent() -> None:
    # a run that outlived a killed compare.py would write into the folder of the next call's run
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
