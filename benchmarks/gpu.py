"""What TensorFlow makes of one GPU, in less than eight minutes: steps of all methods, and a run.

    python -m benchmarks.gpu
    python -m benchmarks.gpu --allow_cpu --quick --methods=opt_ogd    # tries it out without a GPU

A step of CNN-6 is timed without XLA, with XLA, and with XLA in bfloat16, each in a process of its
own as benchmarks.steps does, and beside a plain step at the same widths. The run is 2,000
iterations of opt_gs on the digits, as train.py makes them. What takes more than --limit_s is
stopped, and what no longer fits into --budget_s is skipped; the table says so. Writes gpu.csv, and
gpu.png beside it.
"""

import argparse
import csv
import functools
import json
import pathlib
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable

from benchmarks.reporting import Parser, add_outputs, figures_or_note, machine, positive, publish
from benchmarks.steps import (
    BATCH,
    METHODS,
    PLAIN,
    ROOT,
    TITLES,
    check_methods,
    default_widths,
    in_a_process,
)
from common.training.startup import import_tensorflow

# what --jit and --precision are
WAYS = {
    "float32 without XLA": ("off", "float32"),
    "float32 with XLA": ("on", "float32"),
    "bfloat16 with XLA": ("on", "mixed_bfloat16"),
}
# that of a run on a GPU comes first, since the time may not last for all
FIRST = "float32 with XLA"
COLUMNS = [
    "method",
    "widths",
    "way",
    "step_ms",
    "ratio",
    "first_step_s",
    "memory_gib",
    "iterations",
    "seconds",
    "test_accuracy",
    "note",
]


def run_on_digits(iterations: int, widths: list[int], limit_s: float) -> dict[str, float]:
    """Returns seconds and test accuracy of a run of opt_gs.

    Raises:
        subprocess.TimeoutExpired: if it takes more than ``limit_s`` seconds.
        subprocess.CalledProcessError: if it fails; ``stderr`` says why.
    """
    with tempfile.TemporaryDirectory() as folder:
        words = [
            "--dataset=digits",
            f"--iterations={iterations}",
            f"--widths={','.join(map(str, widths))}",
            f"--log_dir={folder}/log",
        ]
        subprocess.run(
            [sys.executable, "train.py", *words],
            cwd=ROOT / "opt_gs",
            capture_output=True,
            text=True,
            timeout=limit_s,
            check=True,
        )
        summary = json.loads((pathlib.Path(folder) / "log" / "run.json").read_text("utf-8"))
    return {name: summary[name] for name in ("seconds", "test_accuracy")}


def measurements(methods: list[str], widths: list[int] | None) -> list[tuple[str, list[int], str]]:
    """Returns method, widths and way of each step to time: plain ones first, for the ratios."""
    steps = [(name, widths or default_widths(METHODS[name.partition(":")[0]])) for name in methods]
    plain = [(PLAIN, list(w)) for w in dict.fromkeys(tuple(w) for _, w in steps)]
    rows = plain + [step for step in steps if step not in plain]
    return [(*row, way) for way in sorted(WAYS, key=lambda way: way != FIRST) for row in rows]


def text(row: dict | None) -> str:
    """Returns a cell of the table: time and ratio, or the note in their place."""
    if row is None:
        return ""
    ratio = f" ({row['ratio']:.2f})" if "ratio" in row else ""
    return row.get("note") or f"{row['step_ms']:.1f} ms{ratio}"


def by_method(rows: list[dict]) -> dict[str, dict[str, dict]]:
    """Returns the steps' rows by the method's title with its widths, and by the way."""
    table: dict[str, dict[str, dict]] = {}
    for row in rows:
        label = f"{TITLES.get(row['method'], row['method'])}, {row['widths']}"
        table.setdefault(label, {})[row["way"]] = row
    return table


def markdown(rows: list[dict], run: dict, has_gpu: bool) -> list[str]:
    """Returns the table, the run on the digits, and the machine."""
    lines = ["| method, widths | " + " | ".join(WAYS) + " |", "|" + "---|" * (1 + len(WAYS))]
    for label, cells in by_method(rows).items():
        lines.append(f"| {label} | " + " | ".join(text(cells.get(way)) for way in WAYS) + " |")
    result = run.get("note") or (
        f"{run['seconds']:.0f} s, test accuracy {100 * run['test_accuracy']:.2f} %"
    )
    return [
        *lines,
        "",
        f"Per step of batch {BATCH}; in brackets, multiples of the plain step in the same column. "
        f"{run['iterations']:,} iterations of {TITLES['opt_gs']} on the digits: {result}.",
        "",
        f"{'' if has_gpu else 'No GPU, only tried out on a CPU: '}{machine()}.",
    ]


