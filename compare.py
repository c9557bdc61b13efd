"""Trains several methods alike and puts them side by side: a table, two pictures and a page.

    python compare.py --dataset=digits --iterations=300 --out=comparison
    python compare.py --iterations=7500 --seeds=1,2,3 --methods=baseline,opt_gs,sopt_gs
    python compare.py --preset=resnet20 --budget=0.02

Each method and seed runs in a process of its own, in OUT/runs/METHOD_seedN with all that train.py leaves. Called again,
it skips what is finished and goes on with what was cut off or failed. OUT gets results.csv (a row a run), table.md,
curves.png, energy.png and report.html, a page in one file with all of them.
"""

import argparse
import base64
import contextlib
import csv
import ctypes
import html
import json
import math
import os
import pathlib
import re
import signal
import statistics
import subprocess
import sys
import time

import numpy as np
from tqdm import tqdm

from common.flags import WIDTHS

ROOT = pathlib.Path(__file__).resolve().parent
# the paper's order and names
TITLES = {
    "baseline": "Baseline",
    "opt_gs": "OPT (GS)",
    "opt_hr": "OPT (HR)",
    "opt_ls": "OPT (LS)",
    "opt_cp": "OPT (CP)",
    "opt_ogd": "OPT (OGD)",
    "opt_or": "OPT (OR)",
    "sopt_gs": "S-OPT (GS)",
}
SCHEDULES = {"sopt_gs": 300_000}  # the original's length of a run where it is not 75,000
# Okabe and Ito's colours, told apart by the colour-blind, and lines that are told apart without colour
STYLES = dict(
    zip(
        TITLES,
        [
            {"color": "#000000", "ls": "-", "marker": "o"},
            {"color": "#0072B2", "ls": "-", "marker": "s"},
            {"color": "#56B4E9", "ls": "--", "marker": "^"},
            {"color": "#009E73", "ls": "-", "marker": "D"},
            {"color": "#E69F00", "ls": "--", "marker": "v"},
            {"color": "#D55E00", "ls": "-.", "marker": "P"},
            {"color": "#CC79A7", "ls": ":", "marker": "X"},
            {"color": "#7A5195", "ls": "-.", "marker": "*"},
        ],
        strict=True,
    )
)


MARKS = ("<!-- comparison: begin -->", "<!-- comparison: end -->")


