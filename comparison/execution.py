"""How all runs are executed: some at a time, with a progress bar, and to the end of a signal."""

import itertools
import signal
import sys
import time

from tqdm import tqdm

from comparison.runs import Run


class StoppedError(Exception):
    """A signal has ended the comparison; its runs have saved their state.

    Attributes:
        number: the signal's.
    """

    def __init__(self, number: int):
        super().__init__(signal.Signals(number).name)
        self.number = number


class _Signals:
    """Notes the first SIGINT, SIGTERM or SIGHUP in place of ending at once; the second one does."""

    number: int | None = None

    def __enter__(self):
        before = {n: signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
        # what is ignored, as SIGHUP under nohup, stays so
        self.before = {n: handler for n, handler in before.items() if handler != signal.SIG_IGN}
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
    todo = [run for run in runs if not run.is_finished()]
    if len(todo) < len(runs):
        print(f"{len(runs) - len(todo)} of {len(runs)} runs are finished already", flush=True)
    waiting, running = list(todo), dict[Run, str | None]()  # the GPU of each
    free = list(itertools.islice(itertools.cycle(gpus or [None]), max(jobs, len(gpus))))
    with _Signals() as signals, _progress_bar(todo) as bar:
        try:
            while (waiting or running) and not signals.number:
                while waiting and free:
                    waiting[0].start(free[0])
                    running[waiting.pop(0)] = free.pop(0)
                time.sleep(0.5)
                for run in [run for run in running if run.process.poll() is not None]:
                    free.append(running.pop(run))
                    _conclude(run)
                bar.update(max(0, sum(run.done() for run in todo) - bar.n))
        finally:
            _stop(list(running))
        if signals.number:
            raise StoppedError(signals.number)


def _conclude(run: Run) -> None:
    """Says, and notes, what has become of a run that ended."""
    if run.process.returncode or not run.is_finished():
        lines = (run.folder / "output.txt").read_text(errors="replace").splitlines()
        last = next((line for line in reversed(lines) if line.strip()), "no output")
        run.failure = f"failed ({run.process.returncode}): {last[:200]}"
    tqdm.write(f"{run.row.title}, seed {run.seed}: {run.failure or 'finished'}")


def _progress_bar(todo: list[Run]) -> tqdm:
    # a log file gets a line every half minute, a terminal a bar that moves
    interval = 0.2 if sys.stderr.isatty() else 30
    total, start = sum(run.iterations for run in todo), sum(run.done() for run in todo)
    # without miniters tqdm has a thread that draws more often than that
    options = {"mininterval": interval, "miniters": 1, "dynamic_ncols": True}
    return tqdm(desc="all runs", total=total, initial=start, unit="it", **options)


def _stop(running: list[Run]) -> None:
    """Lets the runs save their state, and waits until they have."""
    for run in running:
        run.process.terminate()
    if running:
        names = ", ".join(run.name for run in running)
        note = f"waiting for {names} to save; a second signal ends them at once"
        tqdm.write(note, file=sys.stderr)
    for run in running:
        run.process.wait()
