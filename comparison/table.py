"""The table: each row's figures, means over its seeds, and which row is the best."""

import html
import itertools
import math
import re
import statistics
import textwrap

from comparison.rows import Row
from comparison.runs import Run
from comparison.settings import Comparison

HEAD = ["method", "best error %", "last error %", "ms per step", "x baseline", "memory GiB"]
HEAD += ["energy / start", "drift"]
LAST = HEAD.index("last error %")  # the best row is chosen by it


class Summary:
    """A row's results over its seeds.

    Attributes:
        failed, finished: its runs.
        collapsed, valid: the finished ones that ended collapsed, and the others.
        errors: the last errors of the valid runs.
        title: the row's title, with the number of seeds that its errors leave out.
    """

    def __init__(self, row: Row, runs: list[Run]):
        self.row, self.runs = row, runs
        self.failed = [run for run in runs if run.failure]
        self.finished = [run for run in runs if not run.failure]
        self.collapsed = [run for run in self.finished if run.results.is_collapsed]
        self.valid = [run for run in self.finished if not run.results.is_collapsed]
        self.errors = [run.results.figures["last_error"] for run in self.valid]
        counts = {"failed": len(self.failed), "collapsed": len(self.collapsed) * bool(self.valid)}
        words = [f"{count} of {len(runs)} {state}" for state, count in counts.items() if count]
        self.title = row.title + (f" ({', '.join(words)})" if words else "")

    def values(self, name: str) -> list[float]:
        """Returns a figure of the finished runs, where it is not missing."""
        found = [run.results.figures[name] for run in self.finished]
        return [value for value in found if value is not None]


def summarize(runs: list[Run]) -> list[Summary]:
    """Returns a summary of each row, in the order of ``runs``."""
    return [
        Summary(row, list(group)) for row, group in itertools.groupby(runs, lambda run: run.row)
    ]


def best_of(summaries: list[Summary]) -> Summary | None:
    """Returns the row with the smallest mean last error of those whose runs are all valid.

    Returns None if there are fewer than two: there is nothing to be better than.
    """
    able = [s for s in summaries if len(s.valid) == len(s.runs)]
    return min(able, key=lambda s: statistics.mean(s.errors)) if len(able) > 1 else None


def as_good(best: Summary, summaries: list[Summary]) -> list[Summary]:
    """Returns rows nearer to the best than the standard deviation of a difference of two runs."""
    found = []
    for other in summaries:
        if other is not best and min(len(best.errors), len(other.errors)) > 1:
            deviations = map(statistics.stdev, (best.errors, other.errors))
            distance = statistics.mean(other.errors) - statistics.mean(best.errors)
            found += [other] if distance < math.hypot(*deviations) else []
    return found


def mean_and_deviation(values: list[float], digits: int = 2) -> str:
    """Returns "mean ± standard deviation", the mean alone of one value, and nothing of none."""
    words = [f"{statistics.mean(values):.{digits}f}"] if values else []
    if len(values) > 1:
        finite = all(map(math.isfinite, values))
        words.append(f"{statistics.stdev(values) if finite else math.nan:.{digits}f}")
    return " ± ".join(words)


def table(summaries: list[Summary], comparison: Comparison) -> list[list[str]]:
    """Returns the table's cells, the head first."""
    times = comparison.times
    if times is None:
        steps = {s.row.name: s.values("step_ms") for s in summaries}
        times = {name: statistics.mean(values) for name, values in steps.items() if values}
    plain = times.get("baseline")
    rows = [[s.title, *_errors(s), *_costs(s, times.get(s.row.name), plain)] for s in summaries]
    return [HEAD, *rows]


def _errors(summary: Summary) -> list[str]:
    if summary.valid:
        best = [run.results.figures["best_error"] for run in summary.valid]
        return [mean_and_deviation(best), mean_and_deviation(summary.errors)]
    if summary.collapsed:
        # not the error of guessing, which would read as a result
        return [", ".join(dict.fromkeys(run.outcome for run in summary.collapsed)), ""]
    return [textwrap.shorten(summary.failed[0].failure, 60, placeholder=" ..."), ""]


def _costs(summary: Summary, step: float | None, plain: float | None) -> list[str]:
    """Returns the other cells, from milliseconds of a step and of the baseline's."""
    if not summary.finished:
        return [""] * 5
    drifts = summary.values("drift")
    return [
        "" if step is None else f"{step:.0f}" if step >= 10 else f"{step:.2f}",
        f"{step / plain:.2f}" if step and plain else "",
        f"{max(summary.values('memory_gib')):.2f}",
        mean_and_deviation(summary.values("energy"), 4),
        f"{max(drifts):.0e}" if drifts else "",
    ]


def markdown(cells: list[list[str]], best: int | None) -> list[str]:
    """Returns the table's lines; row number ``best`` of ``cells`` has its last error in bold."""
    rows = [[escape(cell) for cell in row] for row in cells]
    if best is not None:
        rows[best][LAST] = f"**{rows[best][LAST]}**"
    lines = ["| " + " | ".join(row) + " |" for row in rows]
    return [lines[0], "|" + "---|" * len(cells[0]), *lines[1:]]


def escape(text: str) -> str:
    """Returns text for Markdown, without a meaning there: no cell's end, no HTML, no link."""
    return re.sub(r"[|\[\]`\\]", r"\\\g<0>", html.escape(text, quote=False))