def parse() -> argparse.Namespace:
    def words(text: str) -> list[str]:
        return [word.strip() for word in text.split(",") if word.strip()]

    def positive(text: str) -> int:
        if not text.isdecimal() or int(text) < 1:
            raise argparse.ArgumentTypeError(f"{text!r} is not a positive whole number")
        return int(text)

    def fraction(text: str) -> float:
        if not 0 < float(text) <= 1:
            raise argparse.ArgumentTypeError(f"{text} is not over 0 and at most 1")
        return float(text)

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--methods", type=words, default=list(TITLES), help="folders, separated by commas (default: all)")
    parser.add_argument("--preset", choices=list(WIDTHS), help="that backbone with the paper's schedule; see the README")
    parser.add_argument("--budget", type=fraction, default=1.0, help="fraction of the schedule, its shape kept (default: 1)")
    parser.add_argument("--backbone", choices=list(WIDTHS), help="(default: cnn6)")
    parser.add_argument(
        "--widths", help="the same for every method; own: each method's (default: 64,64,64,64; 16,32,64 of a resnet)"
    )
    parser.add_argument("--seeds", type=words, default=["1"], help="1,2,3 gives error bars (default: 1)")
    parser.add_argument("--iterations", type=positive, help="of every method (default: the original's 75,000; sopt_gs 300,000)")
    parser.add_argument("--batch_size", type=positive, default=128)
    parser.add_argument("--dataset", choices=["cifar100", "cifar10", "digits"], default="cifar100")
    parser.add_argument("--data_dir", type=pathlib.Path, default=ROOT / "data")
    parser.add_argument("--jobs", type=positive, default=1, help="runs at a time (default: 1)")
    parser.add_argument("--gpus", type=words, default=[], help="numbers of GPUs to spread the runs over")
    parser.add_argument("--paper", type=pathlib.Path, help="a CSV of lines METHOD,ERROR: fills a column of the paper's errors")
    parser.add_argument("--steps", type=pathlib.Path, help="steps.csv of benchmarks.steps, timed on an idle machine")
    parser.add_argument("--readme", type=pathlib.Path, help="a file whose section of results is to be written anew")
    parser.add_argument("--out", type=pathlib.Path, default=ROOT / "comparison")
    parser.error = lambda message: parser.exit(2, f"{parser.prog}: {' '.join(message.split())}\n")
    args = parser.parse_args()
    known = {path.parent.name for path in ROOT.glob("*/train.py")}
    if not args.methods or not set(args.methods) <= known:
        parser.error(f"--methods must be among {', '.join(sorted(known))}")
    if not args.seeds or not all(_is_number(seed, 0, 2**32 - 1) for seed in args.seeds):
        parser.error("--seeds must be whole numbers below 2^32, such as 1,2,3")
    if not all(_is_number(gpu, 0, 1000) for gpu in args.gpus):
        parser.error("--gpus must be numbers, such as 0,1")
    if args.preset and args.backbone:
        parser.error("--preset names the backbone already")
    if args.iterations and args.budget != 1:
        parser.error("--budget is a fraction of the original's schedule; give it or --iterations")
    args.backbone = args.preset or args.backbone or "cnn6"
    like = ",".join(map(str, WIDTHS[args.backbone]))
    args.widths = args.widths or like
    if args.widths != "own":
        count = len(WIDTHS[args.backbone])
        if len(words(args.widths)) != count or not all(_is_number(word, 1, 65_536) for word in words(args.widths)):
            parser.error(f"--widths must be {count} positive whole numbers, such as {like}")
        args.widths = ",".join(str(int(word)) for word in words(args.widths))
    args.seeds = list(dict.fromkeys(str(int(seed)) for seed in args.seeds))
    for name in ("data_dir", "out"):
        try:
            setattr(args, name, getattr(args, name).expanduser())
        except RuntimeError as error:
            parser.error(f"--{name}={getattr(args, name)}: {error}")
    args.methods = sorted(set(args.methods), key=[*TITLES, *sorted(known)].index)
    for path in (args.out, args.out / "runs"):
        if os.path.exists(path) and not path.is_dir():
            parser.error(f"--out: {path} is not a folder")
    for name in ("paper", "steps", "readme"):
        path = getattr(args, name)
        if path and not os.path.isfile(path):  # Path.is_file raises for a name that is too long
            parser.error(f"--{name}={path} is not a file")
        try:
            if path and name != "readme":
                list(csv.reader(path.read_text().splitlines()))
            elif path:
                path.read_text()
        except (OSError, ValueError, csv.Error) as error:
            parser.error(f"--{name}={path} cannot be read: {error}")
    if args.steps and (problem := _steps_problem(args)):
        parser.error(f"--steps={args.steps}: {problem}")
    if args.readme and not all(mark in args.readme.read_text() for mark in MARKS):
        parser.error(f"--readme={args.readme} has no lines {' and '.join(MARKS)}")
    return args


def _is_number(text: str, least: int, most: int) -> bool:
    return text.isdecimal() and len(text) <= 10 and least <= int(text) <= most


def _is_float(text: str | None) -> bool:
    try:
        return 0 < float(text or "") < math.inf
    except ValueError:
        return False


def _steps_problem(args: argparse.Namespace) -> str | None:
    """Returns why the times in ``--steps`` are not those of this comparison, if they are not."""
    with args.steps.open() as file:
        lines = list(csv.DictReader(file))
    widths = {line.get("method"): line.get("widths") for line in lines}
    if args.backbone != "cnn6" or args.batch_size != 128:
        return "benchmarks.steps times cnn6 with batches of 128"
    if any(not _is_float(line.get("step_ms")) for line in lines if line.get("method") in args.methods):
        return "a step_ms that is no number"
    others = [m for m in args.methods if widths.get(m) != args.widths.replace(",", "/")]
    return f"no times at widths {args.widths} of {', '.join(others)}" if others else None


def iterations_of(method: str, args: argparse.Namespace) -> int:
    return args.iterations or max(1, round(SCHEDULES.get(method, 75_000) * args.budget))


