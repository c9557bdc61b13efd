"""How fast the machine is at the moment: whether something else runs beside a benchmark.

    python -m benchmarks.pace

Prints, as JSON, the rates in 10^9 operations per second of one product of two matrices and of a
plain training step (its convolutions, forward and backward).
"""

import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable

from benchmarks.steps import BATCH, PLAIN, ROOT, prepare
from common.training.startup import import_tensorflow

N = 2048
WIDTHS = [64] * 4


def measure() -> dict[str, float]:
    """Returns the rates of a ``product`` and of a ``step``, in 10^9 operations per second."""
    tf = import_tensorflow()
    import keras

    from baseline.architecture import METHOD

    a = tf.random.normal([N, N])
    product = tf.function(lambda: tf.reduce_sum(tf.matmul(a, a)))
    make, batch = prepare(PLAIN, WIDTHS)
    step = make(False)
    layers = METHOD.build_model(widths=WIDTHS).layers
    convolutions = [layer for layer in layers if isinstance(layer, keras.layers.Conv2D)]
    of_an_image = [
        2 * layer.kernel.shape.num_elements() * layer.output.shape[1] * layer.output.shape[2]
        for layer in convolutions
    ]
    return {
        "product": 2 * N**3 / 1e9 / _seconds(lambda: float(product())),
        "step": 3 * BATCH * sum(of_an_image) / 1e9 / _seconds(lambda: float(step(*batch)["fit"])),
    }


def in_a_process() -> dict[str, float]:
    """Returns what `measure` does, measured in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.pace"]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    return json.loads(result.stdout.splitlines()[-1])


def doubts(before: dict[str, float], after: dict[str, float] | None = None) -> list[str]:
    """Returns what speaks against an idle machine, a line each: of one measurement, or of two."""
    found = []
    if before["step"] < before["product"] / 2:
        rates = f"{before['step']:.0f} of {before['product']:.0f} GFLOP/s"
        found.append(f"not idle? a plain step reaches {rates}, under half of a matrix product's")
    for name in before if after else ():
        if abs(after[name] / before[name] - 1) > 0.1:
            rates = f"{before[name]:.0f} before and {after[name]:.0f} GFLOP/s after"
            found.append(f"not idle? the {name}'s rate changed by over 10 %: {rates}")
    return found


def _seconds(once: Callable[[], float]) -> float:
    once()
    times = []
    for _ in range(10):
        start = time.perf_counter()
        once()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


if __name__ == "__main__":
    print(json.dumps(measure()))
