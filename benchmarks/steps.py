"""A training step of every method beside a plain step: CNN-6 at full width, batch 128.

    python -m benchmarks.steps                # all methods and opt_gs in blocks, each in a process
    python -m benchmarks.steps --quick        # fewer steps, and no look at the machine's pace
    python -m benchmarks.steps --methods=opt_cp,opt_cp:block_size=16
    python -m benchmarks.steps --methods=baseline,opt_gs --jit=on --precision=mixed_bfloat16
    python -m benchmarks.steps --kernels      # also counts each step's kernels: up to a minute each

A row is a method, or a method with settings, as in compare.py. Prints a table and writes it to
steps.csv: the median time per step, its ratio to the plain step at the same widths, the time to the
end of the first step (with tracing and compilation), the peak memory and the images per second.
Plain training is timed before and after each row, since a machine's speed changes with time. The
images are random. First and last it measures the machine's pace (see pace.py), and says where that
speaks against an idle machine. Ratios and memory are drawn in steps.png, beside the CSV. With
--kernels there is one more column: how many kernels XLA makes of the step (see kernels.py), also
where the step that is timed is not compiled by XLA.
"""

import argparse
import csv
import functools
import importlib
import json
import pathlib
import statistics
import subprocess
import sys
import time
from collections.abc import Callable

from benchmarks.reporting import Parser, add_outputs, machine, numbers, positive, publish
from common import backbones
from common.errors import UserError
from common.training.methods import known
from common.training.settings import PRECISIONS, Settings
from common.training.startup import import_tensorflow
from comparison.rows import parse
from comparison.styles import style

ROOT = pathlib.Path(__file__).resolve().parents[1]
METHODS = known()
ROWS = [*METHODS, "opt_gs:block_size=64"]  # the default
TITLES = {row.name: row.title for row in parse(ROWS)}
STYLES = {name: style(index) for index, name in enumerate(TITLES)}
PLAIN = "baseline"  # all ratios are to its step
BATCH = 128
COLUMNS = [
    "method",
    "widths",
    "step_ms",
    "ratio",
    "first_step_s",
    "memory_gib",
    "memory_ratio",
    "images_per_s",
]


def prepare(
    name: str, widths: list[int], batch: int = BATCH, precision: str = "float32"
) -> tuple[Callable, list]:
    """Returns the step of the row ``name``, and random images and labels for it.

    It is a function of ``jit`` that returns a `tf.function`, as `make_train_step` does.
    """
    tf = import_tensorflow()
    import keras
    import numpy as np

    from common.training.precision import policy, scaled
    from common.training.steps import make_train_step

    keras.utils.set_random_seed(0)
    (row,) = parse([name])
    module = importlib.import_module(f"{row.method}.architecture")
    settings = {flag: _value(text) for flag, text in row.flags}
    method = module.METHOD.with_options(**settings)
    with policy(precision):
        model = method.build_model(widths=widths)
    optimizer = method.make_optimizer(0.1, lambda rate, factor=0.1: rate)
    make = functools.partial(make_train_step, method, model, scaled(optimizer, precision))
    random = np.random.default_rng(0)
    images = tf.constant(random.integers(0, 256, (batch, 32, 32, 3)).astype("float32"))
    labels = tf.constant(random.integers(0, 100, batch), tf.int32)
    if method.start_episode:
        method.start_episode(model, 0, 0)
    return make, [images, labels]


def measure(
    name: str,
    widths: list[int],
    jit: bool,
    steps: int,
    batch: int = BATCH,
    precision: str = "float32",
    kernels: bool = False,
) -> dict[str, float]:
    """Times the row ``name`` in this process; returns milliseconds, seconds and GiB.

    With ``kernels`` also their number in the step as XLA compiles it, with or without ``jit``.
    """
    tf = import_tensorflow()
    from benchmarks.kernels import count
    from common.training.loop import peak_memory

    start = time.perf_counter()
    make, batch_of_images = prepare(name, widths, batch, precision)
    step = make(jit)

    # a run gives a GPU many steps per call, so here several are started before waiting for the
    # last; on a CPU a call returns when its step is done
    calls = 20 if tf.config.list_physical_devices("GPU") else 1

    def once(calls: int = 1) -> float:
        begin = time.perf_counter()
        for _ in range(calls):
            figures = step(*batch_of_images)
        float(figures["fit"])
        return (time.perf_counter() - begin) / calls

    once()
    first = time.perf_counter() - start
    times = [once(calls) for _ in range(steps)]
    figures = {
        "step_ms": 1e3 * statistics.median(times),
        "first_step_s": first,
        "memory_gib": peak_memory(),
    }
    return figures | ({"kernels": count(make(True), *batch_of_images)} if kernels else {})


