"""Every method against the numbers that the original program printed, over the same batches.

The files are tests/golden/*.npz, or those of the folder in the environment variable OPT_GOLDEN_DIR.
Widths, steps, rates, indices and initial values come from them alone; layers, loss, optimizer and
step are those that training uses. A deviation is max |a - b| / max(1, max |b|).
"""

import contextlib
import functools
import math
import os
import pathlib
from collections.abc import Iterator, Mapping
from unittest import mock

import keras
import numpy as np
import pytest
import tensorflow as tf

from common import optimizers
from common.backbones import cnn6
from common.layers import (
    BatchNormalization,
    OrthogonalConv2D,
    StochasticOrthogonalConv2D,
    stochastic,
)
from common.marks import ROTATION, mark
from common.training.steps import make_step
from tests.conftest import ROOT, method_named

GOLDEN = pathlib.Path(os.environ.get("OPT_GOLDEN_DIR", ROOT / "tests/golden"))
METHODS = sorted(p.stem for kind in ("opt_*.npz", "sopt_*.npz") for p in GOLDEN.glob(kind))
FOLDERS = [path.parent.name for path in ROOT.glob("*opt_*/architecture.py")]
SCALARS = ("fit", "reg", "acc", "orth")
LOSSES = ("fit", "reg", "orth")
AVERAGES = ("moving_mean", "moving_variance")
each_method = pytest.mark.parametrize("name", METHODS)
# XLA compiles each test for seconds
each_mode = pytest.mark.parametrize(
    "jit", [False, pytest.param(True, marks=pytest.mark.slow)], ids=["graph", "jit"]
)


def load(name: str) -> dict[str, np.ndarray]:
    with np.load(GOLDEN / f"{name}.npz") as data:
        return dict(data)


def deviation_by_entry(actual: np.ndarray, expected: np.ndarray) -> np.ndarray:
    actual, expected = np.asarray(actual, "float64"), np.asarray(expected, "float64")
    assert actual.shape == expected.shape
    return np.abs(actual - expected) / max(1.0, np.abs(expected).max())


def deviation(actual: np.ndarray, expected: np.ndarray) -> float:
    return deviation_by_entry(actual, expected).max()


def folder_of(name: str) -> str:
    """Returns the method that a file is of; one of another seed may be called opt_gs_1.npz."""
    return next(folder for folder in FOLDERS if name == folder or name.startswith(f"{folder}_"))


@contextlib.contextmanager
def floatx(dtype: str) -> Iterator[None]:
    before = keras.config.floatx(), keras.config.dtype_policy()
    keras.config.set_floatx(dtype)
    keras.config.set_dtype_policy(dtype)
    try:
        yield
    finally:
        keras.config.set_floatx(before[0])
        keras.config.set_dtype_policy(before[1])


