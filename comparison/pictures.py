"""The images: errors, losses and energies against iterations."""

import pathlib
import statistics

import numpy as np

from comparison.runs import Run
from comparison.styles import style
from comparison.table import rows_of


def draw(path: pathlib.Path, runs: list[Run], panels: list[tuple[str, str, object]], title: str) -> None:
    """Draws a panel for each (heading, y label, function of a run's rows that returns a function of a row)."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5.5 * len(panels) + 1.6, 4.2), layout="constrained")
    for axes, (heading, label, value_of) in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels, strict=True):
        for index, own in enumerate(rows_of(runs).values()):
            seeds = [dict(run.series(value_of(run.rows()))) for run in own if not run.failure]
            common = sorted(set.intersection(*map(set, seeds))) if seeds else []
            if not common:
                continue
            values = [[seed[i] for seed in seeds] for i in common]
            means = [statistics.mean(v) for v in values]
            look = style(index)
            axes.plot(common, means, label=own[0].row.title, lw=1.6, ms=5, markevery=max(1, len(common) // 8), **look)
            if len(seeds) > 1:
                spread = [np.std(v, ddof=1) for v in values]
                low, high = zip(*((m - s, m + s) for m, s in zip(means, spread, strict=True)), strict=True)
                axes.fill_between(common, low, high, alpha=0.15, color=look["color"])
        axes.set(title=heading, xlabel="iteration", ylabel=label)
        axes.grid(alpha=0.3)
        axes.ticklabel_format(axis="y", useOffset=False)
    # beside the panels, where it can cover no data
    handles, labels = figure.axes[0].get_legend_handles_labels()
    if handles:
        figure.legend(handles, labels, loc="outside right center", frameon=False)
    figure.suptitle(title)
    figure.savefig(path, dpi=150)
