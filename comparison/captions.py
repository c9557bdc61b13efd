"""The words below a comparison's table: the data, the runs, the best row, and the columns."""

from common.training.settings import Settings
from comparison.settings import Comparison
from comparison.table import Summary, as_good, best_of, mean_and_deviation

TITLES = {"cifar100": "CIFAR-100", "cifar10": "CIFAR-10"}  # of others their names
COLUMNS = (
    "Errors are test errors in per cent: the smallest of all tests, and the last. ± is the "
    "standard deviation over seeds; with one seed, a small difference may be chance. "
    "Energy is the hyperspherical energy (s = 1) at the end over that at the start, the mean "
    "over layers. Drift is the largest max |Q Q^T - I| of all layers' rotations Q."
)


def about(summaries: list[Summary], comparison: Comparison) -> list[str]:
    """Returns lines on the data, the network, the runs, and the machine with the code."""
    found = [run.results.facts for summary in summaries for run in summary.finished]

    def distinct(name: str) -> str:
        return "; ".join(dict.fromkeys(facts[name] for facts in found))

    title = TITLES.get(comparison.dataset, comparison.dataset)
    data = ", ".join(filter(None, [title, comparison.data_note]))
    count = comparison.warmup_iterations
    words = [comparison.backbone, f"widths {','.join(map(str, comparison.widths))}"]
    words += [f"warm-up {count:,}" if count else "no warm-up"]
    batches = {str(facts["settings"]["batch_size"]) for facts in found}
    words += [f"batch {' and '.join(sorted(batches))}"] if found else []
    made = [distinct("device"), distinct("versions"), f"git commit {distinct('git_commit')}"]
    return [
        f"{data}: {distinct('data') or 'no run finished'}",
        ", ".join(words),
        _lengths(summaries),
        *(["; ".join(made)] if found else []),
    ]


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
    if best := best_of(summaries):
        errors = mean_and_deviation(best.errors)
        sentences.append(f"Best, by the smallest last error: {best.row.title} with {errors} %.")
        if near := "; ".join(other.row.title for other in as_good(best, summaries)):
            sentences.append(f"The scatter of the seeds does not tell it from {near}.")
    for run in (run for summary in summaries for run in summary.runs):
        if words := run.failure or run.results.collapse:
            sentences.append(f"{run.row.title}, seed {run.seed}: {words}.")
    return sentences


def notes(comparison: Comparison) -> str:
    """Returns the meaning of the columns."""
    sentences = [COLUMNS]
    if comparison.steps:
        sentences.append("Steps were timed by benchmarks.steps.")
    if (comparison.iterations or Settings.iterations) < Settings.iterations:
        sentences.append("The schedule is shortened: another experiment than the paper's.")
    return " ".join(sentences)
