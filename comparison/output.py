"""What is written into the comparison's folder: results.csv, table.md, images, report.html."""

import argparse
import csv

from comparison import captions, images, page, table
from comparison.publishing import keep, marks, put
from comparison.runs import Run

MARKS = marks("comparison")
COLUMNS = ["method", "seed", "iterations", "status", "best_error", "last_error", "collapsed"]
COLUMNS += ["collapsed_until", "step_ms", "memory_gib", "energy", "drift", "seconds"]
IMAGES = {"curves.png": images.CURVES, "energy.png": images.ENERGIES}


def write(runs: list[Run], args: argparse.Namespace) -> None:
    """Writes all results into ``--out``, and into ``--readme`` where there is one."""
    with (args.out / "results.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        writer.writerows(run.result() for run in runs)
    summaries = table.summarize(runs)
    best = table.best_of(summaries)
    cells = table.table(summaries, args)
    lines = table.markdown(cells, summaries.index(best) + 1 if best else None)
    about, verdict = captions.about(summaries, args), captions.verdict(summaries)
    notes = captions.notes(summaries, args)
    below = [*(f"{table.escape(line)}  " for line in about), ""]
    below += [" ".join([*map(table.escape, verdict), notes]), ""]
    (args.out / "table.md").write_text("\n".join([*lines, "", *below]), "utf-8")
    for name, panels in IMAGES.items():
        images.draw(args.out / name, summaries, panels, captions.heading(summaries, args))
    words = images.words(summaries, args)
    figures = [(args.out / name, *words[name]) for name in IMAGES]
    (args.out / "report.html").write_text(page.page(cells, summaries, best, figures, args), "utf-8")
    if args.readme:
        results = (args.out / "table.md").read_text("utf-8")
        shown = [keep(args.readme, path, path.name, alt) for path, alt, _ in figures]
        put(args.readme, "comparison", [results, "\n\n".join(shown)])
    print("\n".join([*lines, "", *about[:2], *verdict]))
    for name in ("results.csv", "table.md", *IMAGES, "report.html"):
        print(f"written: {(args.out / name).absolute()}")
