"""Time and error of the orthogonal maps, next to those of TensorFlow, PyTorch and geotorch.

    python -m benchmarks.maps            # n from 27 to 2048: a quarter of an hour on two idle cores
    python -m benchmarks.maps --sizes=288,576 --implementations=cayley,tf.linalg.solve

A call computes a map of w, an n x n matrix of N(0, 1) in float32, and then the gradient of w for a
fixed random cotangent. "product" is map(w) @ f with f [n, 64], as layers use it. "formed" is map(w)
itself, which all other libraries compute. PyTorch's and geotorch's rows are timed on a CPU, where
requirements.txt of this folder is installed. Their parametrizations get parameters for which they
compute the same as ours: cayley is Cayley's transform of S, the skew part of w's upper triangle,
and matrix_exp and expm are the exponential of S, which would be cheaper near S = 0.

Each round calls all implementations one after the other, so that a change of the machine's speed
affects all of them. ms is the median over the rounds. multiple is the median of each round's ratio
to one n x n product tf.matmul(w, w), for a batch too: a batch of 5 is one call, timed for n up to
576. Rows with jit are single matrices, compiled by XLA. A call of TensorFlow from Python takes
0.2 ms, which a training step does not pay for each map: at n = 27 this is most of the time.

orthogonality is max |Q^T Q - I|, and for a product max |K^T K - f^T f| / max |f^T f|. deviation is
max |Q - Q64| / max |Q64|, where Q64 is the map in float64. The tables go to standard output, all
figures to maps.csv.
"""

import dataclasses
import functools
import importlib.util
import pathlib
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from common.training.startup import import_tensorflow

tf = import_tensorflow()

from benchmarks.reporting import CORES, check_outputs, machine, save, table, warn_if_busy
from common import orthogonal
from common.errors import UserError
from common.training.command_line import Options, run_program, setting
from comparison.publishing import put

COLUMNS_OF_F = 64
BATCH, BATCH_UP_TO = 5, 576
UNIT = "tf.matmul"
GPU = bool(tf.config.list_physical_devices("GPU"))
KEYS = ("map", "implementation", "n", "batch", "jit", "ms", "multiple", "orthogonality")
KEYS += ("deviation", "rounds", "note")

Call = Callable[[], Any]  # computes value and gradient, and returns the value


@dataclasses.dataclass(frozen=True)
class Settings(Options):
    sizes: tuple[int, ...] = setting((27, 144, 288, 576, 1024, 2048), "n", least=1)
    implementations: tuple[str, ...] | None = setting(
        None, "those whose names contain one of these (default: all)"
    )
    rounds: int = setting(7, "the most calls of each", least=1)
    seconds: float = setting(60, "start no round after this time at an n", above=0)
    jit_up_to: int = setting(576, "the largest n that XLA compiles maps for; 0: none", least=0)
    out: pathlib.Path = setting(pathlib.Path("maps.csv"), "the CSV")
    readme: pathlib.Path | None = setting(
        None, "a Markdown file: put the tables between its marks of maps"
    )

    def check(self) -> None:
        check_outputs("maps", self.out, self.readme)
        if not self.sizes:
            raise UserError("--sizes is empty")


def transposed(w: tf.Tensor) -> tf.Tensor:
    return tf.linalg.matrix_transpose(w)


def skew(w: tf.Tensor) -> tf.Tensor:
    upper = tf.linalg.band_part(w, 0, -1)
    return upper - transposed(upper)


# by their names in the column `map`; in float64 they give the errors of all implementations
MAPS = {
    "gs rows": orthogonal.gram_schmidt,
    "householder": orthogonal.householder,
    "gs columns": lambda w: transposed(orthogonal.gram_schmidt(transposed(w))),
    "lowdin": orthogonal.lowdin,
    "cayley": orthogonal.cayley,
    "exponential": lambda w: tf.linalg.expm(skew(w)),
}
OURS = ("gs rows", "householder", "lowdin", "cayley")


