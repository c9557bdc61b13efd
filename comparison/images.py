"""The images: errors, losses, energies and drifts in the course of training."""

import argparse
import dataclasses
import itertools
import math
import pathlib
import statistics
from collections.abc import Callable

import numpy as np

from common.training.startup import default_style
from comparison.captions import data_name, listed
from comparison.results import Results
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
        values_of: takes a run's results and returns values by iteration.
        band: whether one standard deviation over seeds is drawn.
        log: whether the y axis is logarithmic; means are geometric there, and zeros left out.
        noisy: whether each point is the mean over a part of the run, and rows that lie far above
            the others may leave the panel.
    """

    title: str
    label: str
    values_of: Callable[[Results], dict[int, float]]
    band: bool = False
    log: bool = False
    noisy: bool = False


def energy_change(results: Results) -> dict[int, float]:
    return {i: abs(ratio - 1) for i, ratio in results.energies.items()}


def last_errors(results: Results) -> dict[int, float]:
    return {i: error for i, error in results.errors.items() if i > max(results.errors) * 3 / 4}


CURVES = [
    Panel("Test error", "test error (%)", lambda results: results.errors, band=True),
    Panel("Training loss", "loss of batches", lambda results: results.losses, noisy=True),
    Panel("Test error in the last quarter", "test error (%)", last_errors, band=True),
]
ENERGIES = [
    Panel("Energy of the neurons", "E / E at the start", lambda results: results.energies),
    Panel("Change of the energy", "|E / E at the start - 1|", energy_change, log=True),
    Panel("Drift from orthogonality", "max |Q Qᵀ - I|", lambda results: results.drifts, log=True),
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
    seeds = [panel.values_of(run.results) for run in summary.standing or summary.ended]
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


def rate_drops(results: Results) -> list[float]:
    """Returns where the rate had fallen when it was logged, in fractions of the run."""
    pairs, length = itertools.pairwise(results.rates.items()), max(results.errors) + 1
    return [(i + 1) / length for (_, before), (i, rate) in pairs if rate < before * 0.999]


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


@default_style()
def draw(path: pathlib.Path, summaries: list[Summary], panels: list[Panel], heading: str) -> None:
    """Draws three panels, and the legend in the place of a fourth."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 8.4), layout="constrained")
    *axes_of, corner = figure.subplots(2, 2).ravel()
    drawn = list(zip(axes_of, panels, strict=True))
    notes = [_fill(axes, panel, summaries) for axes, panel in drawn]
    for (axes, panel), note in zip(drawn, notes, strict=True):
        # room for a second line, and titles on one height
        axes.set_title(panel.title, pad=19 if any(notes) else None)
        _write(axes, 1.015, note, va="bottom", fontsize=8.5)
    # a row may have nothing in one panel
    entries = [zip(*axes.get_legend_handles_labels(), strict=True) for axes in axes_of]
    legend = {label: line for line, label in itertools.chain(*entries)}
    corner.axis("off")
    if legend:
        corner.legend(legend.values(), legend.keys(), frameon=False, handlelength=3.2, loc="center")
    figure.suptitle(heading, fontsize=11, parse_math=False)  # a $ of the user's note is one
    figure.savefig(path, dpi=DPI)


def _as_share(summaries: list[Summary]) -> bool:
    """Returns whether x is the share of the run, since runs are of different lengths."""
    return len({summary.runs[0].iterations for summary in summaries}) > 1


def _write(axes, y: float, text: str, **style) -> None:
    axes.text(0.5, y, text, ha="center", transform=axes.transAxes, **style)