class Run:
    """One method with one seed, in a folder of its own."""

    def __init__(self, method: str, seed: str, args: argparse.Namespace):
        self.method, self.seed = method, seed
        self.iterations = iterations_of(method, args)
        self.folder = args.out.absolute() / "runs" / f"{method}_seed{seed}"
        self.flags = {
            "dataset": args.dataset,
            "data_dir": str(args.data_dir.absolute()),
            "backbone": args.backbone,
            **({} if args.widths == "own" else {"widths": args.widths}),
            "iterations": self.iterations,
            "batch_size": args.batch_size,
            "seed": seed,
            "log_every": max(1, min(100, self.iterations // 20)),
            "eval_every": max(1, min(500, self.iterations // 10)),
        }
        self.process, self.failure = None, None

    def facts(self) -> dict:
        path = self.folder / "run.json"
        return json.loads(path.read_text()) if path.is_file() else {}

    def is_finished(self) -> bool:
        """Returns whether the run is done; stops where the folder holds a run of other settings."""
        facts = self.facts()
        if "test_accuracy" not in facts:
            return False
        done = facts["settings"]
        for name, asked in self.flags.items():
            value = ",".join(map(str, done[name])) if name == "widths" else str(done[name])
            if value != str(asked) and name != "data_dir":
                sys.exit(f"compare.py: {self.folder} was run with --{name}={value}, not {asked}; take another --out")
        return True

    def start(self, gpu: str | None) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        command = [sys.executable, "train.py", *(f"--{k}={v}" for k, v in self.flags.items()), f"--log_dir={self.folder}"]
        command += [f"--gpu_no={gpu}"] if gpu is not None else []
        command += ["--resume"] if any(self.folder.glob("checkpoints/*.npz")) else []
        options = {"cwd": ROOT / self.method, "preexec_fn": _die_with_parent}
        with (self.folder / "output.txt").open("w") as output:
            self.process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, **options)

    def rows(self) -> list[dict[str, str]]:
        path = self.folder / "metrics.csv"
        if not path.is_file():
            return []
        with path.open() as file:
            return list(csv.DictReader(file))

    def done(self) -> int:
        """Returns how many iterations are known to be done."""
        if self.process is None or self.process.poll() is not None:
            return self.iterations
        with contextlib.suppress(ValueError, TypeError):  # a row that is just being written
            return max((int(row["iteration"]) for row in self.rows()), default=0)
        return 0

    def series(self, value) -> list[tuple[int, float]]:
        """Returns iterations and ``value(row)`` of the rows where that is not None."""
        pairs = [(int(row["iteration"]), value(row)) for row in self.rows()]
        return [(i, v) for i, v in pairs if v is not None]

    def result(self) -> dict:
        """Returns the run's row of results.csv."""
        row = {"method": self.method, "seed": self.seed, "iterations": self.iterations, "status": self.failure or "finished"}
        if self.failure:
            return row
        facts, errors = self.facts(), [v for _, v in self.series(test_error)]
        drifts = [float(v) for k, v in self.rows()[-1].items() if k.startswith("drift/") and v]
        return row | {
            "best_error": min(errors),
            "last_error": errors[-1],
            "step_ms": facts["step_ms"] or math.nan,  # none where a resumed run had no step left to make
            "memory_gib": facts["memory_gib"],
            "energy": next((v for _, v in reversed(self.series(relative_energy(self.rows())))), None),
            "drift": max(drifts) if drifts else None,
            "seconds": facts["seconds"],
        }


def _die_with_parent() -> None:
    # a run that outlived a killed compare.py would write beside the one that the next call starts
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG


def test_error(row: dict[str, str]) -> float | None:
    return 100 * (1 - float(row["test_acc"])) if row["test_acc"] else None


def training_loss(row: dict[str, str]) -> float | None:
    return float(row["fit"]) if row["fit"] else None


def relative_energy(rows: list[dict[str, str]]):
    """Returns a function of a row: the energy of its layers relative to the first row's, on average over layers."""
    names = [name for name in rows[0] if name.startswith("energy/")] if rows else []
    names = [name for name in names if float(rows[0][name])]  # a single neuron has no energy
    return lambda row: statistics.mean(float(row[n]) / float(rows[0][n]) for n in names) if names and row[names[0]] else None


def execute(runs: list[Run], args: argparse.Namespace) -> None:
    """Runs what is not finished, ``--jobs`` at a time."""
    waiting = [run for run in runs if not run.is_finished()]
    skipped = len(runs) - len(waiting)
    if skipped:
        print(f"{skipped} of {len(runs)} runs are finished already", flush=True)
    slots = list(args.gpus) or [None]
    slots = [slots[i % len(slots)] for i in range(max(args.jobs, len(args.gpus)))]
    running: dict[int, Run] = {}
    ended: list[Run] = []
    try:
        with tqdm(total=sum(run.iterations for run in waiting), unit="it", dynamic_ncols=True, desc="all runs") as bar:
            while waiting or running:
                for slot, gpu in enumerate(slots):
                    if slot not in running and waiting:
                        run = waiting.pop(0)
                        run.start(gpu)
                        running[slot] = run
                time.sleep(0.5)
                for slot, run in list(running.items()):
                    if run.process.poll() is not None:
                        del running[slot]
                        ended.append(run)
                        if run.process.returncode or not run.is_finished():
                            run.failure = f"failed ({run.process.returncode}): {_last_line(run.folder / 'output.txt')}"
                        tqdm.write(f"{run.method}, seed {run.seed}: {run.failure or 'finished'}")
                bar.n = sum(run.done() for run in [*ended, *running.values()])
                bar.refresh()
    finally:
        for run in running.values():
            run.process.terminate()
            run.process.wait()


def _last_line(path: pathlib.Path) -> str:
    lines = [line for line in path.read_text(errors="replace").splitlines() if line.strip()]
    return lines[-1][:200] if lines else "no output"


def mean_and_deviation(values: list[float], digits: int = 2) -> str:
    text = f"{statistics.mean(values):.{digits}f}"
    return f"{text} ± {np.std(values, ddof=1):.{digits}f}" if len(values) > 1 else text


def table(runs: list[Run], args: argparse.Namespace) -> list[list[str]]:
    """Returns the table's cells, the head first."""
    paper = {}
    if args.paper:
        with args.paper.open() as file:
            paper = {line[0].strip(): line[1].strip() for line in csv.reader(file) if len(line) >= 2}
    head = ["method", "best error %", "last error %", "ms a step", "x baseline", "memory GiB", "energy / start", "drift"]
    results = {m: [r.result() for r in runs if r.method == m and not r.failure] for m in args.methods}
    if args.steps:
        with args.steps.open() as file:
            timed = {line["method"]: float(line["step_ms"]) for line in csv.DictReader(file)}
        for row in (row for rows in results.values() for row in rows):
            row["step_ms"] = timed[row["method"]]
    plain = [row["step_ms"] for row in results.get("baseline", [])]
    cells = [head + (["paper %"] if args.paper else [])]
    for method in args.methods:
        rows = results[method]
        failed = [r for r in runs if r.method == method and r.failure]
        name = TITLES.get(method, method) + (f" ({len(failed)} of {len(failed) + len(rows)} failed)" if failed else "")
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
            line = [failed[0].failure if failed else ""] + [""] * 6
        cells.append([name, *line] + ([paper.get(method, "")] if args.paper else []))
    return cells


def picture(path: pathlib.Path, runs: list[Run], panels: list[tuple[str, str, object]], title: str) -> None:
    """Draws a panel for each (heading, y label, function of a run's rows that returns a function of a row)."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5.5 * len(panels) + 1.6, 4.2), layout="constrained")
    for axes, (heading, label, value_of) in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels, strict=True):
        for method in dict.fromkeys(run.method for run in runs):
            seeds = [dict(run.series(value_of(run.rows()))) for run in runs if run.method == method and not run.failure]
            common = sorted(set.intersection(*map(set, seeds))) if seeds else []
            if not common:
                continue
            values = [[seed[i] for seed in seeds] for i in common]
            means = [statistics.mean(v) for v in values]
            style = STYLES.get(method, {})
            axes.plot(common, means, label=TITLES.get(method, method), lw=1.6, ms=5, markevery=max(1, len(common) // 8), **style)
            if len(seeds) > 1:
                spread = [np.std(v, ddof=1) for v in values]
                low, high = zip(*((m - s, m + s) for m, s in zip(means, spread, strict=True)), strict=True)
                axes.fill_between(common, low, high, alpha=0.15, color=style.get("color"))
        axes.set(title=heading, xlabel="iteration", ylabel=label)
        axes.grid(alpha=0.3)
        axes.ticklabel_format(axis="y", useOffset=False)
    # beside the panels, where it can cover no data
    handles, labels = figure.axes[0].get_legend_handles_labels()
    if handles:
        figure.legend(handles, labels, loc="outside right center", frameon=False)
    figure.suptitle(title)
    figure.savefig(path, dpi=150)


def write(runs: list[Run], args: argparse.Namespace) -> None:
    """Writes all results into ``--out``."""
    rows = [run.result() for run in runs]
    columns = [
        "method",
        "seed",
        "iterations",
        "status",
        "best_error",
        "last_error",
        "step_ms",
        "memory_gib",
        "energy",
        "drift",
        "seconds",
    ]
    with (args.out / "results.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, columns)
        writer.writeheader()
        writer.writerows(rows)
    facts = [run.facts() for run in runs if not run.failure]

    def distinct(value_of) -> str:
        return "; ".join(dict.fromkeys(value_of(fact) for fact in facts))

    lengths = " and ".join(f"{n:,}" for n in sorted({run.iterations for run in runs}))
    title = (
        f"{args.backbone}, widths {args.widths}, {lengths} iterations, seed{'s' * (len(args.seeds) > 1)} {', '.join(args.seeds)}"
    )
    about = [
        distinct(lambda fact: re.sub(r" from .*: ", ": ", fact["data"])) or f"{args.dataset}: no run finished",
        title + f", batch {args.batch_size}",
        distinct(lambda fact: fact["device"]),
        distinct(lambda fact: ", ".join(f"{k} {v}" for k, v in fact["versions"].items())),
        "git commit " + distinct(lambda fact: str(fact["git_commit"])),
    ]
    notes = (
        "Errors are test errors in per cent: the best of all tests and the last. Energy is the hyperspherical energy (s = 1) "
        "at the end over that at the start, the mean over layers. Drift is max |Q Q^T - I| of the matrices that turn the "
        "neurons, the largest of all layers. A step is "
        + (
            "timed apart from the runs, by benchmarks.steps."
            if args.steps
            else "the run's mean, tests and the first step left out."
        )
    )
    cells = table(runs, args)
    lines = ["| " + " | ".join(line) + " |" for line in cells]
    lines.insert(1, "|" + "---|" * len(cells[0]))
    (args.out / "table.md").write_text("\n".join([*lines, "", *(f"{a}  " for a in about), "", notes, ""]))
    panels = [
        ("Test error", "test error (%)", lambda _: test_error),
        ("Training loss", "loss of a batch", lambda _: training_loss),
    ]
    picture(args.out / "curves.png", runs, panels, title)
    energy = [("Hyperspherical energy of the neurons", "energy / energy at the start", relative_energy)]
    picture(args.out / "energy.png", runs, energy, title)
    (args.out / "report.html").write_text(page(cells, about, notes, args.out))
    if args.readme:
        write_readme(args, (args.out / "table.md").read_text())
    print("\n".join(lines))
    for name in ("results.csv", "table.md", "curves.png", "energy.png", "report.html"):
        print(f"written: {(args.out / name).absolute()}")


def write_readme(args: argparse.Namespace, results: str) -> None:
    """Puts the table and the pictures between the marks of ``--readme``; the pictures go into docs/ beside it."""
    docs = args.readme.absolute().parent / "docs"
    docs.mkdir(exist_ok=True)
    for name in ("curves.png", "energy.png"):
        (docs / name).write_bytes((args.out / name).read_bytes())
    before, rest = args.readme.read_text().split(MARKS[0])
    after = rest.split(MARKS[1])[1]
    pictures = "![Test error and training loss](docs/curves.png)\n\n![Hyperspherical energy](docs/energy.png)"
    args.readme.write_text(f"{before}{MARKS[0]}\n{results}\n{pictures}\n{MARKS[1]}{after}")


def page(cells: list[list[str]], about: list[str], notes: str, out: pathlib.Path) -> str:
    def row(line: list[str], tag: str) -> str:
        return "<tr>" + "".join(f"<{tag}>{html.escape(cell)}</{tag}>" for cell in line) + "</tr>"

    def image(name: str, width: int) -> str:
        data = base64.b64encode((out / name).read_bytes()).decode()
        return f'<img alt="{name}" width="{width}%" src="data:image/png;base64,{data}">'

    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>OPT: methods side by side</title>
<style>
body {{ font: 16px/1.5 sans-serif; max-width: 70em; margin: 2em auto; padding: 0 1em; color: #111 }}
table {{ border-collapse: collapse; font-variant-numeric: tabular-nums }}
th, td {{ padding: .3em .8em; border-bottom: 1px solid #ccc; text-align: right }}
th:first-child, td:first-child {{ text-align: left }}
img {{ margin-top: 1.5em }}
.about {{ color: #555 }}
</style></head><body>
<h1>Orthogonal Over-Parameterized Training: methods side by side</h1>
<p class="about">{"<br>".join(map(html.escape, about))}</p>
<table><thead>{row(cells[0], "th")}</thead><tbody>{"".join(row(line, "td") for line in cells[1:])}</tbody></table>
<p>{html.escape(notes)}</p>
{image("curves.png", 100)}
{image("energy.png", 60)}
</body></html>
"""


def main() -> None:
    args = parse()
    try:
        args.out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        print(f"compare.py: --out={args.out} cannot be made: {error.strerror}", file=sys.stderr)
        sys.exit(2)
    runs = [Run(method, seed, args) for method in args.methods for seed in args.seeds]
    try:
        execute(runs, args)
    except KeyboardInterrupt:
        sys.exit("\ninterrupted; the same command goes on with what is not finished")
    write(runs, args)
    if all(run.failure for run in runs):
        sys.exit("compare.py: every run failed; see output.txt in the runs' folders")


if __name__ == "__main__":
    main()
