"""The page: one file with the table, the images and links to the runs; it needs no network."""

import argparse
import base64
import html
import pathlib
import urllib.parse

from comparison import captions
from comparison.runs import Run
from comparison.table import LAST, Summary, mean_and_deviation

STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; color: #111 }
body { max-width: 70em; margin: 1.5em auto; padding: 0 1em }
h1 { font-size: 1.5em; line-height: 1.25 }
h2 { font-size: 1.2em; margin-top: 2em }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; white-space: nowrap }
th, td { padding: .3em .6em; border-bottom: 1px solid #ccc; text-align: right }
th { vertical-align: bottom; white-space: normal }
th:first-child, td:first-child { text-align: left; white-space: normal; min-width: 7em }
.scroll { overflow-x: auto }
.best { background: #e6f2e6 }
.best b { color: #14521a }
.collapsed { color: #8a2a00 }
figure { margin: 2em 0 }
img { width: 100%; height: auto }
.about, figcaption { color: #444; font-size: .9em; overflow-wrap: anywhere }
@media (max-width: 40em) { th, td { padding: .3em .5em } img { width: 46em } }
"""


def page(
    cells: list[list[str]],
    summaries: list[Summary],
    best: Summary | None,
    figures: list[tuple[pathlib.Path, str, str]],
    args: argparse.Namespace,
) -> str:
    """Returns the page.

    Args:
        cells: the table's, the head first.
        summaries: of the table's rows.
        best: of them, the one to be marked.
        figures: path, text in its place and caption of each image.
        args: the command line's.
    """
    head = f"OPT, methods side by side on {captions.data_name(args)}"
    about = captions.about(summaries, args)
    rows = "\n".join(_row(line, s, s is best) for line, s in zip(cells[1:], summaries, strict=True))
    runs = "\n".join(_run(run, summary) for summary in summaries for run in summary.runs)
    of_runs = ["method", "seed", "last error %", "folder", "settings"]
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{html.escape(head)}</title>
<style>{STYLE}</style></head><body>
<h1>{html.escape(head)}</h1>
<p>{html.escape(" ".join(captions.verdict(summaries)))}</p>
<p class="about" id="caption">{_lines(about[:2])}</p>
{_scroll("Results")}
<table aria-describedby="caption">
<thead><tr>{_head(cells[0])}</tr></thead>
<tbody>
{rows}
</tbody></table>
</div>
<p class="about">{html.escape(captions.notes(summaries, args))}</p>
{"".join(_figure(*figure) for figure in figures)}
<h2>Runs</h2>
{_scroll("Runs")}
<table><thead><tr>{_head(of_runs)}</tr></thead>
<tbody>
{runs}
</tbody></table>
</div>
<p class="about">{_lines(about[2:])}</p>
</body></html>
"""


def _scroll(name: str) -> str:
    """Returns the start of a part that scrolls sideways by itself, by keyboard too."""
    return f'<div class="scroll" tabindex="0" role="region" aria-label="{name}">'


def _head(cells: list[str]) -> str:
    return "".join(f'<th scope="col">{html.escape(cell)}</th>' for cell in cells)


def _cells(cells: list[str]) -> str:
    return "".join(f"<td>{cell}</td>" for cell in cells)


def _lines(texts: list[str]) -> str:
    return "<br>\n".join(map(html.escape, texts))


def _row(line: list[str], summary: Summary, is_best: bool) -> str:
    cells = [html.escape(cell) for cell in line]
    if is_best:
        cells[LAST] = f"<b>{cells[LAST]} (best)</b>"
    kind = "result" if summary.standing else "collapsed" if summary.collapsed else "failed"
    return f'<tr class="{"best" if is_best else kind}">{_cells(cells)}</tr>'


def _run(run: Run, summary: Summary) -> str:
    link = "runs/" + urllib.parse.quote(run.name)
    if run.failure:
        error = run.failure.partition(" ")[0].rstrip(":")  # failed or damaged
    elif run in summary.collapsed:
        error = run.results.collapse.title
    else:
        error = mean_and_deviation([run.results.last_error])
    folder = f'<a href="{link}/">{html.escape(run.name)}</a>'
    settings = f'<a href="{link}/run.json">run.json</a>' if run.results else ""
    return f"<tr>{_cells([html.escape(summary.row.title), run.seed, error, folder, settings])}</tr>"


def _figure(path: pathlib.Path, alt: str, caption: str) -> str:
    data = base64.b64encode(path.read_bytes()).decode()
    image = f'<img alt="{html.escape(alt)}" src="data:image/png;base64,{data}">'
    words = f"<figcaption>{html.escape(caption)}</figcaption>"
    return f"<figure>{_scroll(path.stem.capitalize())}{image}</div>\n{words}</figure>\n"
