"""Our training losses beside those that the original program printed for the same data set.

    python -m benchmarks.original --data_dir=data
    python -m benchmarks.original --runs=opt_gs --readme=docs/fidelity.md

Each of the original's scripts was run once on CIFAR-100 with another split. They were changed only
where TensorFlow 2.21 could not run them. The log of the plain network is the one that its authors
published with wy1iu/MHE (three convolutions per stage), on the official split. Ours train for the
same iterations, at full width, with batch 128 and without a warm-up. The random numbers differ. The
loss of one batch scatters by about 0.15, so two equal programs differ by 0.15 to 0.3; the mean of
the 21 batches around it scatters by 0.03. A run that was interrupted continues.
"""

import argparse
import csv
import dataclasses
import pathlib
import statistics
import subprocess
import sys
import time

from benchmarks.reporting import Parser, machine
from common.training.methods import known
from comparison.publishing import marks, put

ROOT = pathlib.Path(__file__).resolve().parents[1]
AROUND = 10  # iterations before and after


@dataclasses.dataclass(frozen=True)
class Original:
    """What the original printed.

    Attributes:
        method: its folder here.
        fits: by iteration, the loss of its batch.
        last: how many iterations are trained.
        flags: of train.py, if the network is not the default one.
    """

    method: str
    fits: dict[int, float]
    last: int
    flags: tuple[str, ...] = ()


LINES = {
    "opt_gs": Original("opt_gs", {100: 3.98, 200: 3.79}, 200),
    "opt_ls": Original(
        "opt_ls", {100: 3.97, 200: 3.69, 300: 3.54, 400: 3.40, 500: 3.43, 600: 3.29}, 600
    ),
    "opt_ogd": Original(
        "opt_ogd",
        {100: 3.79, 200: 3.52, 300: 3.48, 400: 3.02, 500: 2.89, 600: 2.92, 1000: 2.66},
        1000,
    ),
    "opt_or": Original(
        "opt_or", {100: 9.14, 200: 9.14, 300: 9.21, 400: 7.29, 500: 4.56, 600: 3.90}, 600
    ),
    "baseline": Original(
        "baseline", {100: 9.1382}, 300, ("--backbone=cnn9", "--widths=64,128,256,256")
    ),
}


def train(run: Original, data_dir: pathlib.Path, folder: pathlib.Path) -> dict[int, float]:
    """Trains for ``run.last`` iterations and a few more, and returns the loss of each.

    The run has the schedule of a whole run, and is stopped early.
    """
    log, output = folder / "metrics.csv", folder / "output.txt"
    folder.mkdir(parents=True, exist_ok=True)

    def fits() -> dict[int, float]:
        if not log.exists():
            return {}
        with log.open(encoding="utf-8") as file:
            # the last row may be incomplete
            return {
                int(r["iteration"]): float(r["fit"])
                for r in csv.DictReader(file)
                if r["fit"] and r["seconds"]
            }

    end = run.last + AROUND
    if max(fits(), default=0) >= end:
        return fits()
    words = [
        f"--data_dir={data_dir.absolute()}",
        f"--log_dir={folder.absolute()}",
        "--log_every=1",
        *run.flags,
    ]
    words += ["--resume"] if any(folder.glob("checkpoints/*.npz")) else []
    with output.open("w", encoding="utf-8") as file:
        process = subprocess.Popen(
            [sys.executable, "train.py", *words], cwd=ROOT / run.method, stdout=file, stderr=file
        )
        try:
            while process.poll() is None and max(fits(), default=0) < end:
                time.sleep(1)
        finally:
            process.terminate()
            process.wait()
    if max(fits(), default=0) < end:
        sys.exit(f"benchmarks.original: {run.method} ended early; see {output}")
    return fits()


def rows(name: str, fits: dict[int, float]) -> list[list[str]]:
    """Returns the table's rows: for each iteration the original's loss, ours and our mean."""
    lines = []
    for iteration, there in LINES[name].fits.items():
        mean = statistics.mean(fits[i] for i in range(iteration - AROUND, iteration + AROUND + 1))
        title = known()[LINES[name].method].title
        title += f" ({' '.join(LINES[name].flags)})" if LINES[name].flags else ""
        lines.append(
            [title, str(iteration), f"{there:.2f}", f"{fits[iteration]:.2f}", f"{mean:.2f}"]
        )
    return lines


def main() -> None:
    description = argparse.RawDescriptionHelpFormatter
    parser = Parser(prog="benchmarks.original", description=__doc__, formatter_class=description)
    parser.add_argument("--runs", default=",".join(LINES), help="a list (default: all)")
    parser.add_argument("--data_dir", type=pathlib.Path, default=ROOT / "data")
    parser.add_argument(
        "--out", type=pathlib.Path, default=pathlib.Path("original"), help="folder of the runs"
    )
    parser.add_argument(
        "--readme", type=pathlib.Path, help=f"put the table between its lines {marks('original')}"
    )
    args = parser.parse_args()
    names = args.runs.split(",")
    if not set(names) <= LINES.keys():
        parser.error(f"--runs must be among {', '.join(LINES)}")
    if args.readme and not (
        args.readme.is_file()
        and all(m in args.readme.read_text("utf-8") for m in marks("original"))
    ):
        parser.error(f"--readme={args.readme} has no lines {' and '.join(marks('original'))}")
    lines = [
        "| run | iteration | the original's loss | ours | mean of our 21 batches |",
        "|" + "---|" * 5,
    ]
    print(*lines, sep="\n")
    for name in names:
        new = [
            "| " + " | ".join(row) + " |"
            for row in rows(name, train(LINES[name], args.data_dir, args.out / name))
        ]
        print(*new, sep="\n", flush=True)
        lines += new
    if args.readme:
        put(args.readme, "original", [*lines, "", f"{machine()}; seed 0, batch 128, one run each."])


if __name__ == "__main__":
    main()
