"""Time and error of the orthogonal maps, beside those of TensorFlow, PyTorch and geotorch.

    python -m benchmarks.maps            # n from 27 to 2048: a quarter of an hour on two idle cores
    python -m benchmarks.maps --quick    # n up to 288: under a minute
    python -m benchmarks.maps --sizes=288,576 --implementations=cayley,tf.linalg.solve

A call computes a map of w, an n x n matrix of N(0, 1) in float32, and then the gradient of w for a
fixed random cotangent. "product" is map(w) @ f with f [n, 64], as layers use it. "formed" is map(w)
itself, which is also what all other libraries compute. PyTorch and geotorch have rows if they are
installed. The parameters of their parametrizations are set so that they compute the same as ours:
householder is Gram-Schmidt of w, cayley is Cayley's transform of S, the skew part of w's upper
triangle, and matrix_exp and expm are the exponential of S, which would be cheaper near S = 0.

Each round calls all implementations one after the other, so that a change of the machine's speed
affects all of them. ms is the median over the rounds. multiple is the median of each round's ratio
to one n x n product tf.matmul(w, w), for a batch too: a batch of 5 is one call, timed for n up to
576. jit rows are compiled by XLA. A call of TensorFlow from Python takes 0.2 ms, which a training
step does not pay for each map: at n = 27 this is most of the time.

The errors are computed in float64. orthogonality is max |Q^T Q - I|, and for a product
max |K^T K - f^T f| / max |f^T f|. deviation is max |value - reference| / max |reference|, where the
reference is the map by NumPy and SciPy in float64. Prints a table and writes it to maps.csv, with
the image maps.png beside it.
"""

import argparse
import contextlib
import csv
import dataclasses
import functools
import importlib.util
import os
import pathlib
import statistics
import sys
import time
from collections.abc import Callable, Iterator

import numpy as np
import scipy.linalg
from tqdm import tqdm

from common.training.startup import import_tensorflow

tf = import_tensorflow()

from benchmarks.reporting import CORES, Parser, add_outputs, machine, numbers, positive, publish
from common import orthogonal

SIZES, QUICK_SIZES = [27, 144, 288, 576, 1024, 2048], [27, 144, 288]
BATCH, BATCH_UP_TO, QUICK_BATCH_UP_TO = 5, 576, 144
JIT_SKIPPED = {"tf.linalg.svd": "skipped: XLA's SVD takes 2 s per call at n = 144, 25 s at n = 288"}
UNIT = "tf.matmul"
COLUMNS = [
    "map",
    "implementation",
    "n",
    "batch",
    "jit",
    "ms",
    "multiple",
    "orthogonality",
    "deviation",
    "rounds",
    "note",
]

Call = Callable[[], object]  # computes value and gradient, and returns the value


def _signed_qr(w: np.ndarray) -> np.ndarray:
    q, r = np.linalg.qr(w)
    return q * np.sign(np.diagonal(r, axis1=-2, axis2=-1))[..., np.newaxis, :]


def _signed_like_reflections(q: np.ndarray) -> np.ndarray:
    last = np.linalg.slogdet(q).sign * (-1) ** (q.shape[-1] - 1)
    return np.concatenate([q[..., :-1], q[..., -1:] * last[..., np.newaxis, np.newaxis]], axis=-1)


def _polar(w: np.ndarray) -> np.ndarray:
    u, _, vh = np.linalg.svd(w)
    return u @ vh


def _skew(w: np.ndarray) -> np.ndarray:
    return np.triu(w) - np.triu(w).mT


# the maps in float64, by their names in the column `map`
REFERENCES: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "gs rows": lambda w: _signed_qr(w.mT).mT,
    "gs columns": _signed_qr,
    "householder": lambda w: _signed_like_reflections(_signed_qr(w)),
    "lowdin": _polar,
    "cayley": lambda w: np.linalg.solve(
        np.eye(w.shape[-1]) - _skew(w), np.eye(w.shape[-1]) + _skew(w)
    ),
    "exponential": lambda w: scipy.linalg.expm(_skew(w)),
}
PANELS = {
    "Gram-Schmidt, Householder": ["gs rows", "householder", "gs columns"],
    "Löwdin": ["lowdin"],
    "Cayley, exponential": ["cayley", "exponential"],
}