@dataclasses.dataclass(frozen=True)
class Implementation:
    """A way to compute a map; ``prepare(w, f)`` returns the call that is timed."""

    name: str
    map: str
    prepare: Callable[[np.ndarray, np.ndarray], Call]
    jit: bool = False


def is_ours(name: str) -> bool:
    return is_product(name) or name.endswith(" formed")


def is_product(name: str) -> bool:
    return name.endswith(" product")


def cotangent(like: np.ndarray) -> np.ndarray:
    return np.random.default_rng(0).standard_normal(like.shape, np.float32)


def tensorflow_implementations(jit: bool) -> Iterator[Implementation]:
    """Yields our maps, and without ``jit`` TensorFlow's own, with its gradients."""

    def made(name: str, map_name: str, function: Callable) -> Implementation:
        def prepare(w: np.ndarray, f: np.ndarray) -> Call:
            @tf.function(jit_compile=jit)
            def both(w: tf.Tensor, f: tf.Tensor, upstream: tf.Tensor) -> tuple:
                with tf.GradientTape() as tape:
                    tape.watch(w)
                    value = function(w, f)
                return value, tape.gradient(value, w, upstream)

            arrays = (w, f, cotangent(f if is_product(name) else w))
            tensors = [tf.constant(array) for array in arrays]
            compiled = both.get_concrete_function(*tensors)  # called in half the time of `both`

            def call() -> tf.Tensor:
                value, _ = compiled(*tensors)
                if GPU:  # on a CPU a call returns when the result is there
                    tf.test.experimental.sync_devices()
                return value

            return call

        return Implementation(name, map_name, prepare, jit)

    for name in OURS:
        function = MAPS[name]
        product = functools.partial(orthogonal.product, function)
        yield made(f"{function.__name__} product", name, product)
        formed = lambda w, f, function=function: function(w)  # noqa: E731
        yield made(f"{function.__name__} formed", name, formed)
    if jit:
        return

    def qr(w: tf.Tensor, f: tf.Tensor) -> tf.Tensor:
        q, r = tf.linalg.qr(w)
        return q * tf.sign(tf.linalg.diag_part(r))[..., tf.newaxis, :]

    def svd(w: tf.Tensor, f: tf.Tensor) -> tf.Tensor:
        _, u, v = tf.linalg.svd(w)
        return tf.matmul(u, v, transpose_b=True)

    def solve(w: tf.Tensor, f: tf.Tensor) -> tf.Tensor:
        s, identity = skew(w), tf.eye(w.shape[-1])
        return tf.linalg.solve(identity - s, identity + s)

    yield made("tf.linalg.qr", "gs columns", qr)
    yield made("tf.linalg.svd", "lowdin", svd)
    yield made("tf.linalg.solve", "cayley", solve)


def torch_implementations() -> Iterator[Implementation]:
    """Yields what PyTorch and geotorch have."""
    import geotorch
    import torch
    from torch.nn.utils import parametrizations

    torch.set_num_threads(CORES)

    def qr(w: torch.Tensor) -> torch.Tensor:
        q, r = torch.linalg.qr(w)
        return q * r.diagonal(dim1=-2, dim2=-1).sign().unsqueeze(-2)

    def svd(w: torch.Tensor) -> torch.Tensor:
        u, _, vh = torch.linalg.svd(w)
        return u @ vh

    def of_torch(name: str, w: torch.Tensor) -> torch.nn.Module:
        module = torch.nn.Module()
        module.weight = torch.nn.Parameter(w)
        parametrizations.orthogonal(module, orthogonal_map=name, use_trivialization=False)
        return module.parametrizations.weight[0]

    def of_geotorch(name: str, w: torch.Tensor) -> torch.nn.Module:
        module = geotorch.SO(w.shape, triv=name)
        # it multiplies by a base: by the identity the product changes nothing
        module.base.copy_(torch.eye(w.shape[-1]))
        return module

    def made(name: str, map_name: str, of: Callable) -> Implementation:
        def prepare(w: np.ndarray, f: np.ndarray) -> Call:
            parameter, evaluate = of(torch.tensor(w))
            parameter = parameter.detach().contiguous().requires_grad_()
            upstream = torch.tensor(cotangent(w))

            def call() -> torch.Tensor:
                value = evaluate(parameter)
                torch.autograd.grad(value, parameter, upstream)
                return value.detach()

            return call

        return Implementation(name, map_name, prepare)

    yield made("torch.linalg.qr", "gs columns", lambda w: (w, qr))
    yield made("torch.linalg.svd", "lowdin", lambda w: (w, svd))
    # in both packages the skew matrix is A = tril(X) - tril(X)^T, and the Cayley transform is
    # (I - A/2)^-1 (I + A/2)
    yield made("torch cayley", "cayley", lambda w: (-2 * w.mT, of_torch("cayley", w)))
    yield made("geotorch cayley", "cayley", lambda w: (-2 * w.mT, of_geotorch("cayley", w)))
    yield made("torch matrix_exp", "exponential", lambda w: (-w.mT, of_torch("matrix_exp", w)))
    yield made("geotorch expm", "exponential", lambda w: (-w.mT, of_geotorch("expm", w)))


