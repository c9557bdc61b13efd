"""The results of a finished run: run.json and metrics.csv, read once and checked."""

import csv
import dataclasses
import io
import json
import math
import os
import pathlib
import re
import statistics
from collections.abc import Callable
from typing import Any

from common.training import collapse
from common.training.texts import read_text, shown

IMAGES = r"[\d,]{1,12} training and [\d,]{1,12} test images of ([1-9]\d{0,6}) classes$"
LARGEST = 1e39  # beyond float32
Rows = list[dict[str, float]]
Series = dict[int, float]  # values by iteration


@dataclasses.dataclass(frozen=True)
class Results:
    """The results of a finished run.

    Attributes:
        facts: run.json, with printable texts. ``data`` is the number of images alone.
        images: the number of training images.
        figures: values by their name in results.csv; None for a missing one. ``collapsed`` is the
            state in which the run ended, "guessing" or "saturated".
        errors: test errors in per cent.
        losses: of the logged batches.
        energies: hyperspherical energy over that at the start, the mean over layers.
        drifts: the largest of all layers.
        collapse: "guessing at the end" or "saturated at the end", else "".
    """

    facts: dict[str, Any]
    images: int
    figures: dict[str, float | str | None]
    errors: Series
    losses: Series
    energies: Series
    drifts: Series
    collapse: str


def _number(value: Any, most: float = LARGEST) -> bool:
    return type(value) in (int, float) and 0 <= value <= most  # nan is neither


def _count(value: Any) -> bool:
    return type(value) is int and _number(value, 2**31 - 1)


def _holds(values: Any, checks: dict[str, Callable[[Any], object]]) -> bool:
    return type(values) is dict and all(check(values.get(name)) for name, check in checks.items())


RUN_JSON = {
    "settings": lambda value: _holds(value, {"iterations": _count, "batch_size": _count}),
    "data": lambda value: type(value) is str and re.search(IMAGES, value, re.ASCII),
    "versions": lambda value: type(value) is dict,
    "git_commit": lambda value: value is None or type(value) is str,
    "device": lambda value: type(value) is str,
    "test_accuracy": lambda value: _number(value, most=1),
    "step_ms": lambda value: value is None or _number(value),
    "memory_gib": _number,
    "seconds": _number,
}


def read(folder: pathlib.Path) -> Results | None:
    """Returns the results of the run in ``folder``, None if it has not finished.

    Raises:
        ValueError: if run.json, or metrics.csv of a finished run, is not one of train.py's.
    """
    path = folder / "run.json"
    if not os.path.lexists(path):
        return None
    text = read_text(path)
    try:
        facts = {**json.loads(text)}
    except (ValueError, TypeError, RecursionError) as error:
        raise ValueError("run.json is cut off or not a JSON object") from error
    return _results(facts, metrics(folder)) if "test_accuracy" in facts else None


def metrics(folder: pathlib.Path) -> Rows:
    """Returns the rows of metrics.csv, of each the columns that have a value.

    Raises:
        ValueError: if it is not a table of numbers in the order of iterations.
    """
    file = csv.DictReader(io.StringIO(read_text(folder / "metrics.csv"), newline=""), strict=True)
    rows: Rows = []
    try:
        for line in file:
            row = {name: float(text) for name, text in line.items() if text != ""}
            valid = [(rows[-1]["iteration"] if rows else 0) <= row["iteration"] < 2**31]
            valid += [row["iteration"] % 1 == 0, 0 <= row.get("test_acc", 0) <= 1]
            # neurons at the same place have infinite energy
            valid += [v >= 0 if "/" in name else abs(v) < LARGEST for name, v in row.items()]
            if not all(valid):
                raise ValueError
            rows.append(row)
    # TypeError: a line with fewer or more cells than the first
    except (csv.Error, ValueError, TypeError, KeyError) as error:
        raise ValueError(f"metrics.csv: line {file.line_num} is not one of train.py's") from error
    return rows


def _results(facts: dict[str, Any], rows: Rows) -> Results:
    for name, check in RUN_JSON.items():
        if not check(facts.setdefault(name)):
            raise ValueError(f"run.json has no valid {name}")
    tests, accuracy = _column(rows, "test_acc"), facts["test_accuracy"]
    if list(tests.items())[-1:] != [(facts["settings"]["iterations"] - 1, accuracy)]:
        raise ValueError("metrics.csv does not end with the test that run.json has")
    images = re.search(IMAGES, facts["data"], re.ASCII)
    collapsed = collapse.of_run([row for row in rows if "acc" in row], int(images[1]))
    facts["versions"] = ", ".join(f"{name} {text}" for name, text in facts["versions"].items())
    facts |= {name: shown(facts[name]) for name in ("versions", "git_commit", "device")}
    facts["data"] = images[0]
    errors = {i: 100 * (1 - accuracy) for i, accuracy in tests.items()}
    energies, drifts = _layers(rows, "energy/"), _layers(rows, "drift/")
    start = next(iter(energies.values()), [])
    kept = [k for k, energy in enumerate(start) if 0 < energy < math.inf]  # of a neuron: 0
    means = {i: statistics.mean(e[k] / start[k] for k in kept) for i, e in energies.items() if kept}
    largest = {i: max(values) for i, values in drifts.items()}
    figures = {
        "best_error": min(errors.values()),
        "last_error": [*errors.values()][-1],
        "collapsed": collapsed,
        **{name: facts[name] for name in ("step_ms", "memory_gib", "seconds")},
        "energy": [None, *means.values()][-1],
        "drift": [None, *largest.values()][-1],
    }
    series = (errors, _column(rows, "fit"), means, largest)
    count = int(images[0].split()[0].replace(",", ""))
    return Results(facts, count, figures, *series, f"{collapsed} at the end" if collapsed else "")


def _column(rows: Rows, name: str) -> Series:
    return {int(row["iteration"]): row[name] for row in rows if name in row}


def _layers(rows: Rows, kind: str) -> dict[int, list[float]]:
    """Returns by iteration the values of the columns that begin with ``kind``."""
    pairs = [(row, [row[name] for name in row if name.startswith(kind)]) for row in rows]
    found = {int(row["iteration"]): values for row, values in pairs if values}
    if len(set(map(len, found.values()))) > 1:
        raise ValueError(f"metrics.csv has {kind} of fewer layers in some lines than in others")
    return found