def draw(path: pathlib.Path, rows: list[dict], title: str) -> None:
    """Draws the time of a step, three bars per method."""
    from matplotlib.figure import Figure

    table = by_method(rows)
    figure = Figure(figsize=(9, 1.6 + 0.55 * len(table)), layout="constrained")
    axes = figure.subplots()
    height = 0.8 / len(WAYS)
    for i, way in enumerate(WAYS):
        bars = [
            (y + (i - 1) * height, cells[way]["step_ms"])
            for y, cells in enumerate(table.values())
            if "step_ms" in cells.get(way, {})
        ]
        if bars:
            drawn = axes.barh(*zip(*bars, strict=True), height=height, label=way)
            axes.bar_label(drawn, fmt="%.1f", padding=3, fontsize=8)
    axes.set(xlabel="ms per step", title=title)
    axes.set_yticks(range(len(table)), list(table))
    axes.invert_yaxis()
    axes.grid(axis="x", alpha=0.3)
    axes.margins(x=0.1)
    if axes.containers:
        figure.legend(loc="outside lower center", ncols=len(WAYS))
    figure.savefig(path, dpi=150)


def main() -> None:
    parser = Parser(
        prog="benchmarks.gpu",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--methods", type=lambda s: s.split(","), help="a list; all by default")
    parser.add_argument("--quick", action="store_true", help="2 steps of tiny networks")
    parser.add_argument("--allow_cpu", action="store_true", help="go on where there is no GPU")
    parser.add_argument(
        "--limit_s", type=positive, default=90, help="seconds for one measurement (default: 90)"
    )
    parser.add_argument(
        "--budget_s", type=positive, default=450, help="seconds for all of them (default: 450)"
    )
    add_outputs(parser, "gpu")
    args = parser.parse_args()
    check_methods(parser, args.methods or [])
    has_gpu = bool(import_tensorflow().config.list_physical_devices("GPU"))
    if not has_gpu and not args.allow_cpu:
        parser.error("TensorFlow finds no GPU; with --allow_cpu this is tried out on the CPU")
    end = time.monotonic() + args.budget_s
    widths, steps, iterations = ([8] * 4, 2, 20) if args.quick else (None, 3, 2000)

    def within_the_time(measure: Callable[[float], dict]) -> dict:
        left = end - time.monotonic()
        if left < 1:
            return {"note": "skipped, the time is over"}
        return figures_or_note(lambda: measure(min(left, args.limit_s)))

    run_widths = widths or default_widths(METHODS["opt_gs"])
    run = {"method": "opt_gs", "widths": "/".join(map(str, run_widths)), "iterations": iterations}
    run |= within_the_time(lambda limit_s: run_on_digits(iterations, run_widths, limit_s))
    print(f"{iterations:,} iterations of opt_gs on the digits:", end=" ")
    print(run.get("note") or f"{run['seconds']:.0f} s, accuracy {run['test_accuracy']:.4f}")
    rows: list[dict] = []
    plain: dict[tuple, float] = {}
    for name, of_method, way in measurements(args.methods or list(METHODS), widths):
        jit, precision = WAYS[way]
        row = {"method": name, "widths": "/".join(map(str, of_method)), "way": way}
        row |= within_the_time(
            functools.partial(in_a_process, name, of_method, jit, steps, BATCH, precision=precision)
        )
        key = (row["widths"], way)
        if name == PLAIN and "step_ms" in row:
            plain[key] = row["step_ms"]
        if key in plain and "step_ms" in row:
            row["ratio"] = row["step_ms"] / plain[key]
        rows.append(row)
        print(f"{name:20} {row['widths']:>14} {way:20} {text(row)}", flush=True)
    with args.out.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        writer.writerows([*rows, run])
    image = args.out.with_suffix(".png")
    draw(image, rows, f"A step of CNN-6, batch {BATCH}" + ("" if has_gpu else ", on a CPU"))
    print(f"written: {args.out.absolute()}")
    print(f"written: {image.absolute()}")
    if args.readme:
        caption = "Time of a step of each method, with and without XLA"
        publish(args.readme, "gpu", markdown(rows, run, has_gpu), image, caption)


if __name__ == "__main__":
    main()