def _value(text: str) -> object:
    """Returns the setting that ``text`` says: a number, true or false, or else the text itself."""
    try:
        return json.loads(text)
    except ValueError:
        return text


def in_a_process(
    name: str,
    widths: list[int],
    jit: str,
    steps: int,
    batch: int = BATCH,
    limit_s: float | None = None,
    precision: str = "float32",
    kernels: bool = False,
) -> dict[str, float]:
    """Returns what `measure` returns, measured in a process of its own.

    Raises:
        subprocess.TimeoutExpired: if it takes more than ``limit_s`` seconds.
        subprocess.CalledProcessError: if it fails; ``stderr`` says why.
    """
    words = [
        f"--measure={name}",
        f"--widths={','.join(map(str, widths))}",
        f"--jit={jit}",
        f"--steps={steps}",
        f"--precision={precision}",
        *(["--kernels"] if kernels else []),
    ]
    command = [sys.executable, "-m", "benchmarks.steps", *words, f"--batch={batch}"]
    result = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, timeout=limit_s, check=True
    )
    return json.loads(result.stdout.splitlines()[-1])


def default_widths(kind: type[Settings]) -> list[int]:
    """Returns the widths that a method's CNN-6 has by default."""
    return list(kind.widths or backbones.known()["cnn6"].widths)


def check_methods(parser: Parser, names: list[str]) -> None:
    """Exits with 2 and one line if one of ``names`` is not a method, or one with settings."""
    try:
        parse(names)
    except UserError as error:
        parser.error(str(error))


