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


class DamagedError(Exception):
    """A file of a run is not one that train.py writes; the message is one line, safe to show."""


@dataclasses.dataclass(frozen=True)
class Results:
    """The results of a finished run.

    Attributes:
        facts: run.json, with printable texts. ``data`` is the number of images alone; ``collapsed``
            is empty without a collapse, else "title" and "words" describe it.
        figures: numbers by their name in results.csv; None for a missing one.
        errors: test errors in per cent.
        losses, rates: of the logged batches.
        energies: hyperspherical energy over that at the start, the mean over layers.
        drifts: the largest of all layers.
        is_collapsed: whether it did not come back from a collapse, or to little more than guessing.
    """

    facts: dict[str, Any]
    figures: dict[str, float | None]
    errors: Series
    losses: Series
    rates: Series
    energies: Series
    drifts: Series
    is_collapsed: bool


def _kind(*types: type) -> Callable[[Any], object]:
    return lambda value: isinstance(value, types)


def _number(*types: type, most: float = LARGEST) -> Callable[[Any], object]:
    return lambda value: type(value) in types and 0 <= value <= most  # nan is neither


def _or_none(check: Callable[[Any], object]) -> Callable[[Any], object]:
    return lambda value: value is None or check(value)


COUNT, NUMBER = _number(int, most=2**31 - 1), _number(int, float)
RUN_JSON = {
    "settings": _kind(dict),
    "data": lambda value: isinstance(value, str) and re.search(IMAGES, value, re.ASCII),
    "versions": _kind(dict),
    "git_commit": _or_none(_kind(str)),
    "device": _kind(str),
    "test_accuracy": _number(int, float, most=1),
    "step_ms": _or_none(NUMBER),
    "memory_gib": NUMBER,
    "seconds": NUMBER,
    "collapsed": _or_none(_kind(dict)),
}
SETTINGS = {"iterations": COUNT, "batch_size": COUNT}
COLLAPSED = {
    "state": lambda value: value in ("guessing", "saturated"),
    "iteration": COUNT,
    "rate": NUMBER,
    "until": _or_none(COUNT),
}


def read(folder: pathlib.Path) -> Results | None:
    """Returns the results of the run in ``folder``, None if it has not finished.

    Raises:
        DamagedError: if run.json, or metrics.csv of a finished run, is not one of train.py's.
    """
    path = folder / "run.json"
    if not os.path.lexists(path):
        return None
    try:
        facts = _parsed(read_text(path))
        return _results(facts, _metrics(folder)) if "test_accuracy" in facts else None
    except ValueError as error:
        raise DamagedError(shown(error)) from error


def last_iteration(folder: pathlib.Path) -> int:
    """Returns how far the run in ``folder`` has come.

    Raises:
        ValueError: if metrics.csv does not say so, as while a line is being written.
    """
    return max((int(row["iteration"]) for row in _metrics(folder)), default=0)


def _parsed(text: str) -> dict[str, Any]:
    try:
        return {**json.loads(text)}
    except (ValueError, TypeError, RecursionError) as error:
        raise ValueError("run.json is cut off or not a JSON object") from error


def _check(values: dict[str, Any], checks: dict[str, Callable[[Any], object]]) -> None:
    for name, check in checks.items():
        if not check(values.setdefault(name)):
            raise ValueError(f"run.json has no valid {name}")


def _results(facts: dict[str, Any], rows: Rows) -> Results:
    _check(facts, RUN_JSON)
    _check(facts["settings"], SETTINGS)
    tests, accuracy = _column(rows, "test_acc"), facts["test_accuracy"]
    if list(tests.items())[-1:] != [(facts["settings"]["iterations"] - 1, accuracy)]:
        raise ValueError("metrics.csv does not end with the test that run.json has")
    images = re.search(IMAGES, facts["data"], re.ASCII)
    # a little more than guessing: three times its accuracy, with two classes 3/4
    guesses = accuracy < 3 / (int(images[1]) + 2)
    collapsed = _collapse(facts["collapsed"], rows if guesses else [], int(images[1]))
    facts["versions"] = ", ".join(f"{name} {text}" for name, text in facts["versions"].items())
    facts |= {name: shown(facts[name]) for name in ("versions", "git_commit", "device")}
    facts |= {"data": images[0], "collapsed": collapsed}
    errors = {i: 100 * (1 - accuracy) for i, accuracy in tests.items()}
    energies, drifts = _layers(rows, "energy/"), _layers(rows, "drift/")
    start = next(iter(energies.values()), [])
    kept = [k for k, energy in enumerate(start) if 0 < energy < math.inf]  # of a neuron: 0
    means = {i: statistics.mean(e[k] / start[k] for k in kept) for i, e in energies.items() if kept}
    largest = {i: max(values) for i, values in drifts.items()}
    figures = {
        "best_error": min(errors.values()),
        "last_error": [*errors.values()][-1],
        "collapsed": collapsed.get("iteration"),
        "collapsed_until": collapsed.get("until"),
        **{name: facts[name] for name in ("step_ms", "memory_gib", "seconds")},
        "energy": [None, *means.values()][-1],
        "drift": [None, *largest.values()][-1],
    }
    series = (errors, _column(rows, "fit"), _column(rows, "learning_rate"), means, largest)
    is_collapsed = bool(collapsed) and (collapsed.get("until") is None or guesses)
    return Results(facts, figures, *series, is_collapsed)


def _collapse(noticed: dict[str, Any] | None, rows: Rows, classes: int) -> dict[str, Any]:
    """Returns the collapse that train.py noticed, or that the last logged one of ``rows`` shows."""
    logged = [row for row in rows if {"fit", "acc", "learning_rate"} <= row.keys()]
    if noticed is not None:
        _check(noticed, COLLAPSED)
        found = noticed | {"title": f"collapsed at {noticed['iteration']:,}"}
    elif logged and (state := collapse.state(logged[-1]["fit"], logged[-1]["acc"], classes)):
        found = {"state": state, "title": f"{state} at the end"}
        found |= {"iteration": int(logged[-1]["iteration"]), "rate": logged[-1]["learning_rate"]}
    else:
        return {}
    until = found.get("until")
    end = "" if until is None else f", came back after {until:,}"
    return found | {"words": f"{found['title']} ({found['state']}, rate {found['rate']:g}){end}"}


def _metrics(folder: pathlib.Path) -> Rows:
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


def _column(rows: Rows, name: str) -> Series:
    return {int(row["iteration"]): row[name] for row in rows if name in row}


def _layers(rows: Rows, kind: str) -> dict[int, list[float]]:
    """Returns by iteration the values of the columns that begin with ``kind``."""
    pairs = [(row, [row[name] for name in row if name.startswith(kind)]) for row in rows]
    found = {int(row["iteration"]): values for row, values in pairs if values}
    if len(set(map(len, found.values()))) > 1:
        raise ValueError(f"metrics.csv has {kind} of fewer layers in some lines than in others")
    return found