class Replay:
    """A method's model and step, started from a file's initial values and fed with its batches."""

    def __init__(
        self, name: str, data: Mapping[str, np.ndarray], jit: bool = False, rounded: bool = False
    ):
        widths = [
            data[f"init/{layer}/fix"].shape[1] for layer in ("conv1_0", "conv2_0", "conv3_0", "fc6")
        ]
        classes = data["init/score/filter"].shape[-1]
        options = {"rotation_lr": float(data["rotation_lr"])} if "rotation_lr" in data else {}
        if "episode_starts" in data:
            small, full = (data[f"init/fc6/{key}"].shape[0] for key in ("rotation", "fix"))
            usual = 16 * max(1, round(0.25 * full / 16))  # of fc6's 4x4 kernel
            options["rotated_fraction"] = 0.25 if small == usual else small / full
        self.method = method_named(folder_of(name), **options)
        self.model = self.method.build_model(cnn6, num_classes=classes, widths=widths)
        optimizer = self.method.make_optimizer(float(data["lr"]), lambda rate, factor=0.1: rate)
        for layer in self.normalizations():
            layer.debias = False
        if rounded:
            # where the original's TensorFlow rounds 0.9 and 0.999 to float32
            optimizer.momentum = float(np.float32(optimizer.momentum))
            for layer in self.normalizations():
                layer.momentum = float(np.float32(layer.momentum))
        self.optimizer = optimizer
        assert {f"init/{key}" for _, key in self.variables()} == {
            key for key in data if key.startswith("init/")
        }
        self.step = tf.function(make_step(self.method, self.model, optimizer), jit_compile=jit)
        self.untouched = [(v, v.numpy()) for v in (*self.model.weights, *optimizer.variables)]
        self.restart(data)

    def restart(self, data: Mapping[str, np.ndarray]) -> None:
        """Returns to where a run begins, with the initial values of ``data``."""
        self.data = data
        for variable, value in self.untouched:
            variable.assign(value)
        for variable, key in self.variables():
            variable.assign(data[f"init/{key}"].reshape(variable.shape))

    def normalizations(self) -> list[BatchNormalization]:
        return [layer for layer in self.model.layers if isinstance(layer, BatchNormalization)]

    def variables(self) -> list[tuple[keras.Variable, str]]:
        """Returns the model's variables with the files' names for them."""
        pairs = []
        for layer in self.model.layers:
            for variable in layer.weights:
                if variable.name not in ("indices", "start_weight"):
                    key = "filter" if variable.name == "kernel" else variable.name
                    pairs.append((variable, f"{layer.name.removesuffix('_bn')}/{key}"))
        return pairs

    def deviations(self, prefix: str) -> dict[str, float]:
        return {
            f"{prefix}/{key}": deviation(v.numpy(), self.data[f"{prefix}/{key}"])
            for v, key in self.variables()
        }

    def start_episode(self, episode: int) -> dict[str, float]:
        """Starts an episode with the file's rows; returns the deviations of the first merge."""
        layers = [v for v in self.model.layers if isinstance(v, StochasticOrthogonalConv2D)]
        rows = [self.data[f"indices/{episode}/{number}"] for number in range(len(layers))]
        result = {}
        if episode == 0:  # `init` is used as it is
            for layer, indices in zip(layers, rows, strict=True):
                layer.indices.assign(indices)
            return result
        if episode == 1:  # a look at what lies between merge and resets
            before = [layer.fix.numpy() for layer in layers]
            for layer in layers:
                layer.merge()
            result = self.deviations("after_merge")
            for layer, fix in zip(layers, before, strict=True):
                layer.fix.assign(fix)
        with mock.patch.object(stochastic, "draw_rows", lambda seed, i, number, *_: rows[number]):
            self.method.start_episode(self.model, seed=0, episode=episode)
        return result

    def train(self) -> tuple[dict[str, list[float]], dict[str, float]]:
        """Returns the figures of every step, and the deviations of the first merge."""
        figures = {key: [] for key in SCALARS}
        starts = list(self.data.get("episode_starts", []))
        result = {}
        for i, (images, labels) in enumerate(
            zip(self.data["images"], self.data["labels"], strict=True)
        ):
            if i in starts:
                result |= self.start_episode(starts.index(i))
            step = self.step(images, labels)
            assert step["fit"].dtype == keras.config.floatx()
            for key in SCALARS:
                figures[key].append(float(step["penalty" if key == "orth" else key]))
        return figures, result

    def run(self) -> dict[str, float]:
        """Returns the deviation of everything that the file holds."""
        self.figures, result = self.train()
        result |= {key: deviation(values, self.data[key]) for key, values in self.figures.items()}
        result |= self.deviations("final")
        logits = self.model(self.data["test_images"], training=False).numpy()
        expected = self.data["test_logits"]
        result["test_logits"] = np.abs(logits - expected).max() / np.abs(expected).max()
        left = {
            key
            for key in self.data
            if key.startswith(("final/", "after_merge/")) or key in (*SCALARS, "test_logits")
        }
        assert left == set(result), "something in the file was not compared"
        return result


def worst(result: dict[str, float]) -> dict[str, float]:
    """Returns the largest deviation of each kind."""
    kinds = {"losses": 0.0, "variables": 0.0, "averages": 0.0, "logits": 0.0}
    for key, value in result.items():
        kind = "losses" if key in SCALARS else "logits" if key == "test_logits" else "variables"
        kind = "averages" if key.endswith(AVERAGES) else kind
        kinds[kind] = max(kinds[kind], value)
    return kinds


def test_the_files_are_all_there():
    assert len({folder_of(name) for name in METHODS}) == 7
    assert {"orthogonal_maps", "optimizers"} <= {path.stem for path in GOLDEN.glob("*.npz")}


@each_mode
@pytest.mark.parametrize(
    "rounded", [pytest.param(False, marks=pytest.mark.slow), True], ids=["exact", "rounded"]
)
@each_method
def test_parity_in_float64(name, rounded, jit):
    """With the original's rounding to 1e-9."""
    with floatx("float64"):
        replay = Replay(name, load(name), jit, rounded)
        result = worst(replay.run())
        print(name, result)
        bounds = {"losses": 1e-6, "variables": 1e-6, "averages": 1e-5, "logits": 1e-4}
        for kind, value in result.items():
            assert value <= (1e-9 if rounded else bounds[kind]), kind


# In float32

