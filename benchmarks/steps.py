"""A training step of every method beside the plain one: CNN-6 at full width, batch 128.

    python -m benchmarks.steps                # all methods, each in a process of its own
    python -m benchmarks.steps --quick        # fewer steps
    python -m benchmarks.steps --methods=baseline,opt_gs --jit=on

Prints a table and writes it to steps.csv: the median step, its ratio to the plain step at the same widths, the time to
the end of the first step (tracing and compilation included), the peak memory and the pictures a second. Plain
training is timed before and after each method, since machines change their pace. The pictures are random.
"""

import argparse
import csv
import importlib
import json
import pathlib
import resource
import statistics
import subprocess
import sys
import time

ROOT = pathlib.Path(__file__).resolve().parents[1]
BATCH = 128


def measure(name: str, widths: list[int], jit: bool, steps: int) -> dict[str, float]:
    """Times one method in this process; milliseconds, seconds and GiB."""
    import keras
    import numpy as np
    import tensorflow as tf

    from common.training import make_train_step

    start = time.perf_counter()
    keras.utils.set_random_seed(0)
    method = importlib.import_module(f"{name}.architecture").METHOD
    model = method.build_model(widths=widths)
    step = make_train_step(method, model, method.make_optimizer(0.1, lambda rate, factor=0.1: rate), jit)
    random = np.random.default_rng(0)
    images = tf.constant(random.integers(0, 256, (BATCH, 32, 32, 3)).astype("float32"))
    labels = tf.constant(random.integers(0, 100, BATCH), tf.int32)
    if method.start_episode:
        method.start_episode(model, 0, 0)

    def once() -> float:
        begin = time.perf_counter()
        float(step(images, labels)["fit"])
        return time.perf_counter() - begin

    once()
    first = time.perf_counter() - start
    times = [once() for _ in range(steps)]
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    return {"step_ms": 1e3 * statistics.median(times), "first_step_s": first, "memory_gib": memory}


def in_a_process(name: str, widths: list[int], args: argparse.Namespace) -> dict[str, float]:
    words = [f"--measure={name}", f"--widths={','.join(map(str, widths))}", f"--jit={args.jit}", f"--steps={args.steps}"]
    command = [sys.executable, "-m", "benchmarks.steps", *words]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    if result.returncode:
        sys.exit(f"{name} failed:\n{result.stderr}")
    return json.loads(result.stdout.splitlines()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--methods", type=lambda s: s.split(","), help="a list; all by default")
    parser.add_argument("--jit", choices=["on", "off"], default="off")
    parser.add_argument("--steps", type=int, default=20, help="timed steps (default: 20)")
    parser.add_argument("--quick", action="store_true", help="5 steps")
    parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path("steps.csv"))
    parser.add_argument("--measure", help=argparse.SUPPRESS)
    parser.add_argument(
        "--widths", type=lambda s: [int(w) for w in s.split(",")], help="64,64,64,64 by default; opt_cp's own for it"
    )
    args = parser.parse_args()
    args.steps = 5 if args.quick else args.steps
    if args.measure:
        print(json.dumps(measure(args.measure, args.widths, args.jit == "on", args.steps)))
        return
    known = sorted(path.parent.name for path in ROOT.glob("*/architecture.py"))
    methods = args.methods or known
    if unknown := set(methods) - set(known):
        parser.error(f"unknown methods: {', '.join(sorted(unknown))}")
    rows = []
    print(f"{'method':10} {'widths':>14} {'step ms':>9} {'ratio':>6} {'first step s':>13} {'memory GiB':>11} {'pictures/s':>11}")
    for name in methods:
        widths = args.widths or ([32, 64, 128, 128] if name == "opt_cp" else [64] * 4)
        before, row, after = (in_a_process(m, widths, args) for m in ("baseline", name, "baseline"))
        row["ratio"] = row["step_ms"] / statistics.mean([before["step_ms"], after["step_ms"]])
        row |= {"method": name, "widths": "/".join(map(str, widths)), "pictures_per_s": 1e3 * BATCH / row["step_ms"]}
        rows.append(row)
        print(
            f"{name:10} {row['widths']:>14} {row['step_ms']:9.1f} {row['ratio']:6.2f} {row['first_step_s']:13.1f} "
            f"{row['memory_gib']:11.2f} {row['pictures_per_s']:11.0f}",
            flush=True,
        )
    with args.out.open("w", newline="") as file:
        writer = csv.DictWriter(file, ["method", "widths", "step_ms", "ratio", "first_step_s", "memory_gib", "pictures_per_s"])
        writer.writeheader()
        writer.writerows(rows)
    print(f"written: {args.out.absolute()}")


if __name__ == "__main__":
    main()
