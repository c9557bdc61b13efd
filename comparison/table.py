"""The table: a row each, means over seeds, and what stands beside it."""

import argparse
import csv
import math
import re
import statistics

import numpy as np

from comparison.runs import Run


def rows_of(runs: list[Run]) -> dict[str, list[Run]]:
    """Returns the runs of each row by its name."""
    grouped: dict[str, list[Run]] = {}
    for run in runs:
        grouped.setdefault(run.row.name, []).append(run)
    return grouped


def mean_and_deviation(values: list[float], digits: int = 2) -> str:
    text = f"{statistics.mean(values):.{digits}f}"
    return f"{text} ± {np.std(values, ddof=1):.{digits}f}" if len(values) > 1 else text


def read_paper(args: argparse.Namespace) -> dict[str, str]:
    if not args.paper:
        return {}
    with args.paper.open() as file:
        return {line[0].strip(): line[1].strip() for line in csv.reader(file) if len(line) >= 2}


def steps_problem(args: argparse.Namespace) -> str | None:
    """Returns why the times in ``--steps`` are not those of this comparison, if they are not."""
    with args.steps.open() as file:
        lines = list(csv.DictReader(file))
    widths = {line.get("method"): line.get("widths") for line in lines}
    if args.backbone != "cnn6" or args.batch_size != 128:
        return "benchmarks.steps times cnn6 with batches of 128"
    names = [row.name for row in args.rows]
    if any(not _is_float(line.get("step_ms")) for line in lines if line.get("method") in names):
        return "a step_ms that is no number"
    # benchmarks.steps does not time settings
    plain = [row.method for row in args.rows if not row.flags]
    others = [m for m in plain if widths.get(m) != args.widths.replace(",", "/")]
    return f"no times at widths {args.widths} of {', '.join(others)}" if others else None


def _is_float(text: str | None) -> bool:
    try:
        return 0 < float(text or "") < math.inf
    except ValueError:
        return False


def table(runs: list[Run], args: argparse.Namespace) -> list[list[str]]:
    """Returns the table's cells, the head first."""
    paper = read_paper(args)
    head = ["method", "best error %", "last error %", "ms per step", "x baseline", "memory GiB", "energy / start", "drift"]
    grouped = rows_of(runs)
    results = {name: [r.result() for r in own if not r.failure] for name, own in grouped.items()}
    if args.steps:
        with args.steps.open() as file:
            timed = {line["method"]: float(line["step_ms"]) for line in csv.DictReader(file) if line["method"] in results}
        for row in (row for rows in results.values() for row in rows):
            row["step_ms"] = timed.get(row["method"], math.nan)
    plain = [row["step_ms"] for row in results.get("baseline", [])]
    cells = [head + (["paper %"] if args.paper else [])]
    for name, own in grouped.items():
        rows = results[name]
        failed = [run for run in own if run.failure]
        title = own[0].row.title + (f" ({len(failed)} of {len(own)} failed)" if failed else "")
        if rows:
            step = statistics.mean(row["step_ms"] for row in rows)
            drifts = [row["drift"] for row in rows if row["drift"] is not None]
            line = [
                mean_and_deviation([row["best_error"] for row in rows]),
                mean_and_deviation([row["last_error"] for row in rows]),
                f"{step:.0f}" if step >= 10 else f"{step:.2f}",
                f"{step / statistics.mean(plain):.2f}" if plain else "",
                f"{max(row['memory_gib'] for row in rows):.2f}",
                mean_and_deviation([row["energy"] for row in rows], 4) if rows[0]["energy"] is not None else "",
                f"{max(drifts):.0e}" if drifts else "",
            ]
        else:
            line = [failed[0].failure] + [""] * 6
        cells.append([title, *line] + ([paper.get(name, "")] if args.paper else []))
    return cells


def about(runs: list[Run], args: argparse.Namespace) -> list[str]:
    """Returns lines that say on what, for how long and with what the runs were made."""
    facts = [run.facts() for run in runs if not run.failure]

    def distinct(value_of) -> str:
        return "; ".join(dict.fromkeys(value_of(fact) for fact in facts))

    return [
        distinct(lambda fact: re.sub(r" from .*: ", ": ", fact["data"])) or f"{args.dataset}: no run finished",
        heading(runs, args) + f", warm-up {args.warmup_iterations}, batch {args.batch_size}",
        distinct(lambda fact: fact["device"]),
        distinct(lambda fact: ", ".join(f"{k} {v}" for k, v in fact["versions"].items())),
        "git commit " + distinct(lambda fact: str(fact["git_commit"])),
    ]


def heading(runs: list[Run], args: argparse.Namespace) -> str:
    lengths = " and ".join(f"{n:,}" for n in sorted({run.iterations for run in runs}))
    seeds = f"seed{'s' * (len(args.seeds) > 1)} {', '.join(args.seeds)}"
    return f"{args.backbone}, widths {args.widths}, {lengths} iterations, {seeds}"


def notes(args: argparse.Namespace) -> str:
    return (
        "Errors are test errors in per cent: the best of all tests and the last. Energy is the hyperspherical energy (s = 1) "
        "at the end over that at the start, the mean over layers. Drift is max |Q Q^T - I| of the matrices that turn the "
        "neurons, the largest of all layers. A step is "
        + (
            "timed apart from the runs, by benchmarks.steps."
            if args.steps
            else "the run's mean, tests and the first step left out."
        )
    )
