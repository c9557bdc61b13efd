"""Writes the comparison's files: results.csv, the images, and table.md with words about it."""

import csv
import pathlib

from common.errors import UserError
from common.training.texts import shown
from comparison import images, table
from comparison.runs import Run
from comparison.settings import Comparison
from comparison.table import Summary, escape

IMAGES = {"curves.png": images.CURVES, "energy.png": images.ENERGIES}
TITLES = {"cifar100": "CIFAR-100", "cifar10": "CIFAR-10"}  # of others their names
LEGEND = (
    "Errors are test errors in per cent. The last one is of batch normalization's averages, which "
    "lag behind the weights by some 1,000 steps; for the renewed one, which ranks the rows, they "
    "are computed again from training images. ± is the standard deviation over seeds; with "
    "one seed, a small difference may be chance. "
    "The energy's change is |E / E at the start - 1| of the hyperspherical energy E (s = 1), the "
    "mean over layers. Drift is the largest max |Q Q^T - I| of all layers' rotations Q."
)


def write(runs: list[Run], comparison: Comparison) -> None:
    """Writes all results into ``--out``, and prints the table."""
    out, summaries = comparison.out, table.summarize(runs)
    lines = table.markdown(summaries, comparison.times)
    about, sentences = describe(summaries, comparison), verdict(summaries)
    below = " ".join([*map(escape, sentences), LEGEND])
    below += f" Steps and memory are those of {'--steps' if comparison.steps else 'the runs'}."
    if any(run.iterations < run.row.kind.iterations for run in runs):
        below += " The schedule is shortened: another experiment than the paper's."
    text = [*lines, "", *(f"{escape(line)}  " for line in about), "", below, ""]
    _write_csv(out / "results.csv", runs)
    (out / "table.md").write_text("\n".join(text), "utf-8")
    for name, panels in IMAGES.items():
        images.draw(out / name, summaries, panels, heading="\n".join(about[:2]))
    print("\n".join([*lines, "", *about[:3], *sentences]))
    print(f"written: results.csv, table.md, {', '.join(IMAGES)} in {out.absolute()}")


def _write_csv(path: pathlib.Path, runs: list[Run]) -> None:
    lines = []
    for run in runs:
        # no HTML; and a semicolon may end a cell, and the next be a formula
        status = (run.failure or "finished").translate(str.maketrans("<>;", "() "))
        line = {"method": run.row.name, "seed": run.seed, "iterations": run.iterations}
        lines.append(line | {"status": status} | ({} if run.failure else run.results.figures))
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, max(lines, key=len))  # a failed run has no figures
        writer.writeheader()
        writer.writerows(lines)


def describe(summaries: list[Summary], comparison: Comparison) -> list[str]:
    """Returns lines on the data, the network, the runs, and the machine with the code."""
    found = [run.results.facts for summary in summaries for run in summary.finished]
    named = {r.results.facts["identity"]: r.name for row in summaries for r in row.finished}
    if len(named) > 1:
        different = ", ".join(f"{name} has {identity}" for identity, name in named.items())
        raise UserError(f"--out={comparison.out} has runs of different images: {different}")

    def distinct(name: str) -> str:
        return "; ".join(dict.fromkeys(facts[name] for facts in found))

    title = TITLES.get(comparison.dataset, comparison.dataset)
    data = ", ".join(filter(None, [title, shown(comparison.data_note, 100)]))
    widths, count = ",".join(map(str, comparison.widths)), comparison.warmup_iterations
    batches = {str(facts["settings"]["batch_size"]) for facts in found}
    batch = " and ".join(sorted(batches)) or "size by default"
    warmup = f"warm-up {count:,}" if count else "no warm-up"
    lines = [f"{data}: {distinct('data') or 'no run finished'}"]
    lines += [f"{comparison.backbone}, widths {widths}, {warmup}, batch {batch}"]
    lines += [_lengths(summaries)]
    made = f"{distinct('device')}; {distinct('versions')}; git commit {distinct('git_commit')}"
    return [*lines, made] if found else lines


def _lengths(summaries: list[Summary]) -> str:
    """Returns iterations and seeds of most rows, and in brackets those of others."""
    rows: dict[str, list[str]] = {}
    for summary in summaries:
        seeds = ", ".join(str(run.seed) for run in summary.runs)
        words = f"{summary.runs[0].iterations:,} iterations, seed{'s' * (',' in seeds)} {seeds}"
        rows.setdefault(words, []).append(summary.row.title)
    common, *others = sorted(rows, key=lambda words: -len(rows[words]))
    different = [f"{'; '.join(rows[words])}: {words}" for words in others]
    return common + (f" ({'; '.join(different)})" if others else "")


def verdict(summaries: list[Summary]) -> list[str]:
    """Returns sentences on which row is the best, which are as good, which failed or collapsed."""
    sentences = []
    if found := table.best_of(summaries):
        best, errors = found
        common = len(errors) == max(len(row.errors) for row in summaries)
        names = f" with seed{'s' * (len(errors) > 1)} {', '.join(map(str, errors))}"
        by = "" if common else f"{names}, which all rows have"
        mean = table.mean_and_deviation(errors.values())
        sentences.append(f"Best, by the smallest error{by}: {best.row.title} with {mean} %.")
        if near := "; ".join(other.row.title for other in table.as_good(best, summaries)):
            sentences.append(f"The scatter of the seeds does not tell it from {near}.")
    for run in (run for summary in summaries for run in summary.runs):
        if words := run.failure or run.results.collapse:
            sentences.append(f"{run.row.title}, seed {run.seed}: {words}.")
    return sentences
