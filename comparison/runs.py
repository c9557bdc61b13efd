"""Runs: each is a row with a seed, in a process and a folder of its own."""

import contextlib
import csv
import ctypes
import itertools
import json
import pathlib
import re
import signal
import statistics
import subprocess
import sys

from common.training.settings import BEFORE
from comparison.rows import Row, plain

ROOT = pathlib.Path(__file__).resolve().parents[1]


class SettingsError(Exception):
    """A folder holds a finished run of other settings."""


class Run:
    """One row with one seed, in a folder of its own.

    Args:
        row: the row.
        seed: the run's seed.
        out: the comparison's folder.
        flags: those of train.py that all rows have alike, seed and ``log_dir`` left out.
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
        self.failure: str | None = None

    def command(self) -> list[str]:
        flags = [f"--{name}={value}" for name, value in self.flags.items()]
        return [sys.executable, "train.py", *flags, f"--log_dir={self.folder}"]

    def problem(self) -> str | None:
        """Returns what train.py says against the run's flags, if it does; no run starts."""
        command = [*self.command(), "--only_check_args"]
        options = {"cwd": ROOT / self.row.method, "capture_output": True, "text": True}
        result = subprocess.run(command, check=False, **options)
        return " ".join(result.stderr.split()) or "it fails" if result.returncode else None

    def facts(self) -> dict:
        """Returns what run.json says; nothing where there is none."""
        path = self.folder / "run.json"
        return json.loads(path.read_text()) if path.is_file() else {}

    def is_finished(self) -> bool:
        """Returns whether the run is done.

        Raises:
            SettingsError: if it was done with other settings than those asked for.
        """
        facts = self.facts()
        if "test_accuracy" not in facts:
            return False
        there = BEFORE | facts["settings"]["own"] | facts["settings"]
        for name, asked in self.flags.items():
            value = there.get(name)
            value = ",".join(map(str, value)) if isinstance(value, list) else str(value)
            elsewhere = name == "data_dir" and self.flags["dataset"] != "folder"
            if not elsewhere and plain(value) != asked:
                problem = f"was run with --{name}={value}, not {asked}; take another --out"
                raise SettingsError(f"{self.folder} {problem}")
        return True

    def collapse(self) -> dict | None:
        """Returns the collapse of a run that had one: iteration, state, rate and until.

        The iteration is when it was noticed, until its last one, None for a run that did not come
        back.
        """
        collapsed = self.facts().get("collapsed")
        return {"until": None} | collapsed if collapsed else None

    def is_collapsed(self) -> bool:
        """Returns whether the run collapsed and did not come back, or to no more than guessing."""
        collapse = self.collapse()
        if not collapse or collapse["until"] is None:
            return bool(collapse)
        classes = int(re.search(r"of (\d+) classes$", self.facts()["data"])[1])
        return 1 - self.result()["last_error"] / 100 < 2 / classes

    def start(self, gpu: str | None) -> None:
        """Starts the run, or goes on with it where it has a checkpoint."""
        self.folder.mkdir(parents=True, exist_ok=True)
        command = self.command()
        command += [f"--gpu_no={gpu}"] if gpu is not None else []
        command += ["--resume"] if any(self.folder.glob("checkpoints/[!.]*.npz")) else []
        with (self.folder / "output.txt").open("a") as output:
            self.process = subprocess.Popen(
                command,
                cwd=ROOT / self.row.method,
                stdout=output,
                stderr=subprocess.STDOUT,
                # a session of its own: the terminal's Ctrl-C is for compare.py, which then sends
                # one SIGTERM
                start_new_session=True,
                preexec_fn=_die_with_parent,
            )

    def rows(self) -> list[dict[str, str]]:
        """Returns the rows of metrics.csv."""
        path = self.folder / "metrics.csv"
        if not path.is_file():
            return []
        with path.open() as file:
            return list(csv.DictReader(file))

    def done(self) -> int:
        """Returns how many iterations are known to be done."""
        if self.process is not None and self.process.poll() is not None:
            return self.iterations
        with contextlib.suppress(ValueError, TypeError):  # a row that is just being written
            return max((int(row["iteration"]) for row in self.rows()), default=0)
        return 0

    def series(self, column: str) -> dict[int, float]:
        """Returns a column of metrics.csv by iteration, where it has values."""
        return {int(row["iteration"]): float(row[column]) for row in self.rows() if row[column]}

    def errors(self) -> dict[int, float]:
        """Returns test errors in per cent by iteration."""
        return {i: 100 * (1 - accuracy) for i, accuracy in self.series("test_acc").items()}

    def _of_layers(self, kind: str) -> list[tuple[int, list[float]]]:
        """Returns iterations, and the values of the columns KIND/LAYER where there are any."""
        pairs = []
        for row in self.rows():
            values = [float(v) for name, v in row.items() if name.startswith(f"{kind}/") and v]
            pairs += [(int(row["iteration"]), values)] if values else []
        return pairs

    def energies(self) -> dict[int, float]:
        """Returns energies over those at the start, the mean over layers, by iteration."""
        pairs = self._of_layers("energy")
        start = pairs[0][1] if pairs else []
        if not any(start):  # a single neuron has no energy
            return {}
        mean = statistics.mean
        return {i: mean(v / s for v, s in zip(own, start, strict=True) if s) for i, own in pairs}

    def drifts(self) -> dict[int, float]:
        """Returns the largest drift of all layers by iteration."""
        return {i: max(values) for i, values in self._of_layers("drift")}

    def result(self) -> dict:
        """Returns the run's row of results.csv."""
        row = {"method": self.row.name, "seed": self.seed, "iterations": self.iterations}
        row["status"] = self.failure or "finished"
        if self.failure:
            return row
        facts, collapse, errors = self.facts(), self.collapse() or {}, [*self.errors().values()]
        return row | {
            "best_error": min(errors),
            "last_error": errors[-1],
            "collapsed": collapse.get("iteration"),
            "collapsed_until": collapse.get("until"),
            "step_ms": facts["step_ms"],  # none where a resumed run had no step left to make
            "memory_gib": facts["memory_gib"],
            "energy": next(reversed(self.energies().values()), None),
            "drift": next(reversed(self.drifts().values()), None),
            "seconds": facts["seconds"],
        }


def with_all_seeds(runs: list[Run]) -> list[Run]:
    """Returns ``runs`` and, after those of each row, its finished runs with other seeds.

    Raises:
        SettingsError: if one of these was run with other settings.
    """
    found: list[Run] = []
    for row, own in itertools.groupby(runs, key=lambda run: run.row):
        own = list(own)
        found += own
        folders = own[0].folder.parent.glob(f"{row.folder}_seed*")
        seeds = {path.name.rpartition("_seed")[2] for path in folders} - {run.seed for run in own}
        others = [Run(row, seed, own[0].out, own[0].alike) for seed in seeds if seed.isdecimal()]
        found += sorted((run for run in others if run.is_finished()), key=lambda run: int(run.seed))
    return found


def _die_with_parent() -> None:
    # a run that outlived a killed compare.py would write beside the one that the next call starts
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
