"""Time and error of the orthogonal maps, next to those of TensorFlow's functions.

    python -m benchmarks.maps            # n from 27 to 2048: minutes on two idle cores

A call computes a map of w, an n x n matrix of N(0, 1) in float32, and then the gradient of w for a
fixed random cotangent. "product" is map(w) @ f with f [n, 64], as layers use it; "formed" is
map(w). ms is the median over rounds that call all implementations in turn; multiple is the median
of each round's ratio to one product tf.matmul(w, w), for a batch too. Rows with jit have XLA.
"""

import functools
import pathlib
import statistics
import sys
import time
from collections.abc import Callable

import numpy as np

from common.training.startup import import_tensorflow

tf = import_tensorflow()

from benchmarks.reporting import check_out, machine, save, table
from common import orthogonal
from common.training.command_line import Options, run_program, setting

BATCH, BATCH_UP_TO = 5, 576
GPU = bool(tf.config.list_physical_devices("GPU"))
ERRORS = ("orthogonality", "deviation")
KEYS = ("implementation", "n", "batch", "jit", "ms", "multiple", *ERRORS)
NOTE = (
    "Milliseconds, forward and backward; in brackets, multiples of one n x n product. The error is "
    "max \\|Q^T Q - I\\|, of a product K = map(w) @ f max \\|K^T K - f^T f\\| / max \\|f^T f\\|."
)


class Settings(Options):
    sizes: tuple[int, ...] = setting((27, 144, 288, 576, 1024, 2048), "n", least=1)
    rounds: int = setting(7, "rounds of calls", least=1)
    jit_up_to: int = setting(576, "the largest n for XLA; 0: none", least=0)
    out: pathlib.Path = setting(pathlib.Path("maps.csv"), "the CSV")

    def check(self) -> None:
        check_out(self.out)


def gs_columns(w: tf.Tensor) -> tf.Tensor:
    return tf.linalg.matrix_transpose(orthogonal.gram_schmidt(tf.linalg.matrix_transpose(w)))


def qr(w: tf.Tensor, f: tf.Tensor) -> tf.Tensor:
    q, r = tf.linalg.qr(w)
    return q * tf.sign(tf.linalg.diag_part(r))[..., tf.newaxis, :]


def svd(w: tf.Tensor, f: tf.Tensor) -> tf.Tensor:
    _, u, v = tf.linalg.svd(w)
    return tf.matmul(u, v, transpose_b=True)


def solve(w: tf.Tensor, f: tf.Tensor) -> tf.Tensor:
    upper, identity = tf.linalg.band_part(w, 0, -1), tf.eye(w.shape[-1])
    s = upper - tf.linalg.matrix_transpose(upper)
    return tf.linalg.solve(identity - s, identity + s)


def ours(own: orthogonal.Map) -> dict[str, tuple[orthogonal.Map, Callable]]:
    return {
        f"{own.__name__} product": (own, functools.partial(orthogonal.product, own)),
        f"{own.__name__} formed": (own, lambda w, f: own(w)),
    }


# by name: the map, which in float64 gives the errors, and how it is computed from w and f
IMPLEMENTATIONS: dict[str, tuple[Callable, Callable]] = {
    **ours(orthogonal.gram_schmidt),
    **ours(orthogonal.householder),
    "tf.linalg.qr": (gs_columns, qr),
    **ours(orthogonal.lowdin),
    "tf.linalg.svd": (orthogonal.lowdin, svd),
    **ours(orthogonal.cayley),
    "tf.linalg.solve": (orthogonal.cayley, solve),
}
OURS = {name for name in IMPLEMENTATIONS if not name.startswith("tf.")}


