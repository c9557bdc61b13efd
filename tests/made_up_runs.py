"""Run folders as train.py leaves them, made up, for tests of compare.py."""

import csv
import json
import pathlib

from common.training.command_line import parse
from comparison.runs import Run
from comparison.settings import Comparison


def comparison(out: pathlib.Path, *words: str) -> Comparison:
    """Returns the settings of a command line of compare.py."""
    return parse(Comparison, ["--dataset=cifar100", "--widths=8,8,8,8", f"--out={out}", *words])


def make_up(run: Run, errors: list[float], fits: list[float] | None = None, **facts) -> None:
    """Writes the files of a finished run: tests with these errors in per cent, evenly spread."""
    run.folder.mkdir(parents=True)
    named = run.settings.named()
    made = {
        "settings": named | {"batch_size": named["batch_size"] or 128},
        "data": "CIFAR-100 from somewhere: 50,000 training and 10,000 test images of 100 classes",
        "identity": "CIFAR-100 with the sum 0",
        "versions": {"python": "3"},
        "git_commit": "abc",
        "device": "CPU",
        "step_ms": 20.0,
        "memory_gib": 0.5,
        "seconds": 1.0,
        "test_accuracy": 1 - errors[-1] / 100,
        "renewed_accuracy": 1 - errors[-1] / 100,
    }
    (run.folder / "run.json").write_text(json.dumps(made | facts, default=str))
    columns = ["iteration", "learning_rate", "fit", "acc", "test_acc", "energy/fc6", "drift/fc6"]
    with (run.folder / "metrics.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, columns)
        writer.writeheader()
        writer.writerow({"iteration": 0, "energy/fc6": 8.0, "drift/fc6": 1e-7})
        for i, error in enumerate(errors, start=1):
            iteration = run.iterations * i // len(errors) - 1
            fit = fits[i - 1] if fits else 4 * error / 100
            rate = 0.1 if i / len(errors) < 0.4 else 0.01
            batch = {"learning_rate": rate, "fit": fit, "acc": 1 - error / 100}
            writer.writerow({"iteration": iteration - 1, **batch})
            test = {"test_acc": 1 - error / 100, "energy/fc6": 8.0 + 0.01 * i, "drift/fc6": 1e-6}
            writer.writerow({"iteration": iteration, **test})
    assert run.is_finished()
