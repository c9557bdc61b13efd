"""The words around the table: the data, the runs, the result, and the meaning of the columns."""

from collections.abc import Callable

from common.training.settings import Settings
from comparison.settings import Comparison
from comparison.table import Summary, as_good, best_of, mean_and_deviation

TITLES = {"cifar100": "CIFAR-100", "cifar10": "CIFAR-10"}  # of others their names


def data_name(comparison: Comparison) -> str:
    """Returns such as "CIFAR-100, re-split, 5,000 training images"."""
    words = [TITLES.get(comparison.dataset, comparison.dataset), comparison.data_note]
    words += [f"{comparison.train_images:,} training images"] if comparison.train_images else []
    return ", ".join(filter(None, words))


def listed(names: list[str]) -> str:
    """Returns "a", "a and b" or "a, b and c"; with semicolons where a name has a comma."""
    mark = "; " if any("," in name for name in names) else ", "
    return mark.join([*names[:-2], " and ".join(names[-2:])])


def _by_row(summaries: list[Summary], words_of: Callable[[Summary], str]) -> str:
    """Returns the words of most rows, and in brackets those of others."""
    rows: dict[str, list[str]] = {}
    for summary in summaries:
        rows.setdefault(words_of(summary), []).append(summary.row.title)
    common = max(rows, key=lambda words: len(rows[words]))
    others = [f"{listed(titles)}: {words}" for words, titles in rows.items() if words != common]
    return common + (f" ({'; '.join(others)})" if others else "")


def _seeds(summary: Summary) -> str:
    seeds = [str(run.seed) for run in summary.runs]
    return f"seed{'s' * (len(seeds) > 1)} {listed(seeds)}"


def course(summaries: list[Summary], comparison: Comparison) -> str:
    """Returns such as "cnn6, widths 32,32,32,32; 7,500 iterations, warm-up 400"."""
    widths, count = ",".join(map(str, comparison.widths)), comparison.warmup_iterations
    lengths = _by_row(summaries, lambda s: f"{s.runs[0].iterations:,} iterations")
    warmup = f"warm-up {count:,}" if count else "no warm-up"
    return f"{comparison.backbone}, widths {widths}; {lengths}, {warmup}"


def about(summaries: list[Summary], comparison: Comparison) -> list[str]:
    """Returns lines on the data, on the network and its training, on the machine and the code."""
    found = [run.results.facts for summary in summaries for run in summary.finished]

    def distinct(name: str) -> str:
        return "; ".join(dict.fromkeys(facts[name] for facts in found))

    batches = " and ".join(sorted({str(facts["settings"]["batch_size"]) for facts in found}))
    trained = f"{course(summaries, comparison)}; batch {batches or 'size by default'}"
    lines = [f"{data_name(comparison)}: {distinct('data') or 'no run finished'}"]
    lines += [f"{trained}; {_by_row(summaries, _seeds)}"]
    made = f"{distinct('device')}; {distinct('versions')}; git commit {distinct('git_commit')}"
    return [*lines, made] if found else lines


def verdict(summaries: list[Summary]) -> list[str]:
    """Returns sentences on which row is the best, which are as good, which failed or collapsed."""
    sentences = []
    if best := best_of(summaries):
        errors = mean_and_deviation(best.errors)
        sentences.append(f"Best, by the smallest last error: {best.row.title} with {errors} %.")
        if near := as_good(best, summaries):
            names = listed([summary.row.title for summary in near])
            sentences.append(f"The scatter of the seeds does not tell it from {names}.")
    for summary in summaries:
        for run in summary.runs:
            words = run.failure or (run.outcome if run.results.is_collapsed else "")
            sentences += [f"{summary.row.title}, seed {run.seed}: {words}."] if words else []
    return sentences


def notes(comparison: Comparison) -> str:
    """Returns the meaning of the columns."""
    is_shortened = (comparison.iterations or Settings.iterations) < Settings.iterations
    sentences = {
        "Errors are test errors in per cent: the smallest of all tests, and the last. ± is the "
        "standard deviation over seeds; with one seed, a small difference may be chance. "
        "Energy is the hyperspherical energy (s = 1) at the end over that at the start, the mean "
        "over layers. Drift is the largest max |Q Q^T - I| of all layers' rotations Q.": True,
        "Steps were timed by benchmarks.steps.": comparison.steps,
        "The schedule is shortened: another experiment than the paper's.": is_shortened,
    }
    return " ".join(sentence for sentence, holds in sentences.items() if holds)


def alternative_texts(comparison: Comparison) -> dict[str, str]:
    """Returns a sentence for each image by its name."""
    where = f"during training on {data_name(comparison)}, a line for each row."
    return {
        "curves.png": f"Test error and training loss {where}",
        "energy.png": f"Energy of the neurons, its change, and drift from orthogonality {where}",
    }
