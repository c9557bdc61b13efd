"""Writes the comparison's files: results.csv, table.md and the images."""

import csv
import pathlib

from comparison import captions, images, table
from comparison.publishing import keep, put
from comparison.runs import Run
from comparison.settings import Comparison

IMAGES = {
    "curves.png": (images.CURVES, "Test error and training loss of each row during training."),
    "energy.png": (images.ENERGIES, "Energy and drift of each row during training."),
}


def write(runs: list[Run], comparison: Comparison) -> None:
    """Writes all results into ``--out``, and into ``--readme`` where there is one."""
    out, summaries = comparison.out, table.summarize(runs)
    lines = table.markdown(summaries, comparison.times)
    about, verdict = captions.about(summaries, comparison), captions.verdict(summaries)
    below = " ".join([*map(table.escape, verdict), captions.notes(comparison)])
    text = [*lines, "", *(f"{table.escape(line)}  " for line in about), "", below, ""]
    _write_csv(out / "results.csv", runs)
    (out / "table.md").write_text("\n".join(text), "utf-8")
    for name, (panels, _) in IMAGES.items():
        images.draw(out / name, summaries, panels, heading="\n".join(about[:2]))
    if comparison.readme:
        for name, (_, alt) in IMAGES.items():
            text += [keep(comparison.readme, out / name, name, alt), ""]
        put(comparison.readme, "comparison", text[:-1])
    print("\n".join([*lines, "", *about[:3], *verdict]))
    print(f"written: results.csv, table.md, {', '.join(IMAGES)} in {out.absolute()}")


def _write_csv(path: pathlib.Path, runs: list[Run]) -> None:
    lines = []
    for run in runs:
        # no HTML; and in many countries a semicolon ends a cell, and the next may be a formula
        status = (run.failure or "finished").translate(str.maketrans("<>;", "() "))
        line = {"method": run.row.name, "seed": run.seed, "iterations": run.iterations}
        lines.append(line | {"status": status} | ({} if run.failure else run.results.figures))
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, max(lines, key=len))  # a failed run has no figures
        writer.writeheader()
        writer.writerows(lines)
