"""The table: each row's figures, means over its seeds, and which row is the best."""

import argparse
import csv
import dataclasses
import functools
import html
import itertools
import math
import re
import statistics
import textwrap

from common.training.texts import shown
from comparison.rows import Row
from comparison.runs import Run

HEAD = ["method", "best error %", "last error %", "ms per step", "x baseline", "memory GiB"]
HEAD += ["energy / start", "drift"]
LAST = HEAD.index("last error %")  # what the best row is chosen by


@dataclasses.dataclass(frozen=True)
class Summary:
    """What has come of a row.

    Attributes:
        row: the row.
        runs: one for each seed.
    """

    row: Row
    runs: tuple[Run, ...]

    @property
    def failed(self) -> list[Run]:
        return [run for run in self.runs if run.failure]

    @property
    def ended(self) -> list[Run]:
        return [run for run in self.runs if not run.failure]

    @functools.cached_property
    def collapsed(self) -> list[Run]:
        """Returns the runs that were collapsed at their end; those that came back are results."""
        return [run for run in self.ended if run.results.is_collapsed]

    @functools.cached_property
    def standing(self) -> list[Run]:
        """Returns the runs whose errors are results."""
        return [run for run in self.ended if run not in self.collapsed]

    @functools.cached_property
    def last_errors(self) -> list[float]:
        return [run.results.last_error for run in self.standing]

    @property
    def mean_error(self) -> float:
        return statistics.mean(self.last_errors)

    def values(self, column: str) -> list[float]:
        """Returns what runs that ended have in a column of results.csv, where they have it."""
        found = [getattr(run.results, column) for run in self.ended]
        return [value for value in found if value is not None]

    @property
    def title(self) -> str:
        """Returns the row's title, with the number of seeds that its errors leave out."""
        counts = {"failed": len(self.failed)}
        counts |= {"collapsed": len(self.collapsed)} if self.standing else {}
        words = [f"{count} of {len(self.runs)} {what}" for what, count in counts.items() if count]
        return self.row.title + (f" ({', '.join(words)})" if words else "")


def summarize(runs: list[Run]) -> list[Summary]:
    """Returns a summary of each row, in the order of ``runs``."""
    return [Summary(row, tuple(own)) for row, own in itertools.groupby(runs, lambda run: run.row)]


def best_of(summaries: list[Summary]) -> Summary | None:
    """Returns the row with the smallest last error, of those without a failed or collapsed run.

    Returns None where fewer than two have a result: there is nothing to be better than.
    """
    able = [s for s in summaries if s.standing and not s.failed and not s.collapsed]
    return min(able, key=lambda s: s.mean_error) if len(able) > 1 else None


def as_good(best: Summary, summaries: list[Summary]) -> list[Summary]:
    """Returns the other rows that the scatter of seeds does not tell from the best.

    Those are nearer to its mean than the standard deviation of a difference of two runs.
    """
    several = [s for s in summaries if s is not best and len(s.last_errors) > 1]
    if len(best.last_errors) < 2:
        return []
    own = statistics.stdev(best.last_errors)
    scatter = [math.hypot(own, statistics.stdev(s.last_errors)) for s in several]
    pairs = zip(several, scatter, strict=True)
    return [s for s, deviation in pairs if s.mean_error - best.mean_error < deviation]


def mean_and_deviation(values: list[float], digits: int = 2) -> str:
    """Returns "mean ± standard deviation", the mean alone of one value, and nothing of none."""
    words = [f"{statistics.mean(values):.{digits}f}"] if values else []
    if len(values) > 1:
        finite = all(map(math.isfinite, values))
        words.append(f"{statistics.stdev(values) if finite else math.nan:.{digits}f}")
    return " ± ".join(words)


def table(summaries: list[Summary], args: argparse.Namespace) -> list[list[str]]:
    """Returns the table's cells, the head first."""
    paper, timed = _read_paper(args), read_steps(args)
    if timed is None:
        known = {s.row.name: s.values("step_ms") for s in summaries}
        timed = {name: statistics.mean(steps) for name, steps in known.items() if steps}
    cells = [HEAD + (["paper %"] if args.paper else [])]
    for summary in summaries:
        name = summary.row.name
        costs = _costs(summary, timed.get(name), timed.get("baseline"))
        own = [paper.get(name, "")] if args.paper else []
        cells.append([summary.title, *_errors(summary), *costs, *own])
    return cells


def _errors(summary: Summary) -> list[str]:
    if summary.standing:
        best = [run.results.best_error for run in summary.standing]
        return [mean_and_deviation(best), mean_and_deviation(summary.last_errors)]
    if summary.collapsed:
        # not the error of guessing, which would read as a result
        titles = dict.fromkeys(run.results.collapse.title for run in summary.collapsed)
        return [", ".join(titles), ""]
    return [textwrap.shorten(summary.failed[0].failure, 60, placeholder=" ..."), ""]


def _costs(summary: Summary, step: float | None, plain: float | None) -> list[str]:
    """Returns the cells beside the errors, from milliseconds of a step and the baseline's."""
    if not summary.ended:
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
    lines = []
    for number, line in enumerate(cells):
        words = [escape(cell) for cell in line]
        if number == best:
            words[LAST] = f"**{words[LAST]}**"
        lines.append("| " + " | ".join(words) + " |")
    return [lines[0], "|" + "---|" * len(cells[0]), *lines[1:]]


def escape(text: str) -> str:
    """Returns text for Markdown, without a meaning there: no cell's end, no HTML, no link."""
    return re.sub(r"[|\[\]`\\]", r"\\\g<0>", html.escape(text, quote=False))


def _read_paper(args: argparse.Namespace) -> dict[str, str]:
    if not args.paper:
        return {}
    with args.paper.open(encoding="utf-8") as file:
        return {
            line[0].strip(): shown(line[1].strip()) for line in csv.reader(file) if len(line) >= 2
        }


def read_steps(args: argparse.Namespace) -> dict[str, float] | None:
    """Returns milliseconds by row of ``--steps``, None without it.

    Raises:
        ValueError: if they are not the times of this comparison.
    """
    if not args.steps:
        return None
    if args.backbone != "cnn6" or args.batch_size != 128:
        raise ValueError("benchmarks.steps times cnn6 with batches of 128")
    names = [row.name for row in args.rows]
    with args.steps.open(encoding="utf-8") as file:
        lines = [line for line in csv.DictReader(file) if line.get("method") in names]
    if not all(_is_time(line.get("step_ms")) for line in lines):
        raise ValueError("a step_ms that is no number")
    # rows with settings need no line: their cells stay empty if benchmarks.steps has not timed them
    widths = {line["method"]: line.get("widths") for line in lines}
    plain = [row.name for row in args.rows if not row.flags]
    if others := [name for name in plain if widths.get(name) != args.widths.replace(",", "/")]:
        raise ValueError(f"no times at widths {args.widths} of {', '.join(others)}")
    return {line["method"]: float(line["step_ms"]) for line in lines}


def _is_time(text: str | None) -> bool:
    try:
        return 0 < float(text or "") < math.inf
    except ValueError:
        return False
