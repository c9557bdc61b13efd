"""The results of a finished run: run.json and metrics.csv, read once and checked."""

import csv
import io
import json
import math
import os
import pathlib
import re
import statistics
from typing import Any, NamedTuple

from common.training import collapse
from common.training.texts import read_text, shown

IMAGES = r"[\d,]{1,12} training and [\d,]{1,12} test images of ([1-9]\d{0,6}) classes$"
LARGEST = 1e39  # beyond float32
# the types of what is read of run.json, and of its settings
RUN_JSON = {"settings": (dict,), "versions": (dict,), "git_commit": (str, type(None))}
RUN_JSON |= dict.fromkeys(("step_ms", "renewed_accuracy"), (int, float, type(None)))
RUN_JSON |= dict.fromkeys(("data", "identity", "device"), (str,))
RUN_JSON |= dict.fromkeys(("test_accuracy", "memory_gib", "seconds"), (int, float))
SETTINGS = {"iterations": (int,), "batch_size": (int,)}
Rows = list[dict[str, float]]
Series = dict[int, float]  # values by iteration


class Results(NamedTuple):
    """The results of a finished run."""

    facts: dict[str, Any]  # run.json, with printable texts; ``data`` is the number of images
    images: int  # for training
    figures: dict[str, float | str | None]  # of results.csv; None for a missing one
    error: float  # by which rows are ranked: the renewed one, and the last one of older runs
    errors: Series  # of tests, in per cent
    losses: Series  # of the logged batches
    energies: Series  # over that at the start, the mean over layers
    changes: Series  # |energy / energy at the start - 1| in per cent, the mean over layers
    drifts: Series  # the largest of all layers
    collapse: str  # "guessing at the end" or "saturated at the end", else ""


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
            # neurons at the same place have infinite energy, and a neuron of 0 has none: nan
            valid += [not v < 0 if "/" in name else abs(v) < LARGEST for name, v in row.items()]
            if not all(valid):
                raise ValueError
            rows.append(row)
    # TypeError: a line with fewer or more cells than the first
    except (csv.Error, ValueError, TypeError, KeyError) as error:
        raise ValueError(f"metrics.csv: line {file.line_num} is not one of train.py's") from error
    return rows


def _results(facts: dict[str, Any], rows: Rows) -> Results:
    _check(facts, RUN_JSON)
    _check(facts["settings"], SETTINGS)
    if not (images := re.search(IMAGES, facts["data"], re.ASCII)):
        raise ValueError("run.json has no valid data")
    tests, accuracy = _column(rows, "test_acc"), facts["test_accuracy"]
    if list(tests.items())[-1:] != [(facts["settings"]["iterations"] - 1, accuracy)]:
        raise ValueError("metrics.csv does not end with the test that run.json has")
    collapsed = collapse.of_run([row for row in rows if "acc" in row], int(images[1]))
    facts["versions"] = ", ".join(f"{name} {text}" for name, text in facts["versions"].items())
    facts |= {name: shown(facts[name]) for name in ("versions", "git_commit", "device", "identity")}
    facts["data"] = images[0]
    errors = {i: 100 * (1 - share) for i, share in tests.items()}
    energies, drifts = _layers(rows, "energy/"), _layers(rows, "drift/")
    start = next(iter(energies.values()), [])
    kept = [k for k, energy in enumerate(start) if 0 < energy < math.inf]  # of a neuron: 0
    ratios = {i: [e[k] / start[k] for k in kept] for i, e in energies.items() if kept}
    means = {i: statistics.mean(values) for i, values in ratios.items()}
    changes = {i: 100 * statistics.mean(abs(v - 1) for v in values) for i, values in ratios.items()}
    largest = {i: max(values) for i, values in drifts.items()}
    losses, renewed = _column(rows, "fit"), facts["renewed_accuracy"]
    error = 100 * (1 - (accuracy if renewed is None else renewed))
    figures = {
        "last_error": [*errors.values()][-1],
        "renewed_error": None if renewed is None else error,
        "collapsed": collapsed,
        **{name: facts[name] for name in ("step_ms", "memory_gib", "seconds")},
        "training_loss": _end(losses),
        "training_accuracy": 100 * _end(_column(rows, "acc")),
        "energy_change": [None, *changes.values()][-1],
        "drift": [None, *largest.values()][-1],
    }
    count = int(images[0].split()[0].replace(",", ""))
    words = f"{collapsed} at the end" if collapsed else ""
    return Results(facts, count, figures, error, errors, losses, means, changes, largest, words)


def _check(values: dict[str, Any], types: dict[str, tuple]) -> None:
    for name, kinds in types.items():
        value = values.setdefault(name)
        is_number = type(value) in (int, float)
        if type(value) not in kinds or (is_number and not 0 <= value < LARGEST):  # as nan is not
            raise ValueError(f"run.json has no valid {name}")


def _column(rows: Rows, name: str) -> Series:
    return {int(row["iteration"]): row[name] for row in rows if name in row}


def _end(series: Series) -> float:
    values = list(series.values())  # of the last tenth, since those of single batches scatter
    return statistics.mean(values[-max(1, len(values) // 10) :] or [math.nan])


def _layers(rows: Rows, kind: str) -> dict[int, list[float]]:
    pairs = [(row, [row[name] for name in row if name.startswith(kind)]) for row in rows]
    found = {int(row["iteration"]): values for row, values in pairs if values}
    if len(set(map(len, found.values()))) > 1:
        raise ValueError(f"metrics.csv has {kind} of fewer layers in some lines than in others")
    return found