def prepare(function: Callable, jit: bool, *arguments: tf.Tensor) -> Callable[[], tf.Tensor]:
    """Returns a call that computes value and gradient, and returns the value."""

    @tf.function(jit_compile=jit)
    def both(w: tf.Tensor, f: tf.Tensor, upstream: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        with tf.GradientTape() as tape:
            tape.watch(w)
            value = function(w, f)
        return value, tape.gradient(value, w, upstream)

    compiled = both.get_concrete_function(*arguments)  # called in half the time of `both`

    def call() -> tf.Tensor:
        value, _ = compiled(*arguments)
        if GPU:  # on a CPU a call returns when the result is there
            tf.test.experimental.sync_devices()
        return value

    return call


def errors(value: np.ndarray, q: np.ndarray, f: np.ndarray) -> dict[str, float]:
    """Returns the errors of ``value``, which should be q @ f; f is an identity for q itself."""
    expected, gram = q @ f, f.mT @ f
    return {
        "orthogonality": np.abs(value.mT @ value - gram).max() / np.abs(gram).max(),
        "deviation": np.abs(value - expected).max() / np.abs(expected).max(),
    }


def milliseconds(call: Callable, calls: int) -> float:
    begin = time.perf_counter()
    for _ in range(calls):
        call()
    return 1e3 * (time.perf_counter() - begin) / calls


def measure(n: int, batch: int, jits: list[str], rounds: int) -> list[dict]:
    """Returns the rows of maps.csv for one n and batch."""
    random, leading = np.random.default_rng(n), (batch,) * (batch > 1)
    w = tf.constant(random.standard_normal((*leading, n, n), np.float32))
    f = tf.constant(random.standard_normal((*leading, n, 64), np.float32))
    exact = functools.cache(lambda own: own(tf.cast(w, tf.float64)).numpy())
    one = tf.reshape(w, [-1, n, n])[0]
    size = {"n": n, "batch": batch, "jit": "off"}
    rows: list[dict] = [{"implementation": "tf.matmul"} | size]
    timed: list[tuple[Callable, int]] = [(lambda: tf.matmul(one, one), 10)]
    for name, (own, function) in IMPLEMENTATIONS.items():
        right = f if name.endswith(" product") else tf.eye(n)
        upstream = tf.random.stateless_normal((*leading, n, right.shape[-1]), seed=(0, 0))
        for jit in jits if name in OURS else ["off"]:
            call = prepare(function, jit == "on", w, f, upstream)
            value = call().numpy().astype(np.float64)  # the first call may compile
            way = {"implementation": name, **size, "jit": jit}
            rows.append(way | errors(value, exact(own), right.numpy()))
            timed.append((call, max(1, min(100, int(10 / milliseconds(call, 1))))))
    times: list[list[float]] = [[] for _ in timed]
    for _ in range(rounds):
        for (call, calls), spent in zip(timed, times, strict=True):
            if calls > 1:  # after another implementation's calls a short one may be slower
                call()
            spent.append(milliseconds(call, calls))
    for row, spent in zip(rows, times, strict=True):
        multiples = [ms / unit for ms, unit in zip(spent, times[0], strict=True)]
        row |= {"ms": statistics.median(spent), "multiple": statistics.median(multiples)}
    return rows


def digits(value: float, count: int) -> str:
    return np.format_float_positional(value, count, unique=False, fractional=False).rstrip(".")


def times_table(rows: list[dict]) -> list[str]:
    """Returns a table without XLA: of single matrices, and of the largest batch; ours bold."""
    widest = max((row["n"] for row in rows if row["batch"] > 1), default=0)
    largest = max(row["n"] for row in rows)
    columns, lines = {"name": ("implementation", "{}")}, {}
    for row in sorted(rows, key=lambda row: (row["batch"], row["n"])):
        name, n, batch = row["implementation"], row["n"], row["batch"]
        if row["jit"] == "on" or (batch > 1 and n < widest):
            continue
        key = f"n = {n}" if batch == 1 else f"{batch} of {n}"
        columns[key] = key, "{}"
        line = lines.setdefault(name, {"name": f"**{name}**" if name in OURS else name})
        line[key] = f"{digits(row['ms'], 3)} ({digits(row['multiple'], 2)})"
        if batch == 1 and n == largest and "orthogonality" in row:
            line["error"] = row["orthogonality"]
    columns["error"] = f"error, n = {largest}", "{:.0e}"
    return table(columns, list(lines.values()))


def errors_table(rows: list[dict]) -> list[str]:
    """Returns a table of our maps' errors, at the largest n that XLA compiled them for."""
    largest = max((row["n"] for row in rows if row["jit"] == "on"), default=0)
    columns = {"implementation": ("map", "{}"), "jit": ("XLA", "{}")}
    columns |= {error: (error, "{:.0e}") for error in ERRORS}
    ours = [row for row in rows if row["implementation"] in OURS and row["batch"] == 1]
    lines = table(columns, [row for row in ours if row["n"] == largest])
    about = f"The errors at n = {largest}, without XLA and with it:"
    note = "Deviation is max \\|Q - Q64\\| / max \\|Q64\\|, where Q64 is the map in float64."
    return ["", about, "", *lines, "", note] if largest else []


def main(settings: Settings) -> None:
    tf.config.experimental.enable_tensor_float_32_execution(False)
    rows: list[dict] = []
    for n in sorted(set(settings.sizes)):
        for batch in (1, BATCH) if n <= BATCH_UP_TO else (1,):
            print(f"n = {n}, batch {batch}", file=sys.stderr, flush=True)
            jits = ["off", "on"] if batch == 1 and n <= settings.jit_up_to else ["off"]
            rows += measure(n, batch, jits, settings.rounds)
    lines = [*times_table(rows), "", f"{machine()}. {NOTE}", *errors_table(rows)]
    print(*lines, sep="\n")
    save(settings.out, {key: (key, "{}") for key in KEYS}, rows)


if __name__ == "__main__":
    run_program(Settings, main, "benchmarks.maps")