def errors(name: str, value: np.ndarray, q: np.ndarray, f: np.ndarray) -> dict[str, float]:
    """Returns the errors of ``value`` of the implementation ``name``; ``q`` is the exact map."""
    expected, gram = q, np.eye(q.shape[-1])
    if is_product(name):
        expected, gram = q @ f, f.mT @ f
    return {
        "orthogonality": np.abs(value.mT @ value - gram).max() / np.abs(gram).max(),
        "deviation": np.abs(value - expected).max() / np.abs(expected).max(),
    }


def seconds_of(call: Call, calls: int) -> float:
    begin = time.perf_counter()
    for _ in range(calls):
        call()
    return (time.perf_counter() - begin) / calls


def measure(n: int, batch: int, chosen: list[Implementation], settings: Settings) -> list[dict]:
    """Returns the rows of maps.csv for one n and batch."""
    random = np.random.default_rng(n)
    leading = (batch,) if batch > 1 else ()
    w = random.standard_normal((*leading, n, n), np.float32)
    f = random.standard_normal((*leading, n, COLUMNS_OF_F), np.float32)
    reference = functools.cache(lambda name: MAPS[name](tf.constant(w, tf.float64)).numpy())
    one = tf.constant(w.reshape(-1, n, n)[0])
    size = {"n": n, "batch": batch}
    row = {"map": "one product", "implementation": UNIT, "jit": "off"} | size
    rows = [row]
    timed: list[tuple[dict, Call, int]] = [(row, lambda: tf.matmul(one, one), 10)]
    for way in chosen:
        jit = "on" if way.jit else "off"
        row = {"map": way.map, "implementation": way.name, "jit": jit} | size
        rows.append(row)
        try:
            call = way.prepare(w, f)
            value = np.asarray(call(), np.float64)  # the first call may compile
            seconds = seconds_of(call, 1)
        except RuntimeError as error:  # PyTorch 2.13 cannot solve batches on some processors
            row["note"] = f"failed: {str(error).splitlines()[0]}"
            continue
        row |= errors(way.name, value, reference(way.map), f)
        timed.append((row, call, max(1, min(100, int(0.01 / seconds)))))
    times: list[list[float]] = [[] for _ in timed]
    begin = time.perf_counter()
    while len(times[0]) < settings.rounds and (
        not times[0] or time.perf_counter() - begin < settings.seconds
    ):
        for (_, call, calls), spent in zip(timed, times, strict=True):
            if calls > 1:
                # after a call threads, above all those of OpenMP, keep their cores busy for a while
                time.sleep(0.01)
                call()
            spent.append(1e3 * seconds_of(call, calls))
    for (row, *_), spent in zip(timed, times, strict=True):
        multiples = [ms / unit for ms, unit in zip(spent, times[0], strict=True)]
        row |= {"ms": statistics.median(spent), "multiple": statistics.median(multiples)}
        row["rounds"] = len(spent)
    return rows


def digits(value: float, count: int) -> str:
    return np.format_float_positional(value, count, unique=False, fractional=False).rstrip(".")


