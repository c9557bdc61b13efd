"""What is written into the comparison's folder: results.csv, table.md, the images and report.html."""

import argparse
import base64
import csv
import html
import pathlib

from comparison import pictures, table
from comparison.runs import Run, relative_energy, test_error, training_loss

MARKS = ("<!-- comparison: begin -->", "<!-- comparison: end -->")
COLUMNS = ["method", "seed", "iterations", "status", "best_error", "last_error"]
COLUMNS += ["step_ms", "memory_gib", "energy", "drift", "seconds"]


def write(runs: list[Run], args: argparse.Namespace) -> None:
    """Writes all results into ``--out``."""
    with (args.out / "results.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        writer.writerows(run.result() for run in runs)
    title, about, notes = table.heading(runs, args), table.about(runs, args), table.notes(args)
    cells = table.table(runs, args)
    lines = ["| " + " | ".join(line) + " |" for line in cells]
    lines.insert(1, "|" + "---|" * len(cells[0]))
    (args.out / "table.md").write_text("\n".join([*lines, "", *(f"{a}  " for a in about), "", notes, ""]))
    panels = [
        ("Test error", "test error (%)", lambda _: test_error),
        ("Training loss", "loss of a batch", lambda _: training_loss),
    ]
    pictures.draw(args.out / "curves.png", runs, panels, title)
    energy = [("Hyperspherical energy of the neurons", "energy / energy at the start", relative_energy)]
    pictures.draw(args.out / "energy.png", runs, energy, title)
    (args.out / "report.html").write_text(page(cells, about, notes, args.out))
    if args.readme:
        write_readme(args, (args.out / "table.md").read_text())
    print("\n".join(lines))
    for name in ("results.csv", "table.md", "curves.png", "energy.png", "report.html"):
        print(f"written: {(args.out / name).absolute()}")


def write_readme(args: argparse.Namespace, results: str) -> None:
    """Puts the table and the images between the marks of ``--readme``; the images go into docs/ beside it."""
    docs = args.readme.absolute().parent / "docs"
    docs.mkdir(exist_ok=True)
    for name in ("curves.png", "energy.png"):
        (docs / name).write_bytes((args.out / name).read_bytes())
    before, rest = args.readme.read_text().split(MARKS[0])
    after = rest.split(MARKS[1])[1]
    images = "![Test error and training loss](docs/curves.png)\n\n![Hyperspherical energy](docs/energy.png)"
    args.readme.write_text(f"{before}{MARKS[0]}\n{results}\n{images}\n{MARKS[1]}{after}")


def page(cells: list[list[str]], about: list[str], notes: str, out: pathlib.Path) -> str:
    def row(line: list[str], tag: str) -> str:
        return "<tr>" + "".join(f"<{tag}>{html.escape(cell)}</{tag}>" for cell in line) + "</tr>"

    def image(name: str, width: int) -> str:
        data = base64.b64encode((out / name).read_bytes()).decode()
        return f'<img alt="{name}" width="{width}%" src="data:image/png;base64,{data}">'

    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>OPT: methods side by side</title>
<style>
body {{ font: 16px/1.5 sans-serif; max-width: 70em; margin: 2em auto; padding: 0 1em; color: #111 }}
table {{ border-collapse: collapse; font-variant-numeric: tabular-nums }}
th, td {{ padding: .3em .8em; border-bottom: 1px solid #ccc; text-align: right }}
th:first-child, td:first-child {{ text-align: left }}
img {{ margin-top: 1.5em }}
.about {{ color: #555 }}
</style></head><body>
<h1>Orthogonal Over-Parameterized Training: methods side by side</h1>
<p class="about">{"<br>".join(map(html.escape, about))}</p>
<table><thead>{row(cells[0], "th")}</thead><tbody>{"".join(row(line, "td") for line in cells[1:])}</tbody></table>
<p>{html.escape(notes)}</p>
{image("curves.png", 100)}
{image("energy.png", 60)}
</body></html>
"""
