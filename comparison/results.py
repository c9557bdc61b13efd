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
from typing import Any

from common.training import collapse
from common.training.settings import BATCH_SIZE
from common.training.texts import read_text, shown
from comparison.rows import plain

IMAGES = r"[\d,]{1,12} training and [\d,]{1,12} test images of ([1-9]\d{0,6}) classes$"
LAYERS = ("energy/", "drift/")  # how the columns of layers begin
LARGEST = 1e39  # beyond float32


class DamagedError(Exception):
    """A file of a run is not what train.py writes; the message is one line, safe to show."""


@dataclasses.dataclass(frozen=True)
class Collapse:
    """A collapse that train.py noticed, or one that the last batch shows.

    Attributes:
        state: "guessing" or "saturated".
        iteration: where it was noticed.
        rate: the learning rate there.
        until: the last iteration of it; None for a run that did not come back.
        at_end: whether only the last batch shows it, as in runs that are too short for train.py to
            call it a collapse.
    """

    state: str
    iteration: int
    rate: float
    until: int | None = None
    at_end: bool = False

    @property
    def title(self) -> str:
        return f"{self.state} at the end" if self.at_end else f"collapsed at {self.iteration:,}"


@dataclasses.dataclass(frozen=True)
class Results:
    """What a finished run leaves, as plain values.

    Attributes:
        settings: the flags that it was run with, as `plain` writes them.
        images: such as "50,000 training and 10,000 test images of 100 classes".
        versions, git_commit, device: what it ran with.
        step_ms: milliseconds of a step; None where a resumed run had no step left to make.
        memory_gib: peak memory.
        seconds: how long it took.
        errors: test errors in per cent by iteration, the last one that of the last iteration.
        losses, rates: of the logged batches by iteration.
        energies: hyperspherical energy over that at the start, the mean over layers, by iteration.
        drifts: the largest drift of all layers by iteration.
        collapse: the run's collapse, if it had one.
        is_collapsed: whether it did not come back, or to little more than guessing.
    """

    settings: dict[str, str]
    images: str
    versions: str
    git_commit: str
    device: str
    step_ms: float | None
    memory_gib: float
    seconds: float
    errors: dict[int, float]
    losses: dict[int, float]
    rates: dict[int, float]
    energies: dict[int, float]
    drifts: dict[int, float]
    collapse: Collapse | None
    is_collapsed: bool

    @property
    def batch_size(self) -> str:
        return self.settings["batch_size"]

    @property
    def usual_batch_size(self) -> str:
        """Returns what train.py takes where none is given."""
        return str(min(BATCH_SIZE, int(self.images.split()[0].replace(",", ""))))

    @property
    def best_error(self) -> float:
        return min(self.errors.values())

    @property
    def last_error(self) -> float:
        return next(reversed(self.errors.values()))

    @property
    def energy(self) -> float | None:
        return next(reversed(self.energies.values()), None)

    @property
    def drift(self) -> float | None:
        return next(reversed(self.drifts.values()), None)


def read(folder: pathlib.Path) -> Results | None:
    """Returns what the run in ``folder`` left, None if it has not finished.

    Raises:
        DamagedError: if run.json, or metrics.csv of a finished run, is not what train.py writes.
    """
    path = folder / "run.json"
    if not os.path.lexists(path):
        return None
    try:
        facts = _parsed(read_text(path))
        if "test_accuracy" not in facts.values:
            return None
        return _results(facts, _metrics(folder))
    except (ValueError, RecursionError) as error:
        raise DamagedError(shown(error)) from error


def last_iteration(folder: pathlib.Path) -> int:
    """Returns how far the run in ``folder`` has come.

    Raises:
        ValueError: if metrics.csv does not say so, as while a line is being written.
    """
    return max((int(row["iteration"]) for row in _metrics(folder)), default=0)


class _Facts:
    """A JSON object, whose values are taken with their types; ValueError for one of another."""

    def __init__(self, values: object):
        if not isinstance(values, dict):
            raise ValueError("run.json is not a JSON object")
        self.values = values

    def of(self, name: str, *types: type) -> Any:
        value = self.values.get(name)
        if type(value) not in types:
            raise ValueError(f"run.json has no valid {name}")
        return value

    def number(self, name: str, most: float = LARGEST) -> float:
        value = self.of(name, int, float)
        if not 0 <= value <= most:  # nan is neither
            raise ValueError(f"run.json has no valid {name}")
        return value

    def count(self, name: str) -> int:
        self.of(name, int)
        return int(self.number(name, most=2**31))


