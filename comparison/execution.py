"""Executes all runs: some at a time, with a progress bar; stops cleanly on a signal."""

import itertools
import sys
import time
from collections.abc import Sequence

from tqdm import tqdm

from common.training.interruption import Interruption
from common.training.progress_bar import progress_bar
from comparison.runs import Run


def execute(runs: list[Run], jobs: int, gpus: Sequence[int]) -> int | None:
    """Runs all that are not finished, ``jobs`` at a time, spread over ``gpus``.

    Returns the number of a signal that ended it, after the runs have saved their state; or None.

    Raises:
        UserError: if a folder holds a finished run of other settings.
    """
    if finished := sum(run.is_finished() for run in runs):
        print(f"{finished} of {len(runs)} runs are finished already", flush=True)
    for run in filter(lambda run: run.failure, runs):
        _report(run)
    todo = [run for run in runs if not (run.results or run.failure)]
    waiting, running = list(todo), dict[Run, int | None]()  # its GPU
    free = list(itertools.islice(itertools.cycle(gpus or [None]), max(jobs, len(gpus))))
    total, done = sum(run.iterations for run in todo), sum(run.done() for run in todo)
    with Interruption() as interruption, progress_bar("all runs", total, done) as bar:
        try:
            while (waiting or running) and not interruption.signal:
                while waiting and free:
                    run, gpu = waiting.pop(0), free.pop(0)
                    run.start(gpu)
                    running[run] = gpu
                time.sleep(0.5)
                for run in [run for run in running if run.process.poll() is not None]:
                    free.append(running.pop(run))
                    run.conclude()
                    _report(run)
                bar.update(max(0, sum(run.done() for run in todo) - bar.n))
        finally:
            for run in running:
                run.process.terminate()
                again = "another signal, a second later or more, ends it"
                tqdm.write(f"waiting for {run.name} to save; {again}", file=sys.stderr)
            for run in running:
                run.process.wait()
    return interruption.signal


def _report(run: Run) -> None:
    tqdm.write(f"{run.row.title}, seed {run.seed}: {run.failure or 'finished'}")
