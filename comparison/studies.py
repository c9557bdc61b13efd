"""Two pictures of the finished runs in several comparisons' folders.

    python -m comparison.studies docs/runs/7500 docs/runs/75000_warmup --out=results/studies

images.png: test error against the number of training images, of at most five rows. fit.png:
test error against training loss at the end, of all rows. Small marks are seeds, large ones means.
"""

import collections
import itertools
import pathlib
from typing import Any, NamedTuple

import numpy as np

from common.errors import UserError
from common.training.command_line import Options, as_text, run_program, setting
from common.training.methods import known
from common.training.texts import shown
from comparison.results import read
from comparison.rows import Row, parse, settable
from comparison.styles import styles_of

NETWORK = {"widths": "widths", "iterations": "iterations", "warmup_iterations": "warm-up"}
SAME = ("dataset", "image_size", "backbone", "batch_size")  # of all runs in a picture
MOST = 5  # rows in images.png


class Study(Options):
    folders: tuple[str, ...] = setting((), "folders of comparisons", positional=True)
    methods: tuple[str, ...] = setting((), "at most 5 rows of images.png (default: the first ones)")
    out: pathlib.Path = setting(pathlib.Path("results"), "folder of the pictures")


class Point(NamedTuple):
    """A row with one network and number of training images: ``[seeds, 2]`` losses and errors."""

    row: Row
    network: str
    images: int
    values: np.ndarray


def points(folders: tuple[str, ...]) -> list[Point]:
    """Returns the points of all valid runs.

    Raises:
        UserError: for a damaged run, no valid one, or runs of other data, networks or batches.
    """
    found: dict[tuple, list[tuple[float, float]]] = {}
    kinds, splits = set(), collections.defaultdict(set)
    for path in sorted({path for name in folders for path in pathlib.Path(name).glob("runs/*")}):
        try:
            results = read(path)
        except ValueError as error:
            raise UserError(f"{path}: {shown(error)}") from error
        if results is None or results.collapse:
            print(f"left out: {path}: {'collapsed' if results else 'not finished'}")
            continue
        kinds.add(tuple(shown(results.facts["settings"].get(name)) for name in SAME))
        splits[results.images].add(results.facts["identity"])
        settings, figures = results.facts["settings"], results.figures
        words = [f"{word} {shown(as_text(settings.get(name)))}" for name, word in NETWORK.items()]
        key = _row(settings), ", ".join(words), results.images
        found.setdefault(key, []).append((figures["training_loss"], results.error))
    if not found:
        raise UserError("no valid run in these folders; they must have runs/ROW_seedN")
    if len(kinds) > 1:
        raise UserError(f"the runs differ in {', '.join(SAME)}: {' and '.join(map(str, kinds))}")
    if several := [f"{count:,}" for count, sums in splits.items() if len(sums) > 1]:
        raise UserError(f"the runs with {', '.join(several)} training images have different ones")
    rows = parse(row.name for row, *_ in found)
    keys = sorted(found, key=lambda key: (rows.index(key[0]), *key[1:]))
    return [Point(*key, np.array(found[key])) for key in keys]


def selected(found: list[Point], methods: tuple[str, ...]) -> list[Point]:
    """Returns the points of ``methods``, by default of the first rows."""
    able = list(dict.fromkeys(point.row for point in found))
    rows = parse(methods) or able[:MOST]
    if len(rows) > MOST or not set(able) >= set(rows):
        raise UserError(f"--methods must name at most {MOST} rows, each with a valid run")
    return [point for point in found if point.row in rows]


def _row(settings: dict[str, Any]) -> Row:
    method = str(settings.get("method"))
    kind = known().get(method)
    names = settings.keys() & settable(kind) if kind else ()  # a newer one has its default
    words = [f"{n}={as_text(settings[n])}" for n in names if settings[n] != getattr(kind, n)]
    return parse([":".join([method, *words])])[0]


def draw(path: pathlib.Path, found: list[Point], by_loss: bool) -> None:
    """Draws test errors against training losses, or against numbers of training images."""
    from matplotlib.figure import Figure

    looks = styles_of(dict.fromkeys(point.row for point in found))
    fills = ("full", "none", "left", "bottom", "right", "top") * 9  # by the network
    fills = dict(zip(dict.fromkeys(point.network for point in found), fills, strict=False))
    legend = {row.title: looks[row.name] for row, *_ in found}
    legend |= {n: {"marker": "o", "ls": "", "color": "0.4", "fillstyle": fills[n]} for n in fills}
    figure = Figure(figsize=(4.8, 4 + 0.19 * len(legend)), layout="constrained")  # for phones
    axes = figure.subplots()
    sizes = sorted({point.images for point in found})
    for (row, network), group in itertools.groupby(found, lambda point: point[:2]):
        line = list(group)
        values = [p.values if by_loss else [(p.images, y) for _, y in p.values] for p in line]
        means = np.array([np.mean(value, axis=0) for value in values])
        axes.plot(*means.T, lw=1.3, ms=7, fillstyle=fills[network], **looks[row.name])
        axes.plot(*np.concatenate(values).T, **looks[row.name] | {"ls": "", "ms": 3, "alpha": 0.6})
        for place, point in zip(means, line, strict=True):
            if by_loss and row == found[0].row:
                axes.annotate(f"{point.images:,} ", place, fontsize=9, ha="right", va="top")
    for label, look in legend.items():
        axes.plot([], [], label=label, **look)
    axes.set(xlabel="training loss at the end (numbers: training images)", ylabel="test error (%)")
    axes.margins(x=0.15)
    if not by_loss:
        axes.set(xlabel="training images", xscale="log")
        axes.set_xticks(sizes, [f"{size:,}" for size in sizes])
        axes.minorticks_off()
    axes.grid(alpha=0.3)
    figure.legend(loc="outside lower center", fontsize=8.5, frameon=False, handlelength=3.5)
    figure.savefig(path, dpi=200)


def main(study: Study) -> None:
    found = points(study.folders)
    some = selected(found, study.methods)
    study.out.mkdir(parents=True, exist_ok=True)
    draw(study.out / "images.png", some, by_loss=False)
    draw(study.out / "fit.png", found, by_loss=True)
    print(f"written: images.png and fit.png in {study.out.absolute()}")


if __name__ == "__main__":
    run_program(Study, main, "comparison.studies")
