"""Writes the comparison's files: results.csv, table.md, images, report.html."""

import csv

from comparison import captions, images, page, table
from comparison.publishing import keep, put
from comparison.runs import Run
from comparison.settings import Comparison

FIGURES = ["best_error", "last_error", "collapsed", "collapsed_until", "step_ms", "memory_gib"]
FIGURES += ["energy", "drift", "seconds"]
COLUMNS = ["method", "seed", "iterations", "status", *FIGURES]
IMAGES = {"curves.png": images.CURVES, "energy.png": images.ENERGIES}


def write(runs: list[Run], comparison: Comparison) -> None:
    """Writes all results into ``--out``, and into ``--readme`` where there is one."""
    out = comparison.out
    with (out / "results.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        for run in runs:
            # no HTML; and in many countries a semicolon ends a cell, and the next may be a formula
            status = (run.failure or "finished").translate(str.maketrans("<>;", "() "))
            figures = {} if run.failure else run.results.figures
            names = {"method": run.row.name, "seed": run.seed, "iterations": run.iterations}
            writer.writerow({**names, "status": status, **figures})
    summaries = table.summarize(runs)
    best = table.best_of(summaries)
    cells = table.table(summaries, comparison)
    lines = table.markdown(cells, summaries.index(best) + 1 if best else None)
    about, verdict = captions.about(summaries, comparison), captions.verdict(summaries)
    notes = [*map(table.escape, verdict), captions.notes(summaries, comparison)]
    text = [*lines, "", *(f"{table.escape(line)}  " for line in about), "", " ".join(notes), ""]
    (out / "table.md").write_text("\n".join(text), "utf-8")
    heading = f"{captions.data_name(comparison)}\n{captions.course(summaries, comparison)}"
    for name, panels in IMAGES.items():
        images.draw(out / name, summaries, panels, heading)
    report = page.page(cells, summaries, best, comparison)
    (out / "report.html").write_text(report, "utf-8")
    if comparison.readme:
        alts = captions.alternative_texts(comparison)
        shown = [keep(comparison.readme, out / name, name, alt) for name, alt in alts.items()]
        put(comparison.readme, "comparison", [*text, "\n\n".join(shown)])
    print("\n".join([*lines, "", *about[:2], *verdict]))
    for name in ("results.csv", "table.md", *IMAGES, "report.html"):
        print(f"written: {(out / name).absolute()}")