def times_table(rows: list[dict]) -> list[str]:
    """Returns a table without XLA: of single matrices, and of the largest batch; ours bold."""
    widest = max((row["n"] for row in rows if row["batch"] > 1), default=0)
    largest = max(row["n"] for row in rows)
    columns = {"name": ("implementation", "{}")}
    lines: dict[str, dict] = {}
    for row in rows:
        if row["jit"] == "on" or (row["batch"] > 1 and row["n"] < widest):
            continue
        name, key = row["implementation"], (row["batch"], row["n"])
        heading = f"n = {row['n']}" if row["batch"] == 1 else f"{row['batch']} of {row['n']}"
        columns[key] = (heading, "{}")
        line = lines.setdefault(name, {"name": f"**{name}**" if is_ours(name) else name})
        line[key] = "fails"
        if "ms" in row:
            line[key] = f"{digits(row['ms'], 3)} ({digits(row['multiple'], 2)})"
        if key == (1, largest) and "orthogonality" in row:
            line["error"] = row["orthogonality"]
    columns = dict(sorted(columns.items(), key=lambda item: (item[0] != "name", item[0])))
    return table(columns | {"error": (f"error, n = {largest}", "{:.0e}")}, list(lines.values()))


def errors_table(rows: list[dict]) -> list[str]:
    """Returns a table of our maps' errors, at the largest n that XLA compiled them for."""
    compiled = [row["n"] for row in rows if row["jit"] == "on"]
    if not compiled:
        return []
    columns, lines = {"name": ("map", "{}")}, {}
    for error in ("orthogonality", "deviation"):
        columns |= {(error, "off"): (f"without, {error}", "{:.0e}")}
        columns |= {(error, "on"): (f"with XLA, {error}", "{:.0e}")}
    for row in rows:
        name = row["implementation"]
        if is_ours(name) and (row["n"], row["batch"]) == (max(compiled), 1):
            line = lines.setdefault(name, {"name": name})
            line |= {(error, row["jit"]): row[error] for error in ("orthogonality", "deviation")}
    about = f"The errors at n = {max(compiled)}, without XLA and with it:"
    note = "Deviation is max \\|Q - Q64\\| / max \\|Q64\\|, where Q64 is the map in float64."
    return ["", about, "", *table(columns, list(lines.values())), "", note]


def main(settings: Settings) -> None:
    chosen = [*tensorflow_implementations(False), *tensorflow_implementations(True)]
    if not GPU and importlib.util.find_spec("torch") and importlib.util.find_spec("geotorch"):
        chosen += torch_implementations()
    wanted = settings.implementations or ("",)
    chosen = [way for way in chosen if any(word in way.name for word in wanted)]
    chosen.sort(key=lambda way: list(MAPS).index(way.map))
    if not chosen:
        raise UserError(f"--implementations={','.join(wanted)}: no name contains that")
    tf.config.experimental.enable_tensor_float_32_execution(False)
    warn_if_busy()
    rows: list[dict] = []
    for n in sorted(set(settings.sizes)):
        for batch in (1, BATCH)[: 1 + (n <= BATCH_UP_TO)]:
            print(f"n = {n}, batch {batch}", file=sys.stderr, flush=True)
            compiled = batch == 1 and n <= settings.jit_up_to
            fitting = [way for way in chosen if compiled or not way.jit]
            rows += measure(n, batch, fitting, settings)
    note = (
        "Milliseconds, forward and backward; in brackets, multiples of one n x n product. The "
        "error is max \\|Q^T Q - I\\|, of a product K = map(w) @ f "
        "max \\|K^T K - f^T f\\| / max \\|f^T f\\|."
    )
    lines = [*times_table(rows), "", f"{machine()}. {note}", *errors_table(rows)]
    print(*lines, sep="\n")
    save(settings.out, {key: (key, "{}") for key in KEYS}, rows)
    if settings.readme:
        put(settings.readme, "maps", lines)


if __name__ == "__main__":
    run_program(Settings, main, "benchmarks.maps")
