"""The page: one file with the table, the images and links to the runs; it needs no network."""

import base64
import html
import pathlib
import string
import urllib.parse

from comparison import captions
from comparison.runs import Run
from comparison.settings import Comparison
from comparison.table import LAST, Summary

HEAD = ["method", "seed", "last error %", "folder", "settings"]


def page(
    cells: list[list[str]], summaries: list[Summary], best: Summary | None, comparison: Comparison
) -> str:
    """Returns the page, which is page.html filled in. The images must be in ``--out``.

    Args:
        cells: the table's, the head first.
        summaries: of the table's rows.
        best: the one of them that is marked.
        comparison: the settings.
    """
    about = captions.about(summaries, comparison)
    texts = {
        "title": f"OPT, methods side by side on {captions.data_name(comparison)}",
        "verdict": " ".join(captions.verdict(summaries)),
        "notes": captions.notes(summaries, comparison),
        "runs": "\n".join(about[:2]),
        "machine": "\n".join(about[2:]),
    }
    for name, alt in captions.alternative_texts(comparison).items():
        image = base64.b64encode((comparison.out / name).read_bytes()).decode()
        texts |= {name.replace(".", "_"): image, f"{pathlib.Path(name).stem}_alt": alt}
    values = {name: html.escape(text).replace("\n", "<br>\n") for name, text in texts.items()}
    pairs = zip(cells[1:], summaries, strict=True)
    rows = [_row(line, summary, summary is best) for line, summary in pairs]
    runs = [_run(run) for summary in summaries for run in summary.runs]
    values |= {"results": "\n".join([_head(cells[0]), *rows])}
    values |= {"folders": "\n".join([_head(HEAD), *runs])}
    template = pathlib.Path(__file__).with_name("page.html").read_text("utf-8")
    return string.Template(template).substitute(values)


def _head(cells: list[str]) -> str:
    words = "".join(f'<th scope="col">{html.escape(cell)}</th>' for cell in cells)
    return f"<thead><tr>{words}</tr></thead>"


def _cells(cells: list[str]) -> str:
    return "".join(f"<td>{cell}</td>" for cell in cells)


def _row(line: list[str], summary: Summary, is_best: bool) -> str:
    cells = [html.escape(cell) for cell in line]
    cells[LAST] = f"<b>{cells[LAST]} (best)</b>" if is_best else cells[LAST]
    kind = "result" if summary.valid else "collapsed" if summary.collapsed else "failed"
    return f'<tr class="{"best" if is_best else kind}">{_cells(cells)}</tr>'


def _run(run: Run) -> str:
    link = "runs/" + urllib.parse.quote(run.name)
    folder = f'<a href="{link}/">{html.escape(run.name)}</a>'
    settings = f'<a href="{link}/run.json">run.json</a>' if run.results else ""
    cells = [html.escape(run.row.title), str(run.seed), run.outcome, folder, settings]
    return f"<tr>{_cells(cells)}</tr>"
