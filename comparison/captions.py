"""The words around the table: what was run on what, what the figures mean, and what they do not show."""

import argparse
import re
from collections.abc import Callable

from comparison import table
from comparison.table import Summary

TITLES = {"cifar100": "CIFAR-100", "cifar10": "CIFAR-10", "digits": "digits"}


def data_name(args: argparse.Namespace) -> str:
    """Returns the data set's name with ``--data_note``, such as "CIFAR-100, re-split"."""
    return TITLES[args.dataset] + (f", {args.data_note}" if args.data_note else "")


def listed(names: list[str]) -> str:
    """Returns "a", "a and b" or "a, b and c"; with semicolons where a name has a comma."""
    mark = "; " if any("," in name for name in names) else ", "
    return mark.join([*names[:-2], " and ".join(names[-2:])])


def _by_row(summaries: list[Summary], words_of: Callable[[Summary], str]) -> str:
    """Returns what holds for most rows, and in brackets what holds for others."""
    rows: dict[str, list[str]] = {}
    for summary in summaries:
        rows.setdefault(words_of(summary), []).append(summary.row.title)
    common = max(rows, key=lambda words: len(rows[words]))
    others = [f"{listed(titles)}: {words}" for words, titles in rows.items() if words != common]
    return common + (f" ({'; '.join(others)})" if others else "")


def _seeds(summary: Summary) -> str:
    seeds = [run.seed for run in summary.runs]
    return f"seed{'s' * (len(seeds) > 1)} {listed(seeds)}"


def lengths(summaries: list[Summary]) -> str:
    """Returns such as "7,500 iterations (S-OPT (GS): 30,000 iterations)"."""
    return _by_row(summaries, lambda s: f"{s.runs[0].iterations:,} iterations")


def warmup(args: argparse.Namespace) -> str:
    count = args.warmup_iterations
    return f"a linear warm-up over the first {count:,}" if count else "no warm-up"


def network(args: argparse.Namespace) -> str:
    widths = "each method's own widths" if args.widths == "own" else f"widths {args.widths}"
    return f"{args.backbone}, {widths}"


def heading(summaries: list[Summary], args: argparse.Namespace) -> str:
    """Returns the two lines above an image: the data set, and what ran on it."""
    numbers = sorted({len(s.runs) for s in summaries})
    count = " to ".join(str(number) for number in dict.fromkeys((numbers[0], numbers[-1])))
    iterations = " and ".join(f"{n:,}" for n in sorted({s.runs[0].iterations for s in summaries}))
    warm = f", warm-up {args.warmup_iterations:,}" if args.warmup_iterations else ""
    seeds = f"{count} seed{'s' * (numbers[-1] > 1)}"
    return f"{data_name(args)}\n{network(args)}, {iterations} iterations{warm}, {seeds}"


def about(summaries: list[Summary], args: argparse.Namespace) -> list[str]:
    """Returns lines that say on what, for how long and with what the runs were made."""
    facts = [run.facts() for summary in summaries for run in summary.ended]

    def distinct(value_of: Callable[[dict], str]) -> str:
        return "; ".join(dict.fromkeys(value_of(fact) for fact in facts))

    counts = distinct(lambda fact: re.sub(r".*? from .*: ", "", fact["data"]))
    lines = [
        f"{data_name(args)}: {counts or 'no run finished'}",
        f"{network(args)}, batch {args.batch_size}; {lengths(summaries)}; {warmup(args)}; {_by_row(summaries, _seeds)}",
    ]
    if not facts:
        return lines
    versions = distinct(lambda fact: ", ".join(f"{k} {v}" for k, v in fact["versions"].items()))
    commit = distinct(lambda fact: str(fact["git_commit"]))
    return [*lines, distinct(lambda fact: fact["device"]), versions, f"git commit {commit}"]


def verdict(summaries: list[Summary]) -> list[str]:
    """Returns sentences on which row is the best, which are as good, and which collapsed."""
    sentences = []
    if best := table.best_of(summaries):
        errors = table.mean_and_deviation(best.last_errors)
        sentences.append(f"Best, by the smallest last error: {best.row.title} with {errors} %.")
        if near := table.as_good(best, summaries):
            names = listed([summary.row.title for summary in near])
            sentences.append(f"The scatter of the seeds does not tell it from {names}.")
    for summary in summaries:
        sentences += [f"{summary.row.title}, seed {run.seed}: {run.failure}." for run in summary.failed]
        for run in summary.ended:
            if collapse := run.collapse():
                sentences.append(_on_collapse(summary, run.seed, collapse, run.is_collapsed()))
    return sentences


def _on_collapse(summary: Summary, seed: str, collapse: dict, to_the_end: bool) -> str:
    state = {"guessing": "guessing", "saturated": "its scores saturated"}.get(collapse["state"], collapse["state"])
    start = f"{summary.row.title}, seed {seed}, collapsed ({state}, noticed at iteration {collapse['iteration']:,}"
    if to_the_end:
        return f"{start}, rate {collapse['rate']:g}) and did not come back: it has no result."
    return f"{start}, rate {collapse['rate']:g}) and came back after iteration {collapse['until']:,}."


def notes(summaries: list[Summary], args: argparse.Namespace) -> str:
    """Returns what the columns mean."""
    several = any(len(s.runs) > 1 for s in summaries)
    sentences = [
        "Errors are test errors in per cent: the smallest of all tests, and the last.",
        "± is the standard deviation over seeds." if several else "",
        "A row of one seed has no scatter: a small difference from it may be chance."
        if any(len(s.runs) == 1 for s in summaries)
        else "",
        "Energy is the hyperspherical energy (s = 1) at the end over that at the start, the mean over layers.",
        "Drift is max |Q Q^T - I| of the matrices that turn the neurons, the largest of all layers.",
        "A step is timed apart from the runs, by benchmarks.steps; it does not time rows with settings."
        if args.steps
        else "A step is the run's mean, tests and the first step left out.",
        "The schedule is shortened: another experiment than the paper's, and no small copy of it." if args.shortened else "",
    ]
    return " ".join(filter(None, sentences))


def alts(summaries: list[Summary], args: argparse.Namespace) -> dict[str, str]:
    """Returns what stands in an image's place by its file's name: what it shows and where its lines end."""
    errors = [f"{s.row.title} {table.mean_and_deviation(s.last_errors)}" for s in summaries if s.standing]
    energies = []
    for summary in summaries:
        values = [run.result()["energy"] for run in summary.ended]
        if values and None not in values:
            energies.append(f"{summary.row.title} {table.mean_and_deviation(values, 4)}")
    where = f"on {data_name(args)} in the course of training, a line a method."
    return {
        "curves.png": f"Test error and training loss {where} Last test errors in per cent: {'; '.join(errors)}.",
        "energy.png": f"Hyperspherical energy of the neurons over that at the start, its change, and the drift from "
        f"orthogonality, {where} Energy at the end: {'; '.join(energies)}.",
    }


def under_images(summaries: list[Summary]) -> dict[str, str]:
    """Returns the caption of each image by its file's name."""
    shared = " Dotted: where the rate drops; where it drops elsewhere for a row, in its colour."
    if any(len(s.standing) > 1 for s in summaries):
        shared += " Bands: one standard deviation over seeds, of logarithms on logarithmic axes."
    return {
        "curves.png": "Left: error on the test set. Right: loss of the training batch at that iteration." + shared,
        "energy.png": "Hyperspherical energy (s = 1), the mean over layers, and on logarithmic axes how far it has moved and "
        "how far from orthogonal the matrices are that turn the neurons, the largest of all layers." + shared,
    }