def draw(path: pathlib.Path, rows: list[dict], title: str) -> None:
    """Draws one bar per method: its ratio to the plain step, and its memory."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 1.4 + 0.42 * len(rows)), layout="constrained")
    panels = figure.subplots(1, 2, sharey=True)
    same = len({row["widths"] for row in rows}) == 1
    labels = [
        TITLES.get(row["method"], row["method"]) + ("" if same else f", {row['widths']}")
        for row in rows
    ]
    colors = [STYLES.get(row["method"], {}).get("color", "grey") for row in rows]
    for axes, key, text, label in zip(
        panels,
        ["ratio", "memory_gib"],
        ["{:.2f}", "{:.1f}"],
        ["step / plain step at the same widths", "peak memory (GiB)"],
        strict=True,
    ):
        values = [row[key] for row in rows]
        axes.bar_label(
            axes.barh(range(len(rows)), values, color=colors),
            [text.format(v) for v in values],
            padding=3,
        )
        axes.set(xlabel=label, xlim=(0, 1.15 * max(values)))
        axes.grid(axis="x", alpha=0.3)
    panels[0].axvline(1, color="black", lw=1, ls=":")
    panels[0].set_yticks(range(len(rows)), labels)
    panels[0].invert_yaxis()
    figure.suptitle(title)
    figure.savefig(path, dpi=150)


def markdown(rows: list[dict], args: argparse.Namespace, doubts: list[str]) -> list[str]:
    """Returns the table, the machine that it was measured on, and what it may have done besides."""
    lines = [
        "| method | widths | ms per step | x plain step | s to the first step "
        "| peak GiB | x plain | images per second |" + (" kernels |" if args.kernels else ""),
        "|" + "---|" * (8 + args.kernels),
    ]
    for row in rows:
        start = f"| {TITLES.get(row['method'], row['method'])} | {row['widths']} "
        start += f"| {row['step_ms']:.0f} | {row['ratio']:.2f} "
        memory = f"| {row['memory_gib']:.2f} | {row['memory_ratio']:.2f} "
        line = f"{start}| {row['first_step_s']:.1f} {memory}| {row['images_per_s']:.0f} |"
        lines.append(line + (f" {row['kernels']:,} |" if args.kernels else ""))
    return [
        *lines,
        "",
        f"{machine()}; batch {BATCH}, --jit={args.jit}, --precision={args.precision}, "
        f"median of {args.steps} steps.",
        *(f"({doubt})" for doubt in doubts),
    ]


def main() -> None:
    parser = Parser(
        prog="benchmarks.steps",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--methods", type=lambda s: s.split(","), help="a list; all by default")
    parser.add_argument("--jit", choices=["on", "off"], default="off")
    parser.add_argument(
        "--precision", choices=PRECISIONS, default=PRECISIONS[0], help="see train.py"
    )
    parser.add_argument("--steps", type=positive, default=10, help="timed steps (default: 10)")
    parser.add_argument("--quick", action="store_true", help="5 steps")
    parser.add_argument(
        "--kernels", action="store_true", help="count the kernels that XLA makes of each step"
    )
    add_outputs(parser, "steps")
    parser.add_argument("--measure", help=argparse.SUPPRESS)
    parser.add_argument("--batch", type=positive, default=BATCH, help=argparse.SUPPRESS)
    parser.add_argument("--widths", type=numbers, help="(default: each method's own)")
    args = parser.parse_args()
    if args.widths and len(args.widths) != 4:
        parser.error("--widths must be four numbers")
    args.steps = 5 if args.quick else args.steps
    if args.measure:
        jit = args.jit == "on"
        print(
            json.dumps(
                measure(
                    args.measure,
                    args.widths,
                    jit,
                    args.steps,
                    args.batch,
                    args.precision,
                    args.kernels,
                )
            )
        )
        return
    check_methods(parser, args.methods or [])
    from benchmarks import pace  # which uses this module

    rows = []
    before = None if args.quick else pace.in_a_process()
    doubts = pace.doubts(before) if before else []
    for doubt in doubts:
        print(doubt, file=sys.stderr)
    head = f"{'method':20} {'widths':>14} {'step ms':>9} {'ratio':>6} "
    head += f"{'first step s':>13} {'memory GiB':>11} {'images/s':>11}"
    print(head + (f" {'kernels':>8}" if args.kernels else ""))
    for name in args.methods or ROWS:
        widths = args.widths or default_widths(METHODS[name.partition(":")[0]])
        try:
            first, row, last = (
                in_a_process(m, widths, args.jit, args.steps, BATCH, None, args.precision, counted)
                for m, counted in ((PLAIN, False), (name, args.kernels), (PLAIN, False))
            )
        except subprocess.CalledProcessError as error:
            sys.exit(f"{name} failed:\n{error.stderr}")
        row["ratio"] = row["step_ms"] / statistics.mean([first["step_ms"], last["step_ms"]])
        row["memory_ratio"] = row["memory_gib"] / statistics.mean(
            [first["memory_gib"], last["memory_gib"]]
        )
        row |= {
            "method": name,
            "widths": "/".join(map(str, widths)),
            "images_per_s": 1e3 * BATCH / row["step_ms"],
        }
        rows.append(row)
        print(
            f"{name:20} {row['widths']:>14} {row['step_ms']:9.1f} {row['ratio']:6.2f} "
            f"{row['first_step_s']:13.1f} {row['memory_gib']:11.2f} {row['images_per_s']:11.0f}"
            + (f" {row['kernels']:8,}" if args.kernels else ""),
            flush=True,
        )
    if before:
        doubts = pace.doubts(before, pace.in_a_process())
        for doubt in doubts:
            print(doubt, file=sys.stderr)
    with args.out.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, [*COLUMNS, *(["kernels"] if args.kernels else [])])
        writer.writeheader()
        writer.writerows(rows)
    image = args.out.with_suffix(".png")
    draw(
        image,
        rows,
        f"A step of CNN-6, batch {BATCH}, {args.precision}"
        + (f", widths {rows[0]['widths']}" if args.widths else ""),
    )
    print(f"written: {args.out.absolute()}")
    print(f"written: {image.absolute()}")
    if args.readme:
        publish(
            args.readme,
            "steps",
            markdown(rows, args, doubts),
            image,
            "Step and memory of each method beside the plain ones",
        )


if __name__ == "__main__":
    main()