def _results(facts: _Facts, rows: list[dict[str, float]]) -> Results:
    settings, versions = _Facts(facts.of("settings", dict)), facts.of("versions", dict)
    images = re.search(IMAGES, facts.of("data", str), re.ASCII)
    if not images:
        raise ValueError("run.json has no valid data")
    tests = _column(rows, "test_acc")
    last = settings.count("iterations") - 1, facts.number("test_accuracy", most=1)
    if [*tests.items()][-1:] != [last]:
        raise ValueError("metrics.csv does not end with the test that run.json has")
    # a little more than guessing: three times its accuracy, with two classes 3/4
    guesses = last[1] < 3 / (int(images[1]) + 2)
    found = _noticed(facts) or (_at_end(rows, int(images[1])) if guesses else None)
    return Results(
        settings={name: plain(_flag(value)) for name, value in settings.values.items()},
        images=images[0],
        versions=shown(", ".join(f"{name} {version}" for name, version in versions.items())),
        git_commit=shown(facts.of("git_commit", str, type(None))),
        device=shown(facts.of("device", str)),
        step_ms=None if facts.values.get("step_ms") is None else facts.number("step_ms"),
        memory_gib=facts.number("memory_gib"),
        seconds=facts.number("seconds"),
        errors={i: 100 * (1 - accuracy) for i, accuracy in tests.items()},
        losses=_column(rows, "fit"),
        rates=_column(rows, "learning_rate"),
        energies=_energies(rows),
        drifts={i: max(values) for i, values in _of_layers(rows, "drift/")},
        collapse=found,
        is_collapsed=found is not None and (found.until is None or guesses),
    )


def _flag(value: object) -> str:
    return (",".join(map(str, value)) if isinstance(value, list) else str(value))[:1000]


def _parsed(text: str) -> _Facts:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError("run.json is cut off or not JSON") from error
    return _Facts(found)


def _noticed(facts: _Facts) -> Collapse | None:
    """Returns the collapse that train.py noticed."""
    if facts.of("collapsed", dict, type(None)) is None:
        return None
    found = _Facts(facts.values["collapsed"])
    until = None if found.values.get("until") is None else found.count("until")
    if (state := found.of("state", str)) not in ("guessing", "saturated"):
        raise ValueError("run.json has no valid state")
    return Collapse(state, found.count("iteration"), found.number("rate"), until)


def _at_end(rows: list[dict[str, float]], classes: int) -> Collapse | None:
    """Returns the collapse that the last logged batch shows, if it does."""
    logged = [row for row in rows if {"fit", "acc", "learning_rate"} <= row.keys()]
    if not logged or not (state := collapse.state(logged[-1]["fit"], logged[-1]["acc"], classes)):
        return None
    return Collapse(state, int(logged[-1]["iteration"]), logged[-1]["learning_rate"], at_end=True)


def _metrics(folder: pathlib.Path) -> list[dict[str, float]]:
    """Returns the rows of metrics.csv, of each the columns that have a value.

    Raises:
        ValueError: if it is not a table of numbers in the order of iterations.
    """
    file = csv.DictReader(io.StringIO(read_text(folder / "metrics.csv"), newline=""), strict=True)
    rows: list[dict[str, float]] = []
    try:
        for line in file:
            rows.append({name: float(text) for name, text in line.items() if text != ""})
            _check(rows[-1], rows[-2]["iteration"] if len(rows) > 1 else 0)
    # TypeError: a line with fewer or more cells than the first
    except (csv.Error, ValueError, TypeError, KeyError) as error:
        raise ValueError(f"metrics.csv: line {file.line_num} is not one of train.py's") from error
    return rows


def _check(row: dict[str, float], before: float) -> None:
    """Raises ValueError or KeyError for a row that train.py does not write."""
    iteration = row["iteration"]
    if not before <= iteration < 2**31 or iteration % 1:
        raise ValueError
    if not 0 <= row.get("test_acc", 0) <= 1:
        raise ValueError
    for name, value in row.items():
        # neurons at the same place have infinite energy
        if not (value >= 0 if name.startswith(LAYERS) else abs(value) < LARGEST):
            raise ValueError


def _column(rows: list[dict[str, float]], name: str) -> dict[int, float]:
    """Returns a column by iteration, where it has values."""
    return {int(row["iteration"]): row[name] for row in rows if name in row}


def _of_layers(rows: list[dict[str, float]], kind: str) -> list[tuple[int, list[float]]]:
    """Returns iterations, and the values of the columns that begin with ``kind``."""
    pairs = []
    for row in rows:
        values = [value for name, value in row.items() if name.startswith(kind)]
        pairs += [(int(row["iteration"]), values)] if values else []
    if len({len(values) for _, values in pairs}) > 1:
        raise ValueError(f"metrics.csv has {kind} of fewer layers in some lines than in others")
    return pairs


def _energies(rows: list[dict[str, float]]) -> dict[int, float]:
    """Returns energies over those at the start, the mean over layers, by iteration."""
    pairs = _of_layers(rows, "energy/")
    start = pairs[0][1] if pairs else []
    kept = [layer for layer, energy in enumerate(start) if 0 < energy < math.inf]
    if not kept:  # a single neuron has no energy
        return {}
    return {i: statistics.mean(own[k] / start[k] for k in kept) for i, own in pairs}