# Where two values are equal to rounding, ReLU and pooling decide by it whose gradient counts, and
# later losses differ. Float64 replays from moved starts show how much such ties change a file's
# losses. How far a start is moved:
# - Storing rounds an entry by up to 2^-24 of it. Sums of n products round n partial sums, by
#   amounts of random sign, together about sqrt(n) as much (Higham and Mary, SIAM Journal on
#   Scientific Computing 41, 2019). n is the length of the file's longest neuron.
# - Each layer rounds for itself, so every initial value is moved. Zeros are exact, and stay.
# The run may meet two ties at once that the draws met one at a time; hence the factor 2. A tie
# changes only later steps, so each step has its bound, and those before the ties stay at 1e-4.
DRAWS, TIES_AT_ONCE = 32, 2


def moved(data: dict[str, np.ndarray], seed: int) -> dict[str, np.ndarray]:
    """Returns ``data`` with initial values that are off by what float32's rounding amounts to."""
    rng = np.random.default_rng(seed)
    longest = max(value.shape[0] for key, value in data.items() if key.endswith("/fix"))
    size = math.sqrt(longest) * 2.0**-24
    starts = {key: value for key, value in data.items() if key.startswith("init/")}
    return data | {k: v * (1 + size * rng.uniform(-1, 1, v.shape)) for k, v in starts.items()}


@functools.cache
def bounds_of(name: str) -> dict[str, np.ndarray]:
    """Returns by how much float32 may change each loss, ``[steps]``."""
    with floatx("float64"):
        data = load(name)
        replay = Replay(name, data, rounded=True)
        exact, _ = replay.train()
        largest = dict.fromkeys(LOSSES, 1e-4)
        for seed in range(DRAWS):
            replay.restart(moved(data, seed))
            figures, _ = replay.train()
            for key in LOSSES:
                off = deviation_by_entry(figures[key], exact[key])
                largest[key] = np.maximum(largest[key], TIES_AT_ONCE * off)
    return largest


def beyond(name: str, figures: Mapping[str, list[float]], expected: Mapping) -> list[str]:
    """Returns which losses are off from ``expected`` by more than is allowed."""
    bounds = bounds_of(name)
    off = {key: deviation_by_entry(figures[key], expected[key]) for key in LOSSES}
    return [key for key, values in off.items() if not np.all(values <= bounds[key])]


@pytest.mark.slow
@each_mode
@each_method
def test_parity_in_float32(name, jit):
    """The losses in the precision that training has, to 1e-4 or what ties can do, if more."""
    data = load(name)
    replay = Replay(name, data, jit)
    result = replay.run()
    print(name, worst(result))
    if not all(result[key] <= 1e-4 for key in LOSSES):  # only then are the draws needed
        assert not beyond(name, replay.figures, data)


# not opt_ogd: R starts at I, and R^T takes the same updates to first order
@pytest.mark.slow
@pytest.mark.parametrize("name", [n for n in METHODS if folder_of(n) != "opt_ogd"])
def test_a_transposed_map_is_beyond_what_ties_can_do(name):
    data = load(name)
    replay = Replay(name, data)
    for layer in replay.model.layers:
        if isinstance(layer, OrthogonalConv2D):
            right = layer.orthogonalize
            layer.orthogonalize = lambda w, right=right: tf.linalg.matrix_transpose(right(w))
    figures, _ = replay.train()
    assert "fit" in beyond(name, figures, data)


# The optimizers alone


@pytest.mark.parametrize("rule", ["ogd", "momentum"])
def test_optimizers(rule):
    """Every update of the file, through drops of the rate and OGD's cap of the step, to 1e-9."""
    data = load("optimizers")
    gradients, rates = data[f"{rule}/gradient"], data[f"{rule}/rate"]
    with floatx("float64"):
        if rule == "ogd":
            optimizer = optimizers.OGD()
            variable = mark(keras.Variable(np.eye(gradients.shape[-1]), dtype="float64"), ROTATION)
            expected = data["ogd/rotation"]
        else:
            optimizer = optimizers.Momentum(momentum=float(np.float32(0.9)))
            variable = keras.Variable(np.zeros(gradients.shape[-1]), dtype="float64")
            expected = data["momentum/variable"]
        name = "rotation_learning_rate" if rule == "ogd" else "learning_rate"
        for gradient, rate, value in zip(gradients, rates, expected, strict=True):
            setattr(optimizer, name, float(rate))
            optimizer.apply([tf.constant(gradient, tf.float64)], [variable])
            assert deviation(variable.numpy(), value) <= 1e-9
    assert len(np.unique(rates)) > 1
