"""Trains several methods in the same way and compares them: a table and images.

    python compare.py --dataset=digits --iterations=300 --out=results/digits
    python compare.py --iterations=7500 --seeds=1,2,3 --methods=opt_gs,opt_gs:rotation_stddev=0.2
    python compare.py --preset=resnet20 --iterations=1500

A row is a method, or a method with flags of its train.py: METHOD:FLAG=VALUE:FLAG=VALUE. Each row
and seed runs in a separate process, in OUT/runs/ROW_seedN. Called again, it skips finished runs and
goes on with the others; finished runs with other seeds are included. Ctrl-C lets the runs save
their state first. OUT gets results.csv (a line a run), table.md, curves.png and energy.png.
"""

import pathlib
import signal
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))

from common.training.command_line import run_program
from comparison import output
from comparison.execution import execute
from comparison.runs import with_other_seeds
from comparison.settings import Comparison


def main(comparison: Comparison) -> None:
    runs = with_other_seeds(comparison.runs)
    if count := comparison.warmup_iterations:
        print(f"warm-up: over the first {count} iterations; --warmup_iterations=0 goes without")
    (comparison.out / "runs").mkdir(parents=True, exist_ok=True)
    if number := execute(runs, comparison.jobs, comparison.gpus):
        name = signal.Signals(number).name
        print(f"\n{name}; the same command goes on with unfinished runs", file=sys.stderr)
        sys.exit(128 + number)
    output.write(runs, comparison)
    if all(run.failure for run in runs):
        sys.exit("compare.py: every run failed; see output.txt in the runs' folders")


if __name__ == "__main__":
    run_program(Comparison, main, "compare.py")
