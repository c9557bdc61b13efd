"""The images: errors, losses, energies and drifts in the course of training."""

import itertools
import pathlib
import statistics
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from comparison.results import Results, Series
from comparison.styles import styles_of
from comparison.table import Summary

OUTLIER = 1.5  # a row that is this many times as high as the median row stretches no panel
PARTS = 25  # of a run, over which a batch's noise is averaged


class Panel(NamedTuple):
    """A diagram of a run's values by iteration.

    ``kind``: "band" adds one standard deviation over seeds; "log" has a logarithmic axis, geometric
    means and no zeros; "noisy" averages over parts of the run, and outliers leave the panel.
    """

    title: str
    label: str
    values_of: Callable[[Results], Series]
    kind: str = ""


def _energy_change(results: Results) -> Series:
    return {i: abs(ratio - 1) for i, ratio in results.energies.items()}


def _last_errors(results: Results) -> Series:
    return {i: error for i, error in results.errors.items() if i > max(results.errors) * 3 / 4}


CURVES = [
    Panel("Test error", "test error (%)", lambda results: results.errors, "band"),
    Panel("Training loss", "loss of batches", lambda results: results.losses, "noisy"),
    Panel("Test error in the last quarter", "test error (%)", _last_errors, "band"),
]
ENERGIES = [
    Panel("Energy of the neurons", "E / E at the start", lambda results: results.energies),
    Panel("Change of the energy", "|E / E at the start - 1|", _energy_change, "log"),
    Panel("Drift from orthogonality", "max |Q Qᵀ - I|", lambda results: results.drifts, "log"),
]


def line_of(summary: Summary, panel: Panel) -> np.ndarray | None:
    """Returns a row's line: iterations, means and standard deviations over seeds, ``[3, points]``.

    It is that of the valid runs, or of the collapsed ones if all are; None if it has no values.
    """
    seeds = [panel.values_of(run.results) for run in summary.valid or summary.finished]
    if panel.kind == "log":
        seeds = [{i: value for i, value in seed.items() if value > 0} for seed in seeds]
    common = sorted(set.intersection(*map(set, seeds))) if seeds else []
    if not common:
        return None
    points = np.array([common, *([seed[i] for i in common] for seed in seeds)], float)
    if panel.kind == "noisy":
        parts = np.array_split(points, min(PARTS, len(common)), axis=1)
        points = np.stack([part.mean(1) for part in parts], axis=1)
    x, values = points[0], points[1:]
    means = np.exp(np.log(values).mean(0)) if panel.kind == "log" else values.mean(0)
    return np.stack([x, means, values.std(0, ddof=1) if len(seeds) > 1 else 0 * x])


def rate_drops(results: Results) -> list[float]:
    """Returns where the rate had fallen when it was logged, in fractions of the run."""
    pairs, length = itertools.pairwise(results.rates.items()), max(results.errors) + 1
    return [(i + 1) / length for (_, before), (i, rate) in pairs if rate < before * 0.999]


def draw(path: pathlib.Path, summaries: list[Summary], panels: list[Panel], heading: str) -> None:
    """Draws three panels, and the legend in the place of a fourth."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 8.4), layout="constrained")
    *axes_of, corner = figure.subplots(2, 2).ravel()
    for axes, panel in zip(axes_of, panels, strict=True):
        fill(axes, panel, summaries)
    # a row may have nothing in one panel
    entries = [zip(*axes.get_legend_handles_labels(), strict=True) for axes in axes_of]
    legend = {label: line for line, label in itertools.chain(*entries)}
    corner.axis("off")
    if legend:
        corner.legend(legend.values(), legend.keys(), frameon=False, handlelength=3.2, loc="center")
    figure.suptitle(heading, fontsize=11, parse_math=False)  # a $ of the user's note is one
    figure.savefig(path, dpi=150)


def fill(axes, panel: Panel, summaries: list[Summary]) -> None:
    """Draws a panel."""
    styles = styles_of(summary.row for summary in summaries)
    longest = max(summary.runs[0].iterations for summary in summaries)
    as_share = any(summary.runs[0].iterations < longest for summary in summaries)
    tops = []
    for order, summary in enumerate(summaries):
        if (line := line_of(summary, panel)) is None:
            continue
        x, means, spread = line
        x = 100 * (x + 1) / summary.runs[0].iterations if as_share else x
        look, every = styles[summary.row.name], max(1, len(x) // 8)
        # the first mark is at another point for each row, so that all marks are seen
        marks = {"ms": 5, "markevery": (order * every // len(summaries), every)}
        axes.plot(x, means, label=summary.row.title, lw=1.5, **marks, **look)
        if panel.kind == "band":
            edges = means - spread, means + spread
            axes.fill_between(x, *edges, alpha=0.15, color=look["color"], lw=0)
        # a row's first tenth is a fall from wherever it starts
        tops.append(float(np.quantile(means[len(means) // 10 :], 0.95)))
    limits = axes.get_xlim()
    finished = [run.results for summary in summaries for run in summary.finished]
    for drop in rate_drops(finished[0]) if finished else []:  # it drops at the same share of all
        x = 100 * drop if as_share else drop * longest - 1
        axes.axvline(x, color="0.5", lw=0.9, ls=(0, (1, 2)), zorder=0)
    axes.set(xlim=limits, xlabel="% of the run" if as_share else "iteration", ylabel=panel.label)
    axes.set_title(panel.title)
    axes.grid(alpha=0.25)
    if panel.kind == "log":
        axes.set_yscale("log")
    else:
        axes.ticklabel_format(axis="y", useOffset=False)
    if panel.kind == "noisy" and tops:
        usual = max(top for top in tops if top <= OUTLIER * statistics.median_low(tops))
        axes.set_ylim(top=min(axes.get_ylim()[1], 1.2 * usual))
