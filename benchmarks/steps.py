"""A training step of every method, with plain steps before and after it: CNN-6, batch 128.

    python -m benchmarks.steps                # all methods, and opt_gs in blocks of 64
    python -m benchmarks.steps --kernels      # counts each step's kernels: up to a minute each
    python -m benchmarks.steps --peers        # PyTorch, geotorch and deel-lip: see peers.py

Rows are named as those of compare.py. Each measurement has a separate process and random images. A
row has the median time of a step, the time to the end of the first step, the peak memory and the
images per second. Plain training of the same kind is timed before and after each row, since a
machine's speed changes; ratios are to the mean of both. The table is written to steps.csv too.
"""

import dataclasses
import itertools
import json
import os
import pathlib
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator

import numpy as np

from benchmarks.reporting import check_out, machine, save, table
from common import backbones
from common.errors import UserError
from common.training import command_line
from common.training.command_line import Options, setting
from common.training.methods import known, method_of
from common.training.settings import BATCH_SIZE, PRECISIONS, ROOT
from common.training.startup import import_tensorflow
from comparison.rows import Row, parse

PLAIN = "baseline"  # all ratios are to its step
PEERED = (PLAIN, "opt_gs", "opt_cp", "opt_ls")  # the default with --peers
WAYS = ("batch", "jit", "precision")  # of computing the same step
RATIOS = {"step_ms": "ratio", "memory_gib": "memory_ratio"}
CNN6 = backbones.cnn6.widths
CHILD = """import json, sys; from benchmarks.steps import Case, measure
print(json.dumps(measure(Case(**json.loads(sys.argv[1])))))"""
COLUMNS = {
    "method": ("method", "{}"),
    "widths": ("widths", "{}"),
    "batch": ("batch", "{}"),
    "jit": ("XLA", "{}"),
    "precision": ("precision", "{}"),
    "step_ms": ("ms per step", "{:.0f}"),
    "ratio": ("x plain step", "{:.2f}"),
    "peer_ratio": ("x PyTorch's plain step", "{:.2f}"),
    "first_step_s": ("s to the first step", "{:.1f}"),
    "memory_gib": ("peak GiB", "{:.2f}"),
    "memory_ratio": ("x plain", "{:.2f}"),
    "images_per_s": ("images per second", "{:.0f}"),
    "kernels": ("kernels", "{:,}"),
    "note": ("note", "{}"),
}


class Settings(Options):
    methods: tuple[str, ...] | None = setting(
        None, "rows, as in compare.py (default: all methods, and opt_gs in blocks of 64)"
    )
    widths: tuple[int, ...] | None = setting(
        None, "neurons of the three stages' layers and of fc6 (default: each method's)", least=1
    )
    batch: int = setting(BATCH_SIZE, "images per step", least=1)
    steps: int = setting(10, "timed steps", least=1)
    jit: tuple[str, ...] = setting(("off",), "compile steps with XLA", choices=("on", "off"))
    precision: tuple[str, ...] = setting(
        PRECISIONS[:1], "Keras's dtype policies; see train.py", choices=PRECISIONS
    )
    kernels: bool = setting(False, "count the kernels that XLA makes of each step")
    peers: bool = setting(False, "also time PyTorch, geotorch and deel-lip; all on the CPU")
    out: pathlib.Path = setting(pathlib.Path("steps.csv"), "the CSV")

    def check(self) -> None:
        check_out(self.out)
        if self.widths is not None and len(self.widths) != 4:
            raise UserError("--widths must be four numbers")
        if self.peers and (self.jit, self.precision) != (Settings.jit, Settings.precision):
            raise UserError("--peers compares in float32 without XLA, not with --jit, --precision")
        if any("precision" in dict(row.flags) for row in self.rows()):
            raise UserError("--methods: rows have no precision here; --precision is for all")

    def rows(self) -> list[Row]:
        default = PEERED if self.peers else (*known(), "opt_gs:block_size=64")
        return parse(self.methods or default)


@dataclasses.dataclass(frozen=True)
class Case:
    """A measurement of a row, or where ``peer`` is set of one of `peers.PEERS`."""

    name: str
    widths: tuple[int, ...]
    batch: int
    steps: int
    jit: str
    precision: str
    kernels: bool = False
    peer: bool = False


def prepare(
    name: str, widths: tuple[int, ...], batch: int = BATCH_SIZE, precision: str = PRECISIONS[0]
) -> tuple[Callable, list]:
    """Returns a row's step, and random images and labels."""
    tf = import_tensorflow()
    import keras

    from common.training.steps import make_step, policy, scaled

    keras.utils.set_random_seed(0)
    (row,) = parse([name])
    options = command_line.parse(row.kind, [f"--{name}={value}" for name, value in row.flags])
    method = method_of(options)
    with policy(precision):
        model = method.build_model(widths=widths)
    optimizer = method.make_optimizer(options.base_lr, lambda rate, factor=0.1: rate)
    step = make_step(method, model, scaled(optimizer, precision), options.weight_decay)
    if method.start_episode:
        method.start_episode(model, 0, 0)
    images, labels = random_batch(batch)
    return step, [tf.constant(images), tf.constant(labels, tf.int32)]


