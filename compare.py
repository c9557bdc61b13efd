"""Trains several methods alike and puts them side by side: a table, images and a page.

    python compare.py --dataset=digits --iterations=300 --out=results/digits
    python compare.py --iterations=7500 --seeds=1,2,3 --methods=opt_gs,opt_gs:rotation_stddev=0.2
    python compare.py --preset=resnet20 --budget=0.02

A row is a method, or a method with settings: METHOD:FLAG=VALUE:FLAG=VALUE, flags of that method's
train.py. Each row and seed runs in a process of its own, in OUT/runs/ROW_seedN with all that
train.py leaves. Called again, it skips what is finished and goes on with what was cut off or
failed. Ctrl-C lets the runs save their state first. OUT gets results.csv (a line a run), table.md,
curves.png, energy.png and report.html, a page in one file with all of them.
"""

import argparse
import csv
import itertools
import os
import pathlib
import signal
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))

from common import backbones
from common.training.methods import known
from common.training.settings import BATCH_SIZE, Settings
from common.training.texts import shown
from comparison import output, table
from comparison.execution import execute
from comparison.rows import PRESETS, Row, parse
from comparison.runs import ROOT, Run, SettingsError, with_all_seeds

WIDTHS = {name: facts.widths for name, facts in backbones.known().items()}


def words(text: str) -> list[str]:
    return [word.strip() for word in text.split(",") if word.strip()]


def positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a positive whole number")
    return int(text)


def whole(text: str) -> int:
    if not is_number(text, 0, 2**31 - 1):
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number, 0 or more")
    return int(text)


def fraction(text: str) -> float:
    if not 0 < float(text) <= 1:
        raise argparse.ArgumentTypeError(f"{text} is not over 0 and at most 1")
    return float(text)


def is_number(text: str, least: int, most: int) -> bool:
    return text.isdecimal() and len(text) <= 10 and least <= int(text) <= most


def lengths() -> str:
    """Returns how long whole runs are: of most methods, and of those that state another length."""
    own = {name: kind.iterations for name, kind in known().items()}
    others = [f"{name} {count:,}" for name, count in own.items() if count != Settings.iterations]
    return "; ".join([f"the original's {Settings.iterations:,}", *others])


def arguments() -> argparse.ArgumentParser:
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(prog="compare.py", description=__doc__, formatter_class=raw)
    parser.error = lambda message: parser.exit(2, shown(f"{parser.prog}: {message}") + "\n")
    add, path = parser.add_argument, pathlib.Path
    names = ["cifar100", "cifar10", "digits", "folder"]
    text = "rows, separated by commas: folders, or folders with settings, such as "
    text += "opt_gs:rotation_stddev=0.2 (default: all folders)"
    add("--methods", type=words, help=text)
    text = "a backbone with the paper's schedule (see the README); sopt: S-OPT at rotated_fraction "
    text += (
        "1/8, 1/4, 1/2 and 1, beside what --methods names; few: all methods with 5,000 training "
    )
    text += "images, where plain training overfits; other flags override what it sets"
    add("--preset", choices=[*WIDTHS, *PRESETS], help=text)
    text = "fraction of the schedule, its shape kept (default: 1)"
    add("--budget", type=fraction, default=1.0, help=text)
    add("--backbone", choices=list(WIDTHS), help="(default: cnn6)")
    text = "the same for all, or own: each method's (default: 64,64,64,64; a resnet's 16,32,64)"
    add("--widths", help=text)
    text = "1,2,3 gives standard deviations (default: 1)"
    add("--seeds", type=words, default=["1"], help=text)
    text = "the table takes in what OUT has of its rows with other seeds, finished"
    add("--all_seeds", action="store_true", help=text)
    add("--iterations", type=positive, help=f"of every method (default: {lengths()})")
    text = "of every method: iterations over which the rate grows to its first value. Without it "
    text += "plain training collapses for its first 2,000 iterations or so, as the log shows that "
    text += "the authors published with their MHE (wy1iu/MHE on GitHub): much of a shortened run, "
    text += "little of a whole one (default: 0 of a whole schedule; of a shorter one 400, or a "
    text += "fifth of the run where that is less)"
    add("--warmup_iterations", type=whole, help=text)
    text = f"(default: {BATCH_SIZE}, or what fits a smaller training set)"
    add("--batch_size", type=positive, help=text)
    add("--dataset", choices=names, default="cifar100")
    add("--image_size", type=positive, default=32, help="of --dataset=folder (default: 32)")
    text = "training images, the same number of each class (default: all)"
    add("--train_images", type=whole, default=0, help=text)
    text = "put after the data set's name, such as re-split where the split is not the official"
    add("--data_note", default="", help=text)
    add("--data_dir", type=path, default=ROOT / "data")
    add("--jobs", type=positive, default=1, help="runs at a time (default: 1)")
    add("--gpus", type=words, default=[], help="GPUs to spread runs over: 0,1")
    text = "a CSV of lines ROW,ERROR: fills a column of the paper's errors"
    add("--paper", type=path, help=text)
    add("--steps", type=path, help="steps.csv of benchmarks.steps, timed on an idle machine")
    add("--readme", type=path, help="a file whose section of results is to be written anew")
    text = "(default: results/ in the repository)"
    add("--out", type=path, default=ROOT / "results", help=text)
    return parser


