"""Time and memory of each method's training step against the network's width.

    python -m benchmarks.scale            # widths 64, 128 and 256: about ten minutes on two cores
    python -m benchmarks.scale --quick    # widths 16 and 32, two steps
    python -m benchmarks.scale --methods=baseline,opt_gs --widths=64,128 --batch=128

All four stages of CNN-6 have the same width. Each measurement has a process of its own (see
benchmarks.steps). A batch is 32 images, a quarter of what the methods use, so that the widest
network does not take too long. With it convolutions cost a quarter, but maps cost the same: the
ratios to the plain step are therefore larger here than in benchmarks.steps. At width 256 the
rotations are 2304 x 2304, the largest 4096 x 4096.

A measurement that takes longer than --limit_s, as opt_ls may at width 256 on two cores, gets a row
that says so, and the image leaves it out. Prints a table and writes it to scale.csv, with the image
scale.png beside it.
"""

import argparse
import csv
import pathlib

from tqdm import tqdm

from benchmarks.reporting import (
    Parser,
    add_outputs,
    figures_or_note,
    machine,
    numbers,
    positive,
    publish,
)
from benchmarks.steps import PLAIN, STYLES, TITLES, check_methods, in_a_process

# the default; each of the other methods costs as much as one of these
SOME = [PLAIN, "opt_gs", "opt_ls", "opt_cp", "sopt_gs"]
COLUMNS = [
    "method",
    "width",
    "batch",
    "steps",
    "step_ms",
    "ratio",
    "first_step_s",
    "memory_gib",
    "note",
]


def measure(method: str, width: int, steps: int, args: argparse.Namespace) -> dict:
    """Returns a row of scale.csv; if the measurement fails, a note takes the figures' place."""
    row = {"method": method, "width": width, "batch": args.batch, "steps": steps, "note": ""}
    return row | figures_or_note(
        lambda: in_a_process(method, [width] * 4, args.jit, steps, args.batch, args.limit_s)
    )


def draw(path: pathlib.Path, rows: list[dict], title: str) -> None:
    """Draws time and memory of a step against width, one line per method."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import LogLocator, ScalarFormatter

    figure = Figure(figsize=(11, 4.4), layout="constrained")
    widths = sorted({row["width"] for row in rows})
    labels = {"step_ms": "ms per step", "memory_gib": "peak memory (GiB)"}
    ticks = {"step_ms": (1, 2, 5), "memory_gib": (1, 1.5, 2, 3, 4, 5, 7)}
    for axes, key in zip(figure.subplots(1, 2), labels, strict=True):
        for method in dict.fromkeys(row["method"] for row in rows):
            points = [(row["width"], row[key]) for row in rows if row["method"] == method]
            axes.plot(
                *zip(*points, strict=True),
                label=TITLES.get(method, method),
                lw=1.6,
                ms=6,
                **STYLES.get(method, {}),
            )
        values = [row[key] for row in rows]
        axes.set(xscale="log", yscale="log", xlabel="width of every stage", ylabel=labels[key])
        axes.set_ylim(min(values) / 1.5, max(values) * 1.5)
        axes.set_xticks(widths, [str(width) for width in widths])
        axes.set_xticks([], minor=True)
        axes.yaxis.set_major_locator(LogLocator(subs=ticks[key]))
        axes.yaxis.set_major_formatter(ScalarFormatter())
        axes.set_yticks([], minor=True)
        axes.grid(alpha=0.3)
    figure.legend(
        *figure.axes[0].get_legend_handles_labels(), loc="outside right center", frameon=False
    )
    figure.suptitle(title)
    figure.savefig(path, dpi=150)


def markdown(rows: list[dict], args: argparse.Namespace) -> list[str]:
    """Returns a table of ms, ratio and memory, one column per width, and the machine."""
    widths = sorted({row["width"] for row in rows})
    lines = [
        "| method | " + " | ".join(f"width {width}" for width in widths) + " |",
        "|---|" + "---|" * len(widths),
    ]
    for method in dict.fromkeys(row["method"] for row in rows):
        cells = []
        for row in (
            row
            for width in widths
            for row in rows
            if (row["method"], row["width"]) == (method, width)
        ):
            ratio = f" ({row['ratio']:.2f})" if "ratio" in row else ""
            cells.append(
                f"{row['step_ms']:.0f} ms{ratio}, {row['memory_gib']:.1f} GiB"
                if "step_ms" in row
                else row["note"]
            )
        lines.append(f"| {TITLES.get(method, method)} | " + " | ".join(cells) + " |")
    about = (
        f"{machine()}; batch {args.batch}, --jit={args.jit}; "
        "in brackets, multiples of the plain step at that width."
    )
    return [*lines, "", about]


def main() -> None:
    parser = Parser(
        prog="benchmarks.scale",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--methods", type=lambda s: s.split(","), default=SOME, help=f"(default: {','.join(SOME)})"
    )
    parser.add_argument("--widths", type=numbers, help="(default: 64,128,256)")
    parser.add_argument("--batch", type=positive, default=32, help="images per step (default: 32)")
    parser.add_argument(
        "--steps",
        type=positive,
        default=3,
        help="timed steps at the largest width; smaller widths get more (default: 3)",
    )
    parser.add_argument("--jit", choices=["on", "off"], default="off")
    parser.add_argument(
        "--limit_s",
        type=positive,
        default=240,
        help="seconds a measurement may take (default: 240)",
    )
    parser.add_argument("--quick", action="store_true", help="widths 16 and 32, two steps")
    add_outputs(parser, "scale")
    args = parser.parse_args()
    check_methods(parser, args.methods)
    args.methods.sort(key=lambda name: name != PLAIN)  # first, since the others' ratios need it
    widths = sorted(set(args.widths or ([16, 32] if args.quick else [64, 128, 256])))
    rows = []
    head = f"{'method':10} {'width':>6} {'step ms':>10} {'ratio':>6} "
    print(head + f"{'first step s':>13} {'memory GiB':>11}", flush=True)
    with (
        args.out.open("w", newline="", encoding="utf-8") as file,
        tqdm(total=len(widths) * len(args.methods), unit="run", dynamic_ncols=True) as bar,
    ):
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        for width in widths:
            plain = None
            # narrow networks have short steps, so more of them are timed
            steps = 2 if args.quick else args.steps * (widths[-1] // width)
            for method in args.methods:
                bar.set_description(f"{method}, width {width}")
                row = measure(method, width, steps, args)
                plain = row.get("step_ms") if method == PLAIN else plain
                if plain and "step_ms" in row:
                    row["ratio"] = row["step_ms"] / plain
                rows.append(row)
                writer.writerow(row)
                file.flush()
                text = row["note"]
                if "step_ms" in row:
                    ratio = f"{row['ratio']:.2f}" if plain else ""
                    text = f"{row['step_ms']:10.1f} {ratio:>6} "
                    text += f"{row['first_step_s']:13.1f} {row['memory_gib']:11.2f}"
                tqdm.write(f"{method:10} {width:6} {text}")
                bar.update()
    print(f"written: {args.out.absolute()}")
    if not any("step_ms" in row for row in rows):
        parser.exit(1, "benchmarks.scale: no measurement succeeded: no image\n")
    image = args.out.with_suffix(".png")
    draw(image, [row for row in rows if "step_ms" in row], f"A step of CNN-6, batch {args.batch}")
    print(f"written: {image.absolute()}")
    if args.readme:
        publish(
            args.readme,
            "scale",
            markdown(rows, args),
            image,
            "Step and memory against width, on logarithmic axes",
        )


if __name__ == "__main__":
    main()