def random_batch(count: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns images ``[count, 32, 32, 3]``, float32 from 0 to 255, and labels ``[count]``."""
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (count, 32, 32, 3)).astype("float32")
    return images, random.integers(0, 100, count)


def measure(case: Case) -> dict[str, float]:
    """Times ``case`` in this process, and counts its kernels if asked."""
    tf = import_tensorflow()
    on_gpu = not case.peer and bool(tf.config.list_physical_devices("GPU"))
    tf.config.experimental.enable_tensor_float_32_execution(case.jit == "on")  # as in a run
    start = time.perf_counter()  # TensorFlow's import takes seconds that are not the step's
    if case.peer:
        from benchmarks.peers import PEERS

        _, make_peer = PEERS[case.name]
        step = make_peer(case.widths, *random_batch(case.batch))
    else:
        plain_step, arrays = prepare(case.name, case.widths, case.batch, case.precision)
        train = tf.function(plain_step, jit_compile=case.jit == "on")
        step = lambda: train(*arrays)["fit"]  # noqa: E731

    def once(calls: int) -> float:
        begin = time.perf_counter()
        for _ in range(calls):
            result = step()
        float(result)
        return 1e3 * (time.perf_counter() - begin) / calls

    once(1)
    first_step_s = time.perf_counter() - start
    # a run gives a GPU many steps per call; on a CPU a call returns when its step is done
    step_ms = statistics.median(once(20 if on_gpu else 1) for _ in range(case.steps))
    figures = {"step_ms": step_ms}
    if not case.peer:  # whose imports take time and memory too
        from common.training.environment import peak_memory

        figures |= {"first_step_s": first_step_s, "memory_gib": peak_memory()}
    if case.kernels:
        from benchmarks import kernels

        figures["kernels"] = kernels.count(tf.function(plain_step, jit_compile=True), *arrays)
    return figures


def in_a_process(case: Case) -> dict:
    """Returns what `measure` returns in a separate process, or a note why that failed."""
    command = [sys.executable, "-c", CHILD, json.dumps(dataclasses.asdict(case))]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    if result.returncode:
        lines = result.stderr.strip().splitlines() or ["no output"]
        return {"note": f"failed ({result.returncode}): {lines[-1][:200]}"}
    return json.loads(result.stdout.splitlines()[-1])


def cases(settings: Settings, peers: Iterable[str]) -> Iterator[Case]:
    """Yields what to measure, in the order of the table."""
    # opt_cp has other widths by default
    widths = settings.widths or (CNN6 if peers else None)
    for jit, precision in itertools.product(settings.jit, settings.precision):
        way = {"batch": settings.batch, "steps": settings.steps, "jit": jit, "precision": precision}
        for row in settings.rows():
            neurons = widths or row.kind.cnn_widths or CNN6
            yield Case(row.name, neurons, kernels=settings.kernels, **way)
        for name in peers:
            yield Case(name, widths, peer=True, **way)


def compared(todo: Iterable[Case]) -> Iterator[dict]:
    """Yields each case's row of the table, with its ratios to plain steps before and after it."""
    last, after = None, {}
    for case in todo:
        plain = dataclasses.replace(case, name=PLAIN, kernels=False, peer=False)
        before = after if plain == last else in_a_process(plain)
        row = {"method": case.name, "widths": "/".join(map(str, case.widths))}
        row |= {way: getattr(case, way) for way in WAYS} | in_a_process(case)
        last, after = plain, in_a_process(plain)
        for key, ratio in RATIOS.items():
            if key in row and key in before and key in after:
                row[ratio] = row[key] / statistics.mean([before[key], after[key]])
        if "step_ms" in row:
            row["images_per_s"] = 1e3 * case.batch / row["step_ms"]
        if "ratio" in row and not 0.9 < before["step_ms"] / after["step_ms"] < 1 / 0.9:
            times = f"{before['step_ms']:.0f} ms before it and {after['step_ms']:.0f} ms after it"
            row["note"] = f"not idle? the plain step took {times}"
        yield row


def peer_titles() -> dict[str, str]:
    """Returns the titles of the peers; raises UserError without PyTorch or geotorch."""
    try:
        from benchmarks.peers import PEERS
    except ImportError as error:
        install = "pip install -r benchmarks/requirements.txt"
        raise UserError(f"--peers lacks {error.name}: {install}") from error
    return {name: title for name, (title, _) in PEERS.items()}


def main(settings: Settings) -> None:
    if settings.peers:
        os.environ["CUDA_VISIBLE_DEVICES"] = "-1"
    peers = peer_titles() if settings.peers else {}
    titles = {row.name: row.title for row in settings.rows()} | peers
    rows = []
    for row in compared(cases(settings, peers)):
        rows.append(row)
        result = f"{row['step_ms']:.1f} ms" if "step_ms" in row else row["note"]
        print(f"{row['method']} {row['widths']}: {result}", file=sys.stderr, flush=True)
    plain = [row["ratio"] for row in rows if "torch_plain" in row["method"] and "ratio" in row]
    for row in rows:
        if plain and "ratio" in row:
            row["peer_ratio"] = row["ratio"] / min(plain)
    fixed = [key for key in WAYS if len({row[key] for row in rows}) == 1]
    columns = {key: column for key, column in COLUMNS.items() if key not in fixed}
    titled = [row | {"method": titles[row["method"]]} for row in rows]
    about = [machine(), *(f"--{key}={rows[0][key]}" for key in fixed)]
    about.append(f"median of {settings.steps} steps.")
    print(*table(columns, titled), "", "; ".join(about), sep="\n")
    save(settings.out, COLUMNS, rows)


if __name__ == "__main__":
    command_line.run_program(Settings, main, "benchmarks.steps")
