"""The images: errors, losses, energies and drifts in the course of training."""

import pathlib
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from comparison.results import Results, Series
from comparison.styles import styles_of
from comparison.table import Summary

PARTS = 25  # of a run, over which a batch's noise is averaged


class Panel(NamedTuple):
    title: str
    label: str
    values_of: Callable[[Results], Series]
    is_log: bool = False


def _losses(results: Results) -> Series:
    parts = np.array_split(np.reshape([*results.losses.items()], (-1, 2)), PARTS)
    # the first part is a fall from wherever a method starts
    return dict(part.mean(0) for part in parts[1:] if len(part))


def _last_errors(results: Results) -> Series:
    return {i: error for i, error in results.errors.items() if i > max(results.errors) * 3 / 4}


CURVES = [
    Panel("Test error", "test error (%)", lambda results: results.errors),
    Panel("Training loss", "loss of batches", _losses),
    Panel("Test error in the last quarter", "test error (%)", _last_errors),
]
ENERGIES = [
    Panel("Energy of the neurons", "E / E at the start", lambda results: results.energies),
    Panel("Change of the energy", "|E / E at the start - 1| (%)", lambda run: run.changes, True),
    Panel("Drift from orthogonality", "max |Q Qᵀ - I|", lambda results: results.drifts, True),
]


def draw(path: pathlib.Path, summaries: list[Summary], panels: list[Panel], heading: str) -> None:
    """Draws three panels, and the legend in the place of a fourth."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 8.4), layout="constrained")
    *axes_of, corner = figure.subplots(2, 2).ravel()
    styles = styles_of(summary.row for summary in summaries)
    lengths = {summary.runs[0].iterations for summary in summaries}
    unit = "iteration" if len(lengths) == 1 else "% of the run"
    for order, summary in enumerate(summaries):
        look = {"lw": 1.5, "ms": 5, **styles[summary.row.name]}
        corner.plot([], [], label=summary.title, **look)
        for axes, panel in zip(axes_of, panels, strict=True):
            x, means, spread = line_of(summary, panel)
            x = 100 * (x + 1) / summary.runs[0].iterations if len(lengths) > 1 else x
            every = max(1, len(x) // 8)
            # the first mark is at another point for each row, so that all marks are seen
            axes.plot(x, means, markevery=(order * every // len(summaries), every), **look)
            if not panel.is_log:
                edges = means - spread, means + spread
                axes.fill_between(x, *edges, alpha=0.15, color=look["color"], lw=0)
    for axes, panel in zip(axes_of, panels, strict=True):
        axes.set(title=panel.title, xlabel=unit, ylabel=panel.label)
        axes.ticklabel_format(axis="y", useOffset=False)
        axes.grid(alpha=0.25)
        if panel.is_log:
            axes.set_yscale("log", nonpositive="mask")  # nothing has changed at the start
    corner.axis("off")
    corner.legend(frameon=False, handlelength=3.2, loc="center")
    figure.suptitle(heading, fontsize=11, parse_math=False)  # a $ of the user's note is one
    figure.savefig(path, dpi=150)


def line_of(summary: Summary, panel: Panel) -> np.ndarray:
    """Returns iterations, means and deviations over seeds, valid if any, ``[3, points]``."""
    seeds = [panel.values_of(run.results) for run in summary.valid or summary.finished]
    common = sorted(set.intersection(*map(set, seeds))) if seeds else []
    if not common:
        return np.empty((3, 0))
    values = np.array([[seed[i] for i in common] for seed in seeds])
    spread = values.std(0, ddof=1) if len(seeds) > 1 else np.zeros(len(common))
    return np.stack([common, values.mean(0), spread])