def _fill(axes, panel: Panel, summaries: list[Summary]) -> str:
    """Draws a panel, and returns what there is to say about it."""
    styles, as_share = styles_of(summary.row for summary in summaries), _as_share(summaries)
    lines = []
    for order, summary in enumerate(summaries):
        line = line_of(summary, panel, as_share)
        if not line:
            continue
        lines.append(line)
        look, every = styles[summary.row.name], max(1, len(line.x) // 8)
        # the first mark is at another point for each row, so that all marks are seen
        marks = {"ms": 5, "markevery": (order * every // len(summaries), every)}
        axes.plot(line.x, line.means, label=summary.row.title, lw=1.5, **marks, **look)
        if panel.band:
            low, high = line.means - line.spread, line.means + line.spread
            axes.fill_between(line.x, low, high, alpha=0.15, color=look["color"], lw=0)
    limits = axes.get_xlim()
    _mark_drops(axes, summaries, styles)
    axes.set(xlim=limits, xlabel="% of the run" if as_share else "iteration", ylabel=panel.label)
    axes.grid(alpha=0.25)
    if not lines:
        _write(axes, 0.5, "nothing to show", color="0.4")
    elif panel.log:
        axes.set_yscale("log")
    else:
        axes.ticklabel_format(axis="y", useOffset=False)
    return _cut(axes, lines) if lines and panel.noisy else ""


def _mark_drops(axes, summaries: list[Summary], styles: dict[str, dict]) -> None:
    """Draws where the rates drop: grey where most rows have it, others' in their colours."""
    drops = {s.row.name: rate_drops(s.ended[0].results) for s in summaries if s.ended}
    usual = statistics.mode(map(tuple, drops.values())) if drops else ()
    marks = [(drop, "0.5") for drop in usual]
    for name, own in drops.items():
        # rates are known at the logged iterations, which are other fractions of a longer run
        others = [drop for drop in own if all(abs(drop - u) > 0.01 for u in usual)]
        marks += [(drop, styles[name]["color"]) for drop in others]
    for drop, color in marks:
        x = 100 * drop if _as_share(summaries) else drop * summaries[0].runs[0].iterations - 1
        axes.axvline(x, color=color, lw=0.9, ls=(0, (1, 2)), zorder=0)


def _cut(axes, lines: list[Line]) -> str:
    """Cuts a panel off where it is to end, and returns what there is to say about it."""
    top = ceiling(lines)
    if top is None:
        return ""
    lowest = min(float(line.means.min()) for line in lines)
    axes.set_ylim(lowest - 0.03 * (top - lowest), top)
    # a line that only starts above needs no word
    above = [line for line in lines if np.mean(line.means > top) > 0.25]
    words = [f"{line.summary.row.title} (up to {line.means.max():.1f})" for line in above]
    return f"above this panel: {listed(words)}" if words else ""


def words(summaries: list[Summary], args: argparse.Namespace) -> dict[str, tuple[str, str]]:
    """Returns by an image's name what stands in its place, with its ends, and its caption."""
    errors = [f"{s.row.title} {mean_and_deviation(s.last_errors)}" for s in summaries if s.standing]
    energies = [(s.row.title, mean_and_deviation(s.values("energy"), 4)) for s in summaries]
    ends = "; ".join(f"{title} {energy}" for title, energy in energies if energy)
    where = f"on {data_name(args)} in the course of training, a line for each row."
    drops = "Dotted: where the rate drops; where it drops elsewhere for a row, in its colour."
    several = any(len(summary.standing) > 1 for summary in summaries)
    band = " The band is one standard deviation over seeds." if several else ""
    return {
        "curves.png": (
            f"Test error and training loss {where} Last test errors in per cent: "
            f"{'; '.join(errors)}.",
            f"Left: error on the test set, below it the last quarter alone.{band} Right: loss of "
            "training batches, the mean of those that were logged in each "
            f"{PARTS}th of the run. {drops}",
        ),
        "energy.png": (
            "Hyperspherical energy of the neurons over that at the start, its change, and drift "
            f"from orthogonality, {where} At the end: {ends}.",
            "Hyperspherical energy (s = 1), the mean over layers; on logarithmic axes, how far it "
            "has moved, and how far from orthogonal the matrices are that turn the neurons, the "
            f"largest of all layers. {drops}",
        ),
    }
