"""The images: errors, losses, energies and drifts in the course of training."""

import argparse
import dataclasses
import itertools
import math
import pathlib
import statistics
from collections.abc import Callable

import numpy as np

from comparison.captions import data_name, listed
from comparison.runs import Run
from comparison.styles import styles_of
from comparison.table import Summary, mean_and_deviation

DPI = 150
OUTLIER = 1.5  # a row that lies this many times as high as the median row stretches no panel
PARTS = 25  # of a run, over which a batch's noise is averaged


@dataclasses.dataclass(frozen=True)
class Panel:
    """What is drawn against the iterations.

    Attributes:
        title: above it.
        label: of the y axis.
        values_of: takes a run and returns its values by iteration.
        band: whether one standard deviation over seeds is drawn.
        log: whether the y axis is logarithmic; means are geometric there, and zeros left out.
        noisy: whether each point is the mean over a part of the run, and rows that lie far above
            the others may leave the panel.
    """

    title: str
    label: str
    values_of: Callable[[Run], dict[int, float]]
    band: bool = False
    log: bool = False
    noisy: bool = False


def energy_change(run: Run) -> dict[int, float]:
    return {i: abs(ratio - 1) for i, ratio in run.energies().items()}


CURVES = [
    Panel("Test error", "test error (%)", Run.errors, band=True),
    Panel("Training loss", "loss of batches", lambda run: run.series("fit"), noisy=True),
]
ENERGIES = [
    Panel("Energy of the neurons", "E / E at the start", Run.energies),
    Panel("Change of the energy", "|E / E at the start - 1|", energy_change, log=True),
    Panel("Drift from orthogonality", "max |Q Qᵀ - I|", Run.drifts, log=True),
]


@dataclasses.dataclass(frozen=True)
class Line:
    """A row's mean over seeds.

    Attributes:
        summary: the row's.
        x: iterations, or per cent of the run.
        means: over seeds.
        spread: one standard deviation over seeds; zeros for one seed.
    """

    summary: Summary
    x: np.ndarray
    means: np.ndarray
    spread: np.ndarray


def line_of(summary: Summary, panel: Panel, as_share: bool) -> Line | None:
    """Returns what a panel shows of a row, None where it has nothing.

    Of a row some of whose runs collapsed it shows those that stand, of one with none the collapsed.
    """
    seeds = [panel.values_of(run) for run in summary.standing or summary.ended]
    if panel.log:
        seeds = [{i: math.log(value) for i, value in seed.items() if value > 0} for seed in seeds]
    common = sorted(set.intersection(*map(set, seeds))) if seeds else []
    if not common:
        return None
    x, values = np.array(common, float), np.array([[seed[i] for i in common] for seed in seeds])
    if panel.noisy:
        parts = np.array_split(np.arange(len(common)), min(PARTS, len(common)))
        x = np.array([x[part].mean() for part in parts])
        values = np.stack([values[:, part].mean(1) for part in parts], axis=1)
    spread = values.std(0, ddof=1) if len(seeds) > 1 else np.zeros(len(x))
    means = np.exp(values.mean(0)) if panel.log else values.mean(0)
    x = 100 * (x + 1) / summary.runs[0].iterations if as_share else x
    return Line(summary, x, means, spread)


def rate_drops(run: Run) -> list[float]:
    """Returns where the rate had fallen when it was logged, in fractions of the run."""
    pairs = itertools.pairwise(run.series("learning_rate").items())
    return [(i + 1) / run.iterations for (_, before), (i, rate) in pairs if rate < before * 0.999]


def ceiling(lines: list[Line]) -> float | None:
    """Returns where a panel ends so that one row's outlier does not squeeze the others.

    Returns None where nothing lies far above the rest.
    """
    # a row's first tenth is a fall from wherever it starts
    tops = [float(np.quantile(line.means[len(line.means) // 10 :], 0.95)) for line in lines]
    usual = OUTLIER * statistics.median_low(tops)
    top = max(value for value in tops if value <= usual)
    highest = max(float(line.means.max()) for line in lines)
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
        notes.append(_cut(axes, _lines_of(summaries, panel)) if panel.noisy else "")
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
        if panel.band:
            low, high = line.means - line.spread, line.means + line.spread
            axes.fill_between(line.x, low, high, alpha=0.15, color=look["color"], lw=0)
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
    """Returns which point has the first mark: another for each row, so that all marks are seen."""
    order = [summary.row.name for summary in summaries].index(line.summary.row.name)
    return order * max(1, len(line.x) // 8) // len(summaries)


def _mark_drops(axes, summaries: list[Summary], styles: dict[str, dict]) -> None:
    """Draws where the rates drop: grey where most rows have it, others' in their colours."""
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
    lowest = min(float(line.means.min()) for line in lines)
    axes.set_ylim(lowest - 0.03 * (top - lowest), top)
    # a line that only starts above needs no word
    above = [line for line in lines if np.mean(line.means > top) > 0.25]
    words = [f"{line.summary.row.title} (up to {line.means.max():.1f})" for line in above]
    return f"above this panel: {listed(words)}" if words else ""


def alts(summaries: list[Summary], args: argparse.Namespace) -> dict[str, str]:
    """Returns what stands in an image's place, by its file's name: what it shows, and its ends."""
    errors = [f"{s.row.title} {mean_and_deviation(s.last_errors)}" for s in summaries if s.standing]
    energies = []
    for summary in summaries:
        values = [run.result()["energy"] for run in summary.ended]
        if values and None not in values:
            energies.append(f"{summary.row.title} {mean_and_deviation(values, 4)}")
    where = f"on {data_name(args)} in the course of training, a line for each row."
    at_the_end = f"Last test errors in per cent: {'; '.join(errors)}."
    energy = "Hyperspherical energy of the neurons over that at the start, its change, and drift"
    return {
        "curves.png": f"Test error and training loss {where} {at_the_end}",
        "energy.png": f"{energy} from orthogonality, {where} At the end: {'; '.join(energies)}.",
    }


def under_images(summaries: list[Summary]) -> dict[str, str]:
    """Returns the caption of each image by its file's name."""
    drops = "Dotted: where the rate drops; where it drops elsewhere for a row, in its colour."
    several = any(len(summary.standing) > 1 for summary in summaries)
    band = " The band is one standard deviation over seeds." if several else ""
    return {
        "curves.png": f"Left: error on the test set.{band} Right: loss of training batches, the "
        f"mean of those that were logged in each {PARTS}th of the run. {drops}",
        "energy.png": "Hyperspherical energy (s = 1), the mean over layers; on logarithmic axes, "
        "how far it has moved, and how far from orthogonal the matrices are that turn the neurons, "
        f"the largest of all layers. {drops}",
    }