@dataclasses.dataclass(frozen=True)
class Implementation:
    """A way to compute a map; ``prepare(w, f, jit)`` returns what is timed."""

    name: str
    map: str
    prepare: Callable[[np.ndarray, np.ndarray, bool], Call]
    is_ours: bool = False
    is_product: bool = False
    can_jit: bool = False


def cotangent(like: np.ndarray) -> np.ndarray:
    """Returns random numbers of the shape of ``like``, always the same."""
    return np.random.default_rng(0).standard_normal(like.shape, np.float32)


def tensorflow_call(
    function: Callable, is_product: bool, w: np.ndarray, f: np.ndarray, jit: bool
) -> Call:
    """Returns a call that computes ``function(w, f)`` and the gradient of ``w``.

    The value has the shape of ``f`` if it is a product, else that of ``w``.
    """

    @tf.function(jit_compile=jit)
    def both(w: tf.Tensor, f: tf.Tensor, upstream: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        with tf.GradientTape() as tape:
            tape.watch(w)
            value = function(w, f)
        return value, tape.gradient(value, w, upstream)

    tensors = [tf.constant(array) for array in (w, f, cotangent(f if is_product else w))]
    compiled = both.get_concrete_function(
        *tensors
    )  # a call of it takes half as long as one of `both`
    # on a CPU a call returns when the result is ready
    wait = (
        tf.test.experimental.sync_devices
        if tf.config.list_physical_devices("GPU")
        else lambda: None
    )

    def call() -> tf.Tensor:
        value, _ = compiled(*tensors)
        wait()
        return value

    return call


def _tensorflow(
    name: str, map_name: str, function: Callable, is_ours: bool = False, is_product: bool = False
) -> Implementation:
    return Implementation(
        name,
        map_name,
        functools.partial(tensorflow_call, function, is_product),
        is_ours,
        is_product,
        True,
    )


def tensorflow_implementations() -> Iterator[Implementation]:
    """Yields the maps of common.orthogonal, and what TensorFlow offers, with its own gradients."""
    maps = {"gs rows": orthogonal.gram_schmidt, "householder": orthogonal.householder}
    maps |= {"lowdin": orthogonal.lowdin, "cayley": orthogonal.cayley}
    for map_name, function in maps.items():
        name = function.__name__
        product = functools.partial(orthogonal.product, function)
        yield _tensorflow(f"{name} product", map_name, product, is_ours=True, is_product=True)
        yield _tensorflow(
            f"{name} formed", map_name, lambda w, f, function=function: function(w), is_ours=True
        )

    def qr(w: tf.Tensor, f: tf.Tensor) -> tf.Tensor:
        q, r = tf.linalg.qr(w)
        return q * tf.sign(tf.linalg.diag_part(r))[..., tf.newaxis, :]

    def svd(w: tf.Tensor, f: tf.Tensor) -> tf.Tensor:
        _, u, v = tf.linalg.svd(w)
        return tf.matmul(u, v, transpose_b=True)

    def solve(w: tf.Tensor, f: tf.Tensor) -> tf.Tensor:
        upper = tf.linalg.band_part(w, 0, -1)
        s, identity = upper - tf.linalg.matrix_transpose(upper), tf.eye(w.shape[-1])
        return tf.linalg.solve(identity - s, identity + s)

    yield _tensorflow("tf.linalg.qr", "gs columns", qr)
    yield _tensorflow("tf.linalg.svd", "lowdin", svd)
    yield _tensorflow("tf.linalg.solve", "cayley", solve)


def torch_implementations() -> Iterator[Implementation]:
    """Yields what PyTorch and geotorch offer, on the device that TensorFlow uses.

    Yields nothing if PyTorch is not installed or cannot use that device.
    """
    if not importlib.util.find_spec("torch"):
        return
    import torch
    from torch.nn.utils import parametrizations

    on_gpu = bool(tf.config.list_physical_devices("GPU"))
    if on_gpu and not torch.cuda.is_available():
        return
    torch.set_num_threads(CORES)
    device = "cuda" if on_gpu else "cpu"
    wait = torch.cuda.synchronize if on_gpu else lambda: None

    def call_of(parameter: torch.Tensor, evaluate: Callable[[], torch.Tensor]) -> Call:
        upstream = torch.tensor(cotangent(parameter.detach().cpu().numpy()), device=device)

        def call() -> np.ndarray:
            value = evaluate()
            torch.autograd.grad(value, parameter, upstream)
            wait()
            return value.detach().cpu()

        return call

    def function(
        name: str, map_name: str, evaluate: Callable[[torch.Tensor], torch.Tensor]
    ) -> Implementation:
        def prepare(w: np.ndarray, f: np.ndarray, jit: bool) -> Call:
            parameter = torch.tensor(w, device=device, requires_grad=True)
            return call_of(parameter, lambda: evaluate(parameter))

        return Implementation(name, map_name, prepare)

    def parametrization(
        name: str, map_name: str, register: Callable, factor: float | None
    ) -> Implementation:
        """The parameter is ``factor * w^T``, or what `register` makes of the weight w."""

        def prepare(w: np.ndarray, f: np.ndarray, jit: bool) -> Call:
            module = torch.nn.Module()
            module.weight = torch.nn.Parameter(torch.tensor(w, device=device))
            register(module)
            original = module.parametrizations.weight.original
            if factor is not None:
                with torch.no_grad():
                    original.copy_(factor * torch.tensor(w, device=device).mT)
            return call_of(original, lambda: module.weight)

        return Implementation(name, map_name, prepare)

    def qr(w: torch.Tensor) -> torch.Tensor:
        q, r = torch.linalg.qr(w)
        return q * r.diagonal(dim1=-2, dim2=-1).sign().unsqueeze(-2)

    def svd(w: torch.Tensor) -> torch.Tensor:
        u, _, vh = torch.linalg.svd(w)
        return u @ vh

    def own(name: str) -> Callable:
        return functools.partial(
            parametrizations.orthogonal, orthogonal_map=name, use_trivialization=False
        )

    yield function("torch.linalg.qr", "gs columns", qr)
    yield function("torch.linalg.svd", "lowdin", svd)
    # in both packages the skew matrix is A = tril(X) - tril(X)^T, and the Cayley transform is
    # (I - A/2)^-1 (I + A/2)
    yield parametrization("torch householder", "gs columns", own("householder"), None)
    yield parametrization("torch cayley", "cayley", own("cayley"), -2)
    yield parametrization("torch matrix_exp", "exponential", own("matrix_exp"), -1)
    if importlib.util.find_spec("geotorch"):
        import geotorch

        def based(triv: str, module: torch.nn.Module) -> None:
            geotorch.orthogonal(module, triv=triv)
            # geotorch multiplies by a base, which this assignment sets: with the identity the
            # product is still computed, but changes nothing
            module.weight = torch.eye(module.weight.shape[-1], device=device).expand(
                module.weight.shape
            )

        yield parametrization("geotorch cayley", "cayley", functools.partial(based, "cayley"), -2)
        yield parametrization("geotorch expm", "exponential", functools.partial(based, "expm"), -1)


def errors(value: np.ndarray, q: np.ndarray, f: np.ndarray | None) -> dict[str, float]:
    """Returns the orthogonality error of ``value`` and its deviation from the reference.

    The reference is ``q``, and ``q @ f`` where ``f`` is given.
    """
    expected = q if f is None else q @ f
    gram = np.eye(q.shape[-1]) if f is None else f.mT @ f
    return {
        "orthogonality": np.abs(value.mT @ value - gram).max() / np.abs(gram).max(),
        "deviation": np.abs(value - expected).max() / np.abs(expected).max(),
    }


@contextlib.contextmanager
def quiet_libraries() -> Iterator[None]:
    """Hides what C libraries print to standard output: MKL prints a line per failed matrix."""
    sys.stdout.flush()
    kept, nowhere = os.dup(1), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    try:
        yield
    finally:
        os.dup2(kept, 1)
        os.close(kept)
        os.close(nowhere)


def seconds_of(call: Call, calls: int) -> float:
    begin = time.perf_counter()
    for _ in range(calls):
        call()
    return (time.perf_counter() - begin) / calls


def first_calls(
    n: int, batch: int, implementations: list[Implementation], args: argparse.Namespace
) -> tuple[list[tuple[dict, Call, int]], list[dict]]:
    """Calls everything once, which traces and compiles it.

    Returns:
        For the product w @ w and for each implementation, with and without XLA: its row with its
        errors, its call, and how many calls take 10 ms. Then the rows of those that were skipped or
        that failed.
    """
    random = np.random.default_rng(n)
    leading = (batch,) if batch > 1 else ()
    w = random.standard_normal((*leading, n, n), np.float32)
    f = random.standard_normal((*leading, n, args.columns), np.float32)
    reference = functools.cache(lambda name: REFERENCES[name](w.astype(np.float64)))
    one = tf.constant(w.reshape(-1, n, n)[0])
    timed = [
        (
            {"map": "one product", "implementation": UNIT, "jit": "off"},
            lambda: tf.matmul(one, one),
            10,
        )
    ]
    skipped = []
    entries = [
        (i, jit)
        for jit in [False, True][: 1 + (n <= args.jit_up_to)]
        for i in implementations
        if i.can_jit or not jit
    ]
    progress = tqdm(
        entries,
        desc=f"n = {n}, batch {batch}, first calls",
        unit="map",
        dynamic_ncols=True,
        leave=False,
    )
    for implementation, jit in progress:
        progress.set_postfix_str(implementation.name)
        row = {
            "map": implementation.map,
            "implementation": implementation.name,
            "jit": "on" if jit else "off",
        }
        if jit and implementation.name in JIT_SKIPPED:
            skipped.append(row | {"note": JIT_SKIPPED[implementation.name]})
            continue
        try:
            with quiet_libraries():
                call = implementation.prepare(w, f, jit)
                begin = time.perf_counter()
                value = np.asarray(call(), np.float64)
                seconds = time.perf_counter() - begin
        except RuntimeError as error:  # PyTorch 2.13 cannot solve batches on some processors
            skipped.append(row | {"note": f"failed: {str(error).splitlines()[0]}"})
            continue
        row |= errors(
            value, reference(implementation.map), f if implementation.is_product else None
        )
        # XLA's first call compiles; without XLA slow calls are not repeated for this
        if jit or seconds < 1:
            seconds = seconds_of(call, 1)
        timed.append((row, call, max(1, min(100, int(0.01 / seconds)))))
    return timed, skipped


def measure(
    n: int, batch: int, implementations: list[Implementation], args: argparse.Namespace
) -> list[dict]:
    """Returns the rows of maps.csv for one n and batch."""
    timed, skipped = first_calls(n, batch, implementations, args)
    times: list[list[float]] = [[] for _ in timed]
    begin = time.perf_counter()
    for number in tqdm(
        range(args.rounds),
        desc=f"n = {n}, batch {batch}",
        unit="round",
        dynamic_ncols=True,
        leave=False,
    ):
        if number and time.perf_counter() - begin > args.seconds:
            break
        for (_, call, repeats), own in zip(timed, times, strict=True):
            if repeats > 1:
                # after a call threads, above all those of OpenMP, keep their cores busy for a while
                time.sleep(0.01)
                call()
            own.append(1e3 * seconds_of(call, repeats))
    for (row, _, _), own in zip(timed, times, strict=True):
        row |= {"ms": statistics.median(own), "rounds": len(own)}
        row["multiple"] = statistics.median(
            ms / product for ms, product in zip(own, times[0], strict=True)
        )
    return [{"n": n, "batch": batch} | row for row in [*(row for row, _, _ in timed), *skipped]]


HEAD = f"{'map':12} {'implementation':22} {'n':>5} {'batch':>5} {'jit':>4} "
HEAD += f"{'ms':>10} {'multiple':>9} {'|QtQ-I|':>9} {'deviation':>9}"


def line(row: dict) -> str:
    """Returns a row of the table that is printed."""
    start = (
        f"{row['map']:12} {row['implementation']:22} {row['n']:5} {row['batch']:5} {row['jit']:>4} "
    )
    if "ms" not in row:
        return start + row["note"]
    accuracy = f" {row['orthogonality']:9.1e} {row['deviation']:9.1e}" if "deviation" in row else ""
    return f"{start}{row['ms']:10.3f} {row['multiple']:9.2f}{accuracy}"


def single(rows: list[dict]) -> list[dict]:
    """Returns the rows of single matrices without XLA, in the order of `PANELS`."""
    order = ["one product", *(name for names in PANELS.values() for name in names)]
    rows = [row for row in rows if row["batch"] == 1 and row["jit"] == "off" and "ms" in row]
    return sorted(rows, key=lambda row: order.index(row["map"]))


def draw(path: pathlib.Path, rows: list[dict], ours: set[str], title: str) -> None:
    """Draws ms against n of single matrices, without XLA: ours bold, others thin."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import NullLocator

    figure = Figure(figsize=(15, 6.4), layout="constrained")
    colors = ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000"]
    rows = single(rows)
    sizes = sorted({row["n"] for row in rows})
    for axes, (heading, maps) in zip(
        figure.subplots(1, 3, sharey=True), PANELS.items(), strict=True
    ):
        names = dict.fromkeys(row["implementation"] for row in rows if row["map"] in maps)
        for color, name in zip(colors, names, strict=False):
            style = (
                {"lw": 3, "marker": "o", "ms": 6, "zorder": 3}
                if name in ours
                else {"lw": 1, "marker": "s", "ms": 4}
            )
            points = [(row["n"], row["ms"]) for row in rows if row["implementation"] == name]
            style["ls"] = "--" if name.endswith(" formed") else "-"
            axes.plot(*zip(*points, strict=True), label=name, color=color, **style)
        points = [(row["n"], row["ms"]) for row in rows if row["implementation"] == UNIT]
        axes.plot(
            *zip(*points, strict=True), label="one product (tf.matmul)", color="grey", lw=1, ls=":"
        )
        axes.set(xscale="log", yscale="log", title=heading, xlabel="n")
        axes.set_xticks(sizes, [str(n) for n in sizes])
        axes.xaxis.set_minor_locator(NullLocator())
        axes.grid(alpha=0.3)
        # below the axes, where it cannot cover any data
        axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.12), ncol=2, frameon=False)
    figure.axes[0].set_ylabel("ms, forward and backward")
    figure.suptitle(title, fontsize="medium")
    figure.savefig(path, dpi=130)


def markdown(rows: list[dict], ours: set[str], about: str) -> list[str]:
    """Returns a table without XLA: single matrices, and the largest batch; ours bold."""

    def digits(value: float, count: int) -> str:
        return np.format_float_positional(value, count, unique=False, fractional=False).rstrip(".")

    errors = accuracies(rows, ours)
    batches = [row for row in rows if row["batch"] > 1 and row["jit"] == "off"]
    widest = max((row["n"] for row in batches), default=None)
    batches = {row["implementation"]: row for row in batches if row["n"] == widest}
    rows = single(rows)
    sizes = sorted({row["n"] for row in rows})
    heads = (
        [f"n = {n}" for n in sizes]
        + [f"{BATCH} of {widest}"] * bool(batches)
        + [f"error, n = {sizes[-1]}"]
    )
    lines = ["| implementation | " + " | ".join(heads) + " |", "|---|" + "---|" * len(heads)]
    for name in dict.fromkeys(row["implementation"] for row in rows):
        own = {row["n"]: row for row in rows if row["implementation"] == name}
        timed = [own.get(n) for n in sizes] + [batches.get(name)] * bool(batches)
        cells = [
            ""
            if not row
            else f"{digits(row['ms'], 3)} ({digits(row['multiple'], 2)})"
            if "ms" in row
            else "fails"
            for row in timed
        ]
        error = own.get(sizes[-1], {}).get("orthogonality")
        title = f"**{name}**" if name in ours else name
        lines.append(
            "| " + " | ".join([title, *cells, "" if error is None else f"{error:.0e}"]) + " |"
        )
    note = (
        "Milliseconds, forward and backward; in brackets, multiples of one n x n product. "
        "The error is max \\|Q^T Q - I\\|, "
        "of a product K = map(w) @ f max \\|K^T K - f^T f\\| / max \\|f^T f\\|."
    )
    return [*lines, "", f"{about}. {note}", *errors]


def accuracies(rows: list[dict], ours: set[str]) -> list[str]:
    """Returns a table of our maps' errors, by the largest n that both ways were measured at."""
    rows = [r for r in rows if r["batch"] == 1 and r["implementation"] in ours and "deviation" in r]
    compiled = [row["n"] for row in rows if row["jit"] == "on"]
    if not compiled:
        return []
    found = {(r["implementation"], r["jit"]): r for r in rows if r["n"] == max(compiled)}
    lines = ["", f"The errors at n = {max(compiled)}, without XLA and with it:", ""]
    keys = ("orthogonality", "deviation")
    heads = [f"{word}, {key}" for key in keys for word in ("without", "with XLA")]
    lines += ["| map | " + " | ".join(heads) + " |", "|---|" + "---|" * len(heads)]
    for name in dict.fromkeys(name for name, _ in found):
        both = [found.get((name, jit)) for jit in ("off", "on")]
        cells = [f"{row[key]:.0e}" if row else "" for key in keys for row in both]
        lines.append("| " + " | ".join([name, *cells]) + " |")
    note = "Deviation is max \\|Q - Q64\\| / max \\|Q64\\|, where Q64 is the map in float64."
    return [*lines, "", note]


def main() -> None:
    parser = Parser(
        prog="benchmarks.maps",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--sizes", type=numbers, help=f"n (default: {','.join(map(str, SIZES))})")
    parser.add_argument(
        "--implementations",
        help="those whose names contain one of these: cayley,torch (default: all)",
    )
    parser.add_argument("--columns", type=positive, default=64, help="columns of f (default: 64)")
    parser.add_argument(
        "--rounds", type=positive, default=7, help="the most calls of each (default: 7)"
    )
    parser.add_argument(
        "--seconds",
        type=positive,
        default=60,
        help="start no round after this time at an n (default: 60)",
    )
    parser.add_argument(
        "--jit_up_to",
        type=lambda text: 0 if text == "0" else positive(text),
        default=576,
        help="the largest n with jit rows; 0 for none (default: 576)",
    )
    parser.add_argument(
        "--quick",
        action="store_true",
        help="n = 27, 144, 288 in three rounds, batches up to 144, no jit",
    )
    add_outputs(parser, "maps")
    args = parser.parse_args()
    if args.quick:
        args.rounds, args.jit_up_to = min(args.rounds, 3), 0
    wanted = args.implementations.split(",") if args.implementations else [""]
    implementations = [*tensorflow_implementations(), *torch_implementations()]
    implementations = [i for i in implementations if any(word in i.name for word in wanted)]
    if not implementations:
        parser.error(f"--implementations={args.implementations}: there is none of that name")
    for gpu in tf.config.list_physical_devices("GPU"):
        tf.config.experimental.set_memory_growth(gpu, True)  # PyTorch needs some too
    tf.config.experimental.enable_tensor_float_32_execution(False)
    about, rows = machine(), []
    print(about)
    if (load := os.getloadavg()[0]) > 0.5:
        print(
            f"other programs seem to run (load average {load:.1f}): all figures suffer, those of "
            "PyTorch's OpenMP up to thirtyfold, since its threads keep their cores busy while they "
            "wait for each other; with OMP_WAIT_POLICY=passive they do not"
        )
    print(HEAD, flush=True)
    with args.out.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        for n in sorted(set(args.sizes or (QUICK_SIZES if args.quick else SIZES))):
            for batch in (
                [1, BATCH] if n <= (QUICK_BATCH_UP_TO if args.quick else BATCH_UP_TO) else [1]
            ):
                measured = measure(n, batch, implementations, args)
                writer.writerows(measured)
                file.flush()
                rows += measured
                print("\n".join(map(line, measured)), flush=True)
    image = args.out.with_suffix(".png")
    title = "A map and its gradient, single matrices in float32, without XLA; ours bold, "
    title += "product: map(w) @ f"
    ours = {i.name for i in implementations if i.is_ours}
    draw(image, rows, ours, f"{title}, f of {args.columns} columns\n{about}")
    print(f"written: {args.out.absolute()}\nwritten: {image.absolute()}")
    if args.readme:
        publish(
            args.readme,
            "maps",
            markdown(rows, ours, about),
            image,
            "Time of a map and its gradient against n",
        )


if __name__ == "__main__":
    main()
