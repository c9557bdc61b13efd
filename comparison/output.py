"""Writes the comparison's files: results.csv, table.md, images, and report.html from page.html."""

import base64
import csv
import html
import pathlib
import string
import urllib.parse

from comparison import captions, images, table
from comparison.publishing import keep, put
from comparison.runs import Run
from comparison.settings import Comparison
from comparison.table import LAST, Summary

FIGURES = ["best_error", "last_error", "collapsed", "step_ms", "memory_gib", "energy", "drift"]
FIGURES += ["seconds"]
COLUMNS = ["method", "seed", "iterations", "status", *FIGURES]
IMAGES = {"curves.png": images.CURVES, "energy.png": images.ENERGIES}


def write(runs: list[Run], comparison: Comparison) -> None:
    """Writes all results into ``--out``, and into ``--readme`` where there is one."""
    out, summaries = comparison.out, table.summarize(runs)
    cells, first = table.table(summaries, comparison), table.best_of(summaries)
    best = summaries.index(first) + 1 if first else None  # the number of its row
    about, verdict = captions.about(summaries, comparison), captions.verdict(summaries)
    notes, alts = captions.notes(comparison), captions.alternative_texts(comparison)
    _write_csv(out / "results.csv", runs)
    lines = table.markdown(cells, best)
    below = [*(f"{table.escape(line)}  " for line in about), ""]
    text = [*lines, "", *below, " ".join([*map(table.escape, verdict), notes]), ""]
    (out / "table.md").write_text("\n".join(text), "utf-8")
    heading = f"{captions.data_name(comparison)}\n{captions.course(summaries, comparison)}"
    for name, panels in IMAGES.items():
        images.draw(out / name, summaries, panels, heading)
    texts = {
        "title": f"OPT, methods side by side on {captions.data_name(comparison)}",
        "verdict": " ".join(verdict),
        "notes": notes,
        "runs": "\n".join(about[:2]),
        "machine": "\n".join(about[2:]),
        **{name.replace(".png", "_alt"): alt for name, alt in alts.items()},
    }
    rows = enumerate(zip(cells[1:], summaries, strict=True), start=1)
    results = [_row(line, summary, number == best) for number, (line, summary) in rows]
    heads = ["method", "seed", "last error %", "folder", "settings"]
    tables = {"results": [_head(cells[0]), *results], "folders": [_head(heads), *map(_run, runs)]}
    (out / "report.html").write_text(_page(out, texts, tables), "utf-8")
    if comparison.readme:
        shown = [keep(comparison.readme, out / name, name, alt) for name, alt in alts.items()]
        put(comparison.readme, "comparison", [*text, "\n\n".join(shown)])
    print("\n".join([*lines, "", *about[:2], *verdict]))
    for name in ("results.csv", "table.md", *IMAGES, "report.html"):
        print(f"written: {(out / name).absolute()}")


def _write_csv(path: pathlib.Path, runs: list[Run]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        for run in runs:
            # no HTML; and in many countries a semicolon ends a cell, and the next may be a formula
            status = (run.failure or "finished").translate(str.maketrans("<>;", "() "))
            names = {"method": run.row.name, "seed": run.seed, "iterations": run.iterations}
            figures = {} if run.failure else run.results.figures
            writer.writerow({**names, "status": status, **figures})


def _page(out: pathlib.Path, texts: dict[str, str], tables: dict[str, list[str]]) -> str:
    """Returns the page; it is one file and needs no network."""
    values = {name: html.escape(text).replace("\n", "<br>\n") for name, text in texts.items()}
    values |= {name: "\n".join(lines) for name, lines in tables.items()}
    for name in IMAGES:
        values[name.replace(".", "_")] = base64.b64encode((out / name).read_bytes()).decode()
    template = pathlib.Path(__file__).with_name("page.html").read_text("utf-8")
    return string.Template(template).substitute(values)


def _head(cells: list[str]) -> str:
    words = "".join(f'<th scope="col">{html.escape(cell)}</th>' for cell in cells)
    return f"<thead><tr>{words}</tr></thead>"


def _row(line: list[str], summary: Summary, is_best: bool) -> str:
    cells = [html.escape(cell) for cell in line]
    cells[LAST] = f"<b>{cells[LAST]} (best)</b>" if is_best else cells[LAST]
    kind = "result" if summary.valid else "collapsed" if summary.collapsed else "failed"
    words = "".join(f"<td>{cell}</td>" for cell in cells)
    return f'<tr class="{"best" if is_best else kind}">{words}</tr>'


def _run(run: Run) -> str:
    link = "runs/" + urllib.parse.quote(run.name)
    folder = f'<a href="{link}/">{html.escape(run.name)}</a>'
    settings = f'<a href="{link}/run.json">run.json</a>' if run.results else ""
    cells = [html.escape(run.row.title), str(run.seed), run.outcome, folder, settings]
    return f"<tr>{''.join(f'<td>{cell}</td>' for cell in cells)}</tr>"
