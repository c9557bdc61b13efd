"""The table: each row's figures, means over its seeds, and which row is the best."""

import html
import itertools
import math
import re
import statistics
import textwrap
from collections.abc import Collection

from comparison.rows import Row
from comparison.runs import Run

HEAD = ["method", "last error %", "renewed error %", "ms per step", "x baseline", "memory GiB"]
HEAD += ["energy change %", "drift"]
Times = dict[str, tuple[float, ...]]  # by row: ms per step, over a plain step's, and GiB; or nan


class Summary:
    """A row's results over its seeds; ``errors`` rank it, and are those of the valid runs."""

    def __init__(self, row: Row, runs: list[Run]):
        self.row, self.runs = row, runs
        self.finished = [run for run in runs if not run.failure]
        self.valid = [run for run in self.finished if not run.results.collapse]
        self.errors = {run.seed: run.results.error for run in self.valid}
        counts = {"failed": len(runs) - len(self.finished)}
        counts["collapsed"] = len(self.finished) - len(self.valid) if self.valid else 0
        words = [f"{count} of {len(runs)} {state}" for state, count in counts.items() if count]
        self.title = row.title + (f" ({', '.join(words)})" if words else "")

    def values(self, name: str) -> list[float]:
        """Returns a figure of the finished runs, where it is not missing."""
        found = [run.results.figures[name] for run in self.finished]
        return [value for value in found if value is not None]


def summarize(runs: list[Run]) -> list[Summary]:
    """Returns a summary of each row, in the order of ``runs``."""
    return [Summary(row, list(group)) for row, group in itertools.groupby(runs, lambda r: r.row)]


def best_of(summaries: list[Summary]) -> tuple[Summary, dict[int, float]] | None:
    """Returns the row with the smallest mean error over the seeds of all rows, and its errors.

    Rows with invalid runs do not count; None if there are fewer than two others.
    """
    able = [summary for summary in summaries if len(summary.valid) == len(summary.runs)]
    if len(able) < 2:
        return None
    seeds = sorted(set.intersection(*(set(row.errors) for row in able)))
    found = [(row, {seed: row.errors[seed] for seed in seeds}) for row in able]
    return min(found, key=lambda pair: statistics.mean(pair[1].values())) if seeds else None


def as_good(best: Summary, summaries: list[Summary]) -> list[Summary]:
    """Returns rows nearer to the best than the standard deviation of a difference of two runs."""

    def is_near(other: Summary) -> bool:
        pair = best.errors.values(), other.errors.values()
        spreads = [statistics.stdev(errors) for errors in pair if len(errors) > 1]
        if other is best or len(other.valid) < len(other.runs) or not spreads:
            return False
        difference = statistics.mean(pair[1]) - statistics.mean(pair[0])
        return difference < math.hypot(spreads[0], spreads[-1])  # a row of one seed has no own

    return list(filter(is_near, summaries))


def mean_and_deviation(values: Collection[float], digits: int = 2) -> str:
    """Returns "mean ± standard deviation", the mean alone of one value, and nothing of none."""
    words = [f"{statistics.mean(values):.{digits}f}"] if values else []
    if len(values) > 1:
        finite = all(map(math.isfinite, values))
        words.append(f"{statistics.stdev(values) if finite else math.nan:.{digits}f}")
    return " ± ".join(words)


def markdown(summaries: list[Summary], times: Times | None) -> list[str]:
    """Returns the table's lines; ``times`` are by default as the runs took."""
    if times is None:
        done = {row.row.name: row for row in summaries if row.finished}
        steps = {n: statistics.mean(s.values("step_ms") or [math.nan]) for n, s in done.items()}
        plain = steps.get("baseline") or math.nan
        times = {n: (t, t / plain, max(done[n].values("memory_gib"))) for n, t in steps.items()}
    table, (best, _) = [HEAD], best_of(summaries) or (None, None)
    for summary in summaries:
        errors = [*map(escape, _errors(summary))]
        if summary is best:
            ranking = 1 if errors[1] else 0  # older runs have no renewed error
            errors[ranking] = f"**{errors[ranking]}**"
        costs = _costs(summary, *times.get(summary.row.name, [math.nan] * 3))
        table.append([escape(summary.title), *errors, *costs])
    lines = [f"| {' | '.join(cells)} |" for cells in table]
    return [lines[0], "|" + "---|" * len(HEAD), *lines[1:]]


def _errors(summary: Summary) -> list[str]:
    if summary.valid:
        found = [run.results.figures for run in summary.valid]
        pairs = [[f[name] for f in found] for name in ("last_error", "renewed_error")]
        return ["" if None in values else mean_and_deviation(values) for values in pairs]
    if summary.finished:
        # not the error of guessing, which would read as a result
        return [", ".join(dict.fromkeys(run.results.collapse for run in summary.finished)), ""]
    return [textwrap.shorten(summary.runs[0].failure, 60, placeholder=" ..."), ""]


def _costs(summary: Summary, step: float, ratio: float, memory: float) -> list[str]:
    """Returns the other cells."""
    if not summary.finished:
        return [""] * 5
    drifts = summary.values("drift")
    return [
        "" if math.isnan(step) else f"{step:.0f}" if step >= 10 else f"{step:.2f}",
        "" if math.isnan(ratio) else f"{ratio:.2f}",
        "" if math.isnan(memory) else f"{memory:.2f}",
        mean_and_deviation(summary.values("energy_change")),
        f"{max(drifts):.0e}" if drifts else "",
    ]


def escape(text: str) -> str:
    """Returns text for Markdown, without a meaning there: no cell's end, no HTML, no link."""
    return re.sub(r"[|\[\]`\\]", r"\\\g<0>", html.escape(text, quote=False))
