"""The image of a run's learning curves."""

import pathlib
from collections.abc import Sequence

import numpy as np


def draw(rows: Sequence[dict], title: str, path: pathlib.Path) -> None:
    """Draws loss and error of ``rows`` of metrics.csv against iterations, as a PNG file."""
    from matplotlib.figure import Figure  # imported here, since it takes a second

    figure = Figure(figsize=(10, 4))
    figure.subplots_adjust(0.08, 0.13, 0.98, 0.84)  # a layout engine would draw it twice
    loss, error = figure.subplots(1, 2)
    batch = {"color": "tab:blue", "label": "training batch", "lw": 1}
    tests = {"color": "tab:orange", "label": "test set", "marker": "o", "ms": 3}
    lines = (loss, "fit", batch), (error, "acc", batch), (error, "test_acc", tests)
    for axes, name, style in lines:
        points = [(row["iteration"], row[name]) for row in rows if name in row]
        if points:
            iterations, values = np.transpose(points)
            axes.plot(iterations, values if axes is loss else 100 * (1 - values), **style)
    loss.set(xlabel="iteration", ylabel="loss (fit)", title="Training loss")
    error.set(xlabel="iteration", ylabel="error (%)", title="Classification error", ylim=(0, None))
    for axes in (loss, error):
        axes.grid(alpha=0.3)
        if axes.lines:
            axes.legend()
    figure.suptitle(title)
    figure.savefig(path, dpi=120)
