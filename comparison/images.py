"""The images: errors, losses, energies and drifts in the course of training."""

import dataclasses
import itertools
import math
import pathlib
import statistics
from collections.abc import Callable

import numpy as np

from comparison.captions import listed
from comparison.runs import Run, relative_energy, test_error, training_loss
from comparison.styles import styles_of
from comparison.table import Summary

DPI = 150
OUTLIER = 1.5  # a row whose values are this many times the median row's does not stretch a panel


@dataclasses.dataclass(frozen=True)
class Panel:
    """What is drawn against the iterations.

    Attributes:
        title: above it.
        label: of the y axis.
        value_of: takes a run and returns a function of a row of its metrics.csv.
        log: whether the y axis is logarithmic; zeros are left out there.
        cut: whether rows that lie far above the others may leave the panel.
    """

    title: str
    label: str
    value_of: Callable[[Run], Callable[[dict], float | None]]
    log: bool = False
    cut: bool = False


def energy_change(run: Run) -> Callable[[dict], float | None]:
    ratio = relative_energy(run.rows())
    return lambda row: None if (value := ratio(row)) is None else abs(value - 1)


def drift(_: Run) -> Callable[[dict], float | None]:
    def of(row: dict) -> float | None:
        drifts = [float(value) for name, value in row.items() if name.startswith("drift/") and value]
        return max(drifts) if drifts else None

    return of


CURVES = [
    Panel("Test error", "test error (%)", lambda _: test_error),
    Panel("Training loss", "loss of a batch", lambda _: training_loss, cut=True),
]
ENERGIES = [
    Panel("Energy of the neurons", "E / E at the start", lambda run: relative_energy(run.rows())),
    Panel("Change of the energy", "|E / E at the start - 1|", energy_change, log=True),
    Panel("Drift from orthogonality", "max |Q Qᵀ - I|", drift, log=True),
]


@dataclasses.dataclass(frozen=True)
class Line:
    """A row's mean over seeds: values at ``x``, and one standard deviation below and above."""

    summary: Summary
    x: np.ndarray
    means: np.ndarray
    low: np.ndarray
    high: np.ndarray


def line_of(summary: Summary, panel: Panel, as_share: bool) -> Line | None:
    """Returns what a panel shows of a row, None where it has nothing.

    Of a row some of whose runs collapsed it shows those that stand, of one with none the collapsed ones.
    """
    seeds = [dict(run.series(panel.value_of(run))) for run in summary.standing or summary.ended]
    if panel.log:
        seeds = [{i: math.log10(value) for i, value in seed.items() if value > 0} for seed in seeds]
    common = sorted(set.intersection(*map(set, seeds))) if seeds else []
    if not common:
        return None
    values = np.array([[seed[i] for i in common] for seed in seeds])
    means, spread = values.mean(0), values.std(0, ddof=1) if len(seeds) > 1 else np.zeros(len(common))
    low, high = means - spread, means + spread
    if panel.log:
        means, low, high = 10**means, 10**low, 10**high
    x = np.array(common, float)
    return Line(summary, 100 * (x + 1) / summary.runs[0].iterations if as_share else x, means, low, high)


def rate_drops(run: Run) -> list[float]:
    """Returns where the learning rate fell, in fractions of the run: the first logged iteration after each drop."""
    rates = run.series(lambda row: float(row["learning_rate"]) if row["learning_rate"] else None)
    pairs = itertools.pairwise(rates)
    return [(i + 1) / run.iterations for (_, before), (i, rate) in pairs if rate < before * 0.999]