def parse_arguments() -> argparse.Namespace:
    """Returns the arguments, completed; exits with 2 and one line where the user is mistaken."""
    parser = arguments()
    parser.set_defaults(**{"added": [], **PRESETS.get(parser.parse_args().preset, {})})
    args = parser.parse_args()
    seeds_are_numbers = args.seeds and all(is_number(seed, 0, 2**32 - 1) for seed in args.seeds)
    gpus_are_numbers = all(is_number(gpu, 0, 1000) for gpu in args.gpus)
    one_line = args.data_note.isprintable() and len(args.data_note) <= 100
    budget_too = args.iterations and args.budget != 1
    for wrong, message in [
        (args.methods == [], "--methods must name some"),
        (not seeds_are_numbers, "--seeds must be whole numbers below 2^32, such as 1,2,3"),
        (not gpus_are_numbers, "--gpus must be numbers, such as 0,1"),
        (args.preset and args.backbone, "--preset names the backbone already"),
        (budget_too, "--budget is a fraction of the original's schedule; give it or --iterations"),
        (not one_line, "--data_note must be one line of at most 100 characters"),
    ]:
        if wrong:
            parser.error(message)
    try:
        args.rows = parse([*(args.methods or ([] if args.added else known())), *args.added])
    except ValueError as error:
        parser.error(f"--methods: {error}")
    args.backbone = args.preset if args.preset in WIDTHS else args.backbone or "cnn6"
    like = ",".join(map(str, WIDTHS[args.backbone]))
    args.widths = args.widths or like
    if args.widths != "own":
        count, found = len(WIDTHS[args.backbone]), words(args.widths)
        if len(found) != count or not all(is_number(word, 1, 65_536) for word in found):
            parser.error(f"--widths must be {count} positive whole numbers, such as {like}")
        args.widths = ",".join(str(int(word)) for word in found)
    args.seeds = list(dict.fromkeys(str(int(seed)) for seed in args.seeds))
    _check_paths(parser, args)
    args.shortened = (
        args.iterations or Settings.iterations
    ) < Settings.iterations or args.budget < 1
    args.warmup_chosen = args.warmup_iterations is None
    if args.warmup_chosen:
        # not of the rows' own lengths: the same whatever rows are added later
        length = args.iterations or int(Settings.iterations * args.budget)
        args.warmup_iterations = Settings.usual_warmup(length)
    pairs = itertools.product(args.rows, args.seeds)
    args.runs = [Run(row, seed, args.out, flags_of(row, args)) for row, seed in pairs]
    for run in args.runs[:: len(args.seeds)]:
        if problem := run.problem():
            parser.error(f"{run.row.name}: {problem}")
    return args


def _check_paths(parser: argparse.ArgumentParser, args: argparse.Namespace) -> None:
    """Makes ``~`` the user's home, and exits where a path is not what its flag takes."""
    for name in ("data_dir", "out"):
        try:
            setattr(args, name, getattr(args, name).expanduser())
        except RuntimeError as error:
            parser.error(f"--{name}={getattr(args, name)}: {error}")
    for path in (args.out, args.out / "runs"):
        if os.path.exists(path) and not path.is_dir():
            parser.error(f"--out: {path} is not a folder")
    texts = {}
    for name in ("paper", "steps", "readme"):
        path = getattr(args, name)
        if path and not os.path.isfile(path):  # Path.is_file raises for a name that is too long
            parser.error(f"--{name}={path} is not a file")
        try:
            texts[name] = path.read_text("utf-8") if path else ""
            list(csv.reader(texts[name].splitlines() if name != "readme" else []))
        except (OSError, ValueError, csv.Error) as error:
            parser.error(f"--{name}={path} cannot be read: {error}")
    try:
        table.read_steps(args)
    except ValueError as error:
        parser.error(f"--steps={args.steps}: {error}")
    if args.readme and not all(mark in texts["readme"] for mark in output.MARKS):
        parser.error(f"--readme={args.readme} has no lines {' and '.join(output.MARKS)}")


def flags_of(row: Row, args: argparse.Namespace) -> dict[str, str]:
    """Returns the flags that a row has from the comparison: alike for all, but for the length."""
    return {
        "dataset": args.dataset,
        "data_dir": str(args.data_dir.absolute()),
        "image_size": str(args.image_size),
        "train_images": str(args.train_images),
        "backbone": args.backbone,
        **({} if args.widths == "own" else {"widths": args.widths}),
        "iterations": str(args.iterations or max(1, round(row.kind.iterations * args.budget))),
        **({"batch_size": str(args.batch_size)} if args.batch_size else {}),
        "warmup_iterations": str(args.warmup_iterations),
    }


def main() -> None:
    args = parse_arguments()
    try:
        args.out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        print(f"compare.py: --out={args.out} cannot be made: {error.strerror}", file=sys.stderr)
        sys.exit(2)
    if args.warmup_chosen and args.warmup_iterations:
        grows = f"the rate grows over the first {args.warmup_iterations} iterations"
        why = "since the runs are shortened; --warmup_iterations=0 goes without"
        print(f"warm-up: {grows}, {why}", flush=True)
    try:
        if number := execute(args.runs, args.jobs, args.gpus):
            name = signal.Signals(number).name
            print(f"\n{name}; the same command goes on with what is not finished", file=sys.stderr)
            sys.exit(128 + number)
        if args.all_seeds:
            args.runs = with_all_seeds(args.runs)
        output.write(args.runs, args)
    except (SettingsError, OSError) as error:
        sys.exit(f"compare.py: {error}")
    except KeyboardInterrupt:
        sys.exit("\ninterrupted; the same command goes on from the last checkpoints")
    if all(run.failure for run in args.runs):
        sys.exit("compare.py: every run failed; see output.txt in the runs' folders")


if __name__ == "__main__":
    main()
