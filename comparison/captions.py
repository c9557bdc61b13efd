"""The words around the table: what was run, what came out, and what the figures mean."""

import argparse
from collections.abc import Callable

from common.training.settings import BATCH_SIZE
from comparison import table
from comparison.runs import Run
from comparison.table import Summary

TITLES = {"cifar100": "CIFAR-100", "cifar10": "CIFAR-10", "digits": "digits", "folder": "folder"}


def data_name(args: argparse.Namespace) -> str:
    """Returns such as "CIFAR-100, re-split, 5,000 training images"."""
    words = [TITLES[args.dataset], args.data_note]
    words += [f"{args.train_images:,} training images"] if args.train_images else []
    return ", ".join(filter(None, words))


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
    return f"seed{'s' * (len(summary.runs) > 1)} {listed([run.seed for run in summary.runs])}"


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
    count = " to ".join(map(str, sorted({numbers[0], numbers[-1]})))
    iterations = " and ".join(f"{n:,}" for n in sorted({s.runs[0].iterations for s in summaries}))
    warm = f", warm-up {args.warmup_iterations:,}" if args.warmup_iterations else ""
    seeds = f"{count} seed{'s' * (numbers[-1] > 1)}"
    return f"{data_name(args)}\n{network(args)}, {iterations} iterations{warm}, {seeds}"


def about(summaries: list[Summary], args: argparse.Namespace) -> list[str]:
    """Returns lines that say on what, for how long and with what the runs were made."""
    found = [run.results for summary in summaries for run in summary.ended]

    def distinct(name: str) -> str:
        return "; ".join(dict.fromkeys(getattr(results, name) for results in found))

    course = f"{lengths(summaries)}; {warmup(args)}; {_by_row(summaries, _seeds)}"
    lines = [
        f"{data_name(args)}: {distinct('images') or 'no run finished'}",
        f"{network(args)}, batch {distinct('batch_size') or BATCH_SIZE}; {course}",
    ]
    made = f"{distinct('device')}; {distinct('versions')}; git commit {distinct('git_commit')}"
    return [*lines, made] if found else lines


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
        title = summary.row.title
        came_back = [run for run in summary.standing if run.results.collapse]
        sentences += [f"{title}, seed {run.seed}: {run.failure}." for run in summary.failed]
        if summary.collapsed:
            sentences.append(f"{title} has no result ({_collapses(summary.collapsed)}).")
        if came_back:
            sentences.append(f"{title} collapsed and came back ({_collapses(came_back)}).")
    return sentences


def _collapses(runs: list[Run]) -> str:
    """Returns when and how the runs collapsed."""
    words = []
    for run in runs:
        collapse = run.results.collapse
        how = " in its last batch," if collapse.at_end else ", noticed at"
        at = f"{how} iteration {collapse.iteration:,}, rate {collapse.rate:g}"
        until = "" if collapse.until is None else f", until {collapse.until:,}"
        words.append(f"seed {run.seed}: {collapse.state}{at}{until}")
    return "; ".join(words)


def notes(summaries: list[Summary], args: argparse.Namespace) -> str:
    """Returns what the columns mean."""
    seeds = [len(s.runs) for s in summaries]
    sentences = [
        "Errors are test errors in per cent: the smallest of all tests, and the last.",
        "± is the standard deviation over seeds." if max(seeds) > 1 else "",
        "A row of one seed has no scatter: a small difference may be chance." if 1 in seeds else "",
        "Energy is the hyperspherical energy (s = 1) at the end over that at the start, the mean",
        "over layers. Drift is max |Q Q^T - I| of the matrices that turn the neurons, the largest",
        "of all layers.",
        "A step is timed apart, by benchmarks.steps; it is empty where that has not timed the row."
        if args.steps
        else "A step is the run's mean, tests and the first step left out.",
        "The schedule is shortened: another experiment than the paper's." if args.shortened else "",
    ]
    return " ".join(filter(None, sentences))