def ceiling(lines: list[Line]) -> float | None:
    """Returns where a panel is cut off so that one row's outlier does not squeeze the others, None where nothing is."""
    # a row's first tenth is a fall from wherever it starts
    tops = {line.summary.row.name: float(np.quantile(line.high[len(line.high) // 10 :], 0.95)) for line in lines}
    usual = OUTLIER * statistics.median_low(tops.values())
    top = max(value for value in tops.values() if value <= usual)
    highest = max(float(line.high.max()) for line in lines)
    return 1.05 * top if highest > 1.2 * top else None


def draw(path: pathlib.Path, summaries: list[Summary], panels: list[Panel], heading: str) -> None:
    """Draws the panels, two in a line, with the legend below them or in the place of a fourth."""
    from matplotlib.figure import Figure

    lines_of_legend = math.ceil(len(summaries) / 3)
    height = 4.6 + 0.26 * lines_of_legend if len(panels) == 2 else 8.4
    figure = Figure(figsize=(10, height), layout="constrained")
    axes_of = figure.subplots(math.ceil(len(panels) / 2), 2, squeeze=False).ravel()
    legend: dict[str, object] = {}
    notes = []
    for axes, panel in zip(axes_of, panels, strict=False):
        legend |= _fill(axes, panel, summaries)
        notes.append(_cut(axes, _lines_of(summaries, panel)) if panel.cut else "")
    for axes, panel, note in zip(axes_of, panels, notes, strict=False):
        # room for a second line, and titles on one height
        axes.set_title(panel.title, pad=19 if any(notes) else None)
        options = {"ha": "center", "va": "bottom", "fontsize": 8.5}
        axes.text(0.5, 1.015, note, transform=axes.transAxes, **options)
    for axes in axes_of[len(panels) :]:
        axes.axis("off")
    options = {"frameon": False, "handlelength": 3.2}
    if legend and len(panels) < len(axes_of):
        axes_of[-1].legend(legend.values(), legend.keys(), loc="center", **options)
    elif legend:
        position = {"loc": "outside lower center", "ncols": 3}
        figure.legend(legend.values(), legend.keys(), **position, **options)
    figure.suptitle(heading, fontsize=11)
    figure.savefig(path, dpi=DPI)


def _as_share(summaries: list[Summary]) -> bool:
    """Returns whether x is the share of the run, since runs are of different lengths."""
    return len({summary.runs[0].iterations for summary in summaries}) > 1


def _lines_of(summaries: list[Summary], panel: Panel) -> list[Line]:
    lines = [line_of(summary, panel, _as_share(summaries)) for summary in summaries]
    return [line for line in lines if line]


def _fill(axes, panel: Panel, summaries: list[Summary]) -> dict[str, object]:
    """Draws a panel, and returns what stands for each row in the legend."""
    styles = styles_of(summary.row for summary in summaries)
    lines, legend = _lines_of(summaries, panel), {}
    for line in lines:
        look = styles[line.summary.row.name]
        every = (_first_mark(line, summaries), max(1, len(line.x) // 8))
        (drawn,) = axes.plot(line.x, line.means, lw=1.5, ms=5, markevery=every, **look)
        if len(line.summary.standing) > 1:
            axes.fill_between(line.x, line.low, line.high, alpha=0.15, color=look["color"], lw=0)
        legend[line.summary.row.title] = drawn
    _mark_drops(axes, summaries, styles)
    x_label = "% of the run" if _as_share(summaries) else "iteration"
    axes.set(xlabel=x_label, ylabel=panel.label)
    axes.grid(alpha=0.25)
    if not lines:
        options = {"ha": "center", "color": "0.4"}
        axes.text(0.5, 0.5, "nothing to show", transform=axes.transAxes, **options)
    elif panel.log:
        axes.set_yscale("log")
    else:
        axes.ticklabel_format(axis="y", useOffset=False)
    return legend


def _first_mark(line: Line, summaries: list[Summary]) -> int:
    """Returns which point has the first mark: another for each row, so that marks do not cover each other."""
    order = [summary.row.name for summary in summaries].index(line.summary.row.name)
    return order * max(1, len(line.x) // 8) // len(summaries)


def _mark_drops(axes, summaries: list[Summary], styles: dict[str, dict]) -> None:
    """Draws where the rates drop: in grey where the most rows have it, other rows' in their colours."""
    drops = {s.row.name: rate_drops(s.ended[0]) for s in summaries if s.ended}
    usual = max(drops.values(), key=lambda own: list(drops.values()).count(own), default=[])
    length = summaries[0].runs[0].iterations

    def line(drop: float, color: str) -> None:
        x = 100 * drop if _as_share(summaries) else drop * length - 1
        axes.axvline(x, color=color, lw=0.9, ls=(0, (1, 2)), zorder=0)

    for drop in usual:
        line(drop, "0.5")
    for name, own in drops.items():
        # rates are known at the logged iterations, which are other fractions of a longer run
        for drop in (d for d in own if all(abs(d - u) > 0.01 for u in usual)):
            line(drop, styles[name]["color"])


def _cut(axes, lines: list[Line]) -> str:
    """Cuts a panel off where it is to end, and returns what there is to say about it."""
    top = ceiling(lines) if lines else None
    if top is None:
        return ""
    lowest = min(float(line.low.min()) for line in lines)
    axes.set_ylim(lowest - 0.03 * (top - lowest), top)
    # a line that only starts above needs no word
    above = [line for line in lines if np.mean(line.means > top) > 0.25]
    words = [f"{line.summary.row.title} (up to {line.means.max():.1f})" for line in above]
    return f"above this panel: {listed(words)}" if words else ""
