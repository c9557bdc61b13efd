"""Runs: a row with a seed in a process and a folder of its own, and all of them one after another."""

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
import time
from collections.abc import Callable

from tqdm import tqdm

from common.training.settings import BEFORE
from comparison.rows import Row, is_same

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
            if name != "data_dir" and not is_same(there.get(name), asked):
                value = there.get(name)
                value = ",".join(map(str, value)) if isinstance(value, list) else value
                raise SettingsError(f"{self.folder} was run with --{name}={value}, not {asked}; take another --out")
        return True

    def collapse(self) -> dict | None:
        """Returns of a run that collapsed ``iteration``, when it was noticed, ``state``, ``rate`` and ``until``.

        ``until`` is the collapse's last iteration, None where the run did not come back.
        """
        collapsed = self.facts().get("collapsed")
        return {"until": None} | collapsed if collapsed else None

    def is_collapsed(self) -> bool:
        """Returns whether the run ended as it collapsed: it did not come back, or to no more than guessing."""
        collapse = self.collapse()
        if not collapse or collapse["until"] is None:
            return bool(collapse)
        classes = int(re.search(r"of (\d+) classes", self.facts()["data"])[1])
        return 1 - self.result()["last_error"] / 100 < 2 / classes

    def start(self, gpu: str | None) -> None:
        """Starts the run, or goes on with it where it has a checkpoint."""
        self.folder.mkdir(parents=True, exist_ok=True)
        command = self.command()
        command += [f"--gpu_no={gpu}"] if gpu is not None else []
        command += ["--resume"] if any(self.folder.glob("checkpoints/*.npz")) else []
        with (self.folder / "output.txt").open("a") as output:
            self.process = subprocess.Popen(
                command,
                cwd=ROOT / self.row.method,
                stdout=output,
                stderr=subprocess.STDOUT,
                # a session of its own: the terminal's Ctrl-C is for compare.py, which then sends one SIGTERM;
                # a second signal would end a run that is just saving its state
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

    def series(self, value: Callable[[dict], float | None]) -> list[tuple[int, float]]:
        """Returns iterations and ``value(row)`` of the rows where that is not None."""
        pairs = [(int(row["iteration"]), value(row)) for row in self.rows()]
        return [(i, v) for i, v in pairs if v is not None]

    def result(self) -> dict:
        """Returns the run's row of results.csv."""
        status = self.failure or "finished"
        row = {"method": self.row.name, "seed": self.seed, "iterations": self.iterations, "status": status}
        if self.failure:
            return row
        collapse = self.collapse() or {}
        facts, errors = self.facts(), [v for _, v in self.series(test_error)]
        drifts = [float(v) for k, v in self.rows()[-1].items() if k.startswith("drift/") and v]
        return row | {
            "best_error": min(errors),
            "last_error": errors[-1],
            "collapsed": collapse.get("iteration"),
            "collapsed_until": collapse.get("until"),
            "step_ms": facts["step_ms"],  # none where a resumed run had no step left to make
            "memory_gib": facts["memory_gib"],
            "energy": next((v for _, v in reversed(self.series(relative_energy(self.rows())))), None),
            "drift": max(drifts) if drifts else None,
            "seconds": facts["seconds"],
        }


def with_all_seeds(runs: list[Run]) -> list[Run]:
    """Returns ``runs`` and, after those of each row, what is finished of it in the same folder with other seeds.

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


def test_error(row: dict[str, str]) -> float | None:
    return 100 * (1 - float(row["test_acc"])) if row["test_acc"] else None


def training_loss(row: dict[str, str]) -> float | None:
    return float(row["fit"]) if row["fit"] else None


def relative_energy(rows: list[dict[str, str]]) -> Callable[[dict], float | None]:
    """Returns a function of a row: the energy of its layers relative to the first row's, on average over layers."""
    names = [name for name in rows[0] if name.startswith("energy/")] if rows else []
    names = [name for name in names if float(rows[0][name])]  # a single neuron has no energy
    return lambda row: statistics.mean(float(row[n]) / float(rows[0][n]) for n in names) if names and row[names[0]] else None


class StoppedError(Exception):
    """A signal has ended the comparison; its runs have saved their state.

    Attributes:
        number: the signal's.
    """

    def __init__(self, number: int):
        super().__init__(signal.Signals(number).name)
        self.number = number


class _Signals:
    """Notes the first SIGINT, SIGTERM or SIGHUP in place of ending at once; the second one does end the program."""

    number: int | None = None

    def __enter__(self):
        asked = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
        # what is ignored, as SIGHUP under nohup, stays so
        before = {number: signal.getsignal(number) for number in asked}
        self.before = {number: handler for number, handler in before.items() if handler != signal.SIG_IGN}
        for number in self.before:
            signal.signal(number, self._note)
        return self

    def _note(self, number: int, _) -> None:
        self.number = number
        self.__exit__()

    def __exit__(self, *_) -> None:
        for number, handler in self.before.items():
            signal.signal(number, handler)


def execute(runs: list[Run], jobs: int, gpus: list[str]) -> None:
    """Runs what is not finished, ``jobs`` at a time, spread over ``gpus``.

    Raises:
        SettingsError: if a folder holds a finished run of other settings.
        StoppedError: after a signal, when the runs have saved their state.
    """
    waiting = [run for run in runs if not run.is_finished()]
    if len(waiting) < len(runs):
        print(f"{len(runs) - len(waiting)} of {len(runs)} runs are finished already", flush=True)
    slots = list(gpus) or [None]
    slots = [slots[i % len(slots)] for i in range(max(jobs, len(gpus)))]
    running: dict[int, Run] = {}
    ended: list[Run] = []
    with _Signals() as signals, _progress_bar(waiting) as bar:
        while (waiting or running) and not signals.number:
            for slot, gpu in enumerate(slots):
                if slot not in running and waiting:
                    running[slot] = waiting.pop(0)
                    running[slot].start(gpu)
            time.sleep(0.5)
            for slot, run in list(running.items()):
                if run.process.poll() is not None:
                    ended.append(running.pop(slot))
                    if run.process.returncode or not run.is_finished():
                        run.failure = f"failed ({run.process.returncode}): {_last_line(run.folder / 'output.txt')}"
                    tqdm.write(f"{run.row.title}, seed {run.seed}: {run.failure or 'finished'}")
            done = sum(run.done() for run in [*ended, *running.values(), *waiting])
            bar.update(max(0, done - bar.n))
        if signals.number:
            _stop(list(running.values()), signals.number)


def _progress_bar(waiting: list[Run]) -> tqdm:
    # a log file gets a line every half minute, a terminal a bar that moves
    interval = 0.2 if sys.stderr.isatty() else 30
    total, start = sum(run.iterations for run in waiting), sum(run.done() for run in waiting)
    # without miniters tqdm has a thread that draws more often than that
    options = {"mininterval": interval, "miniters": 1, "dynamic_ncols": True}
    return tqdm(desc="all runs", total=total, initial=start, unit="it", **options)


def _stop(running: list[Run], number: int) -> None:
    """Lets the runs save their state and end.

    Raises:
        StoppedError: when they have.
    """
    for run in running:
        run.process.terminate()
    name = signal.Signals(number).name
    tqdm.write(f"{name}: waiting for {len(running)} run(s) to save; another one ends them unsaved", file=sys.stderr)
    for run in running:
        run.process.wait()
    raise StoppedError(number)


def _last_line(path: pathlib.Path) -> str:
    lines = [line for line in path.read_text(errors="replace").splitlines() if line.strip()]
    return lines[-1][:200] if lines else "no output"
