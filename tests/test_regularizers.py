"""The penalties and the loss, against their formulas, and in training."""

import functools
import math
import pathlib

import keras
import numpy as np
import pytest
import tensorflow as tf

from common import backbones, losses
from common.regularizers import POWERS, HypersphericalEnergy, OrthogonalityPenalty
from tests.conftest import method_named
from tests.test_upstream_parity import deviation, each_mode

with np.load(pathlib.Path(__file__).parent / "golden" / "mhe.npz") as _file:
    GOLDEN = dict(_file)
SPACES = [f"{space}/{power}" for space in ("mhe", "half_mhe") for power in POWERS]
CASES = [f"{shape}/{space}" for shape in ("conv", "tall", "crowded") for space in SPACES]
every_power = pytest.mark.parametrize("power", POWERS)
both_spaces = pytest.mark.parametrize("half_space", [False, True], ids=["mhe", "half_mhe"])


@functools.cache
def traced(penalty, jit: bool | None):
    """Returns a function to the penalty and its gradient: eager, in a graph, or compiled by XLA."""

    def compute(kernel):
        with tf.GradientTape() as tape:
            tape.watch(kernel)
            value = penalty(kernel)
        return value, tape.gradient(value, kernel)

    return compute if jit is None else tf.function(compute, jit_compile=jit)


def value_and_gradient(penalty, kernel, jit: bool | None = None) -> tuple[np.ndarray, np.ndarray]:
    return tuple(result.numpy() for result in traced(penalty, jit)(tf.convert_to_tensor(kernel)))


def formula(kernel: np.ndarray, power: str, half_space: bool) -> float:
    """Returns the mean energy as the paper defines it, pair by pair."""
    columns = list(kernel.reshape(-1, kernel.shape[-1]).T)
    columns += [-f for f in columns] if half_space else []
    energies = []
    for i, f in enumerate(columns):
        for g in columns[i + 1 :]:
            c = f @ g / math.sqrt(f @ f + 1e-4) / math.sqrt(g @ g + 1e-4)
            base = math.acos(c) / math.pi + 1e-4 if power.startswith("a") else math.sqrt(2 - 2 * c)
            exponent = int(power[-1])
            # the logarithm of distances is that of their squares
            logarithm = -math.log(base) * (1 if power == "a0" else 2)
            energies.append(base**-exponent if exponent else logarithm)
    return float(np.mean(energies))


# Values and gradients


@pytest.mark.parametrize("case", CASES)
def test_golden_values_and_gradients(case):
    shape, space, power = case.split("/")
    penalty = HypersphericalEnergy(1.0, power, half_space=space == "half_mhe")
    value, gradient = value_and_gradient(penalty, GOLDEN[f"{shape}/filter"])
    assert value.dtype == gradient.dtype == np.float64
    assert deviation(value, GOLDEN[f"{case}/value"]) <= 1e-9
    assert deviation(gradient, GOLDEN[f"{case}/gradient"]) <= 1e-7


@both_spaces
@every_power
def test_formula(power, half_space):
    """In float64: neurons far from unit length, equal, opposite, of zeros, and one alone."""
    kernel = np.random.default_rng(0).normal(size=(2, 1, 4, 6)) * [0.01, 0.1, 1, 1, 1, 10]
    kernel[..., 3], kernel[..., 4] = kernel[..., 2], -kernel[..., 2]
    kernel[..., 1] = 0
    single = kernel[..., 2:3]
    for case in (kernel, single) if half_space else (kernel,):
        expected = formula(case, power, half_space)
        value = HypersphericalEnergy(0.5, power, half_space)(tf.constant(case))
        # 2 - 2c of equal neurons is some 1e-5, so that rounding by 1e-16 leaves it 11 digits
        assert float(value) == pytest.approx(0.5 * expected, rel=1e-9)


@every_power
def test_a_single_neuron_in_full_space_has_no_energy(power):
    value, gradient = value_and_gradient(HypersphericalEnergy(1.0, power, False), np.ones((5, 1)))
    assert value == 0
    np.testing.assert_array_equal(gradient, np.zeros((5, 1)))


def odd_kernels() -> dict[str, np.ndarray]:
    kernel = np.random.default_rng(0).normal(size=(3, 3, 4, 6))
    first = kernel[..., :1]

    def beginning(*neurons: np.ndarray) -> np.ndarray:
        return np.concatenate([*neurons, kernel[..., len(neurons) :]], axis=-1)

    return {
        "equal": beginning(first, first),
        "opposite": beginning(first, -first),
        "zero": beginning(first, 0 * first),
        "all_zero": 0 * kernel,
        "huge": 1e6 * beginning(first, first, -first),
        # parallel neurons whose c rounds to 1 and beyond
        "lengths": first * [1e-9, 1e-2, 1, -1e3, 1e9, -1e15],
        "ones": np.ones((1, 1, 576, 64)),
    }


@pytest.mark.parametrize(
    ("dtype", "jit"),
    [("float32", None), ("float16", None), pytest.param("float32", True, marks=pytest.mark.slow)],
)
def test_odd_neurons_have_finite_values_and_gradients(dtype, jit):
    # in float16 the weight keeps the gradients in range
    weight = 1e-9 if dtype == "float16" else 1.0

    def total(kernel):
        spaces = [(power, half) for power in POWERS for half in (False, True)]
        return tf.add_n([HypersphericalEnergy(weight, *space)(kernel) for space in spaces])

    for name, kernel in odd_kernels().items():
        clipped = np.clip(kernel, -6e4, 6e4) if dtype == "float16" else kernel
        value, gradient = value_and_gradient(total, tf.cast(clipped, dtype), jit)
        assert value.dtype == "float32"
        assert np.isfinite(value), name
        assert np.isfinite(gradient.astype("float64")).all(), name


@each_mode
@both_spaces
@every_power
def test_float32_is_near_float64(power, half_space, jit):
    """For neurons as they are drawn: their c is below 1/2, and off by some eps.

    There an energy's derivative by c is at most 20 (a2's: 2 t^-3 / (pi sqrt(1 - c^2)), t > 1/3),
    its second at most 100. Means over pairs, and so their gradients, are off by no more: 100 eps.
    """
    kernel = np.random.default_rng(0).normal(size=(3, 3, 16, 24)) * math.sqrt(2 / 144)
    penalty = HypersphericalEnergy(1.0, power, half_space)
    expected = value_and_gradient(penalty, kernel)
    actual = value_and_gradient(penalty, kernel.astype("float32"), jit)
    for a, b in zip(actual, expected, strict=True):
        assert deviation(a, b) <= 100 * np.finfo("float32").eps


# In Keras


@pytest.mark.parametrize("dtype", ["float32", "mixed_float16"])
def test_under_fit(dtype):
    keras.utils.set_random_seed(0)
    convolution = HypersphericalEnergy(0.3, "a1")
    dense = HypersphericalEnergy(0.2, 2, half_space=False)
    model = keras.Sequential(
        [
            keras.Input((6, 6, 3)),
            keras.layers.Conv2D(4, 3, kernel_regularizer=convolution, dtype=dtype),
            keras.layers.Flatten(),
            keras.layers.Dense(5, kernel_regularizer=dense, dtype=dtype),
        ]
    )
    kernels = [np.asarray(model.layers[i].kernel, "float64") for i in (0, 2)]
    expected = 0.3 * formula(kernels[0], "a1", True) + 0.2 * formula(kernels[1], "2", False)
    assert {loss.dtype for loss in model.losses} == {tf.float32}
    # in float32 each c is off by some eps, and an energy by at most five times that
    rounding = 20 * float(np.finfo("float32").eps)
    assert float(sum(model.losses)) == pytest.approx(expected, rel=rounding)

    # a loss of 0 leaves the penalty alone to be learned
    model.compile("sgd", lambda labels, outputs: 0.0 * keras.ops.sum(outputs), jit_compile=False)
    images, labels = np.ones((8, 6, 6, 3), "float32"), np.zeros(8)
    history = model.fit(images, labels, epochs=5, verbose=0).history["loss"]
    assert np.isfinite(history).all()
    # an epoch is one step, whose figure is that before its update
    assert history[0] == pytest.approx(expected, rel=rounding)
    assert history[-1] < history[0]


def test_bad_arguments_are_refused():
    for power in (3, "a3", None, 2.0, True):
        with pytest.raises(ValueError, match="`power` must be one of 0, 1, 2, a0, a1, a2"):
            HypersphericalEnergy(1.0, power)
    for weight in (-1, math.nan, None, "heavy", [1.0, 2.0], 10**400):
        with pytest.raises(ValueError, match="`weight` must be a finite number"):
            HypersphericalEnergy(weight)
    with pytest.raises(ValueError, match="two axes or more"):  # a bias
        HypersphericalEnergy()(tf.zeros([5]))


# The method


@pytest.mark.parametrize(
    ("name", "model", "power"), [("cnn6", "half_mhe", "2"), ("resnet20", "mhe", "a2")]
)
def test_the_methods_penalties(name, model, power):
    """Every convolution and fc6 has the published weight, the scores theirs, in full space."""
    keras.utils.set_random_seed(0)
    widths = (4, 6, 8, 10) if name == "cnn6" else (4, 6, 8)
    method = method_named("mhe", model=model, power=power)
    network = method.build_model(backbones.known()[name], num_classes=5, widths=widths)
    weight = 1.0 if power == "2" else 0.1
    expected = []
    for layer in network.layers:
        if hasattr(layer, "kernel"):
            score = layer.name == "score"
            kernel, half_space = layer.kernel.numpy(), not score and model == "half_mhe"
            energy = formula(kernel.astype("float64"), power, half_space)
            expected.append(weight * (10 if score else 1) * energy)
    assert len(expected) == (8 if name == "cnn6" else 20)
    assert len(network.losses) == len(expected)
    # the least that 2 - 2c of these few neurons comes to costs a digit or two of float32's seven
    np.testing.assert_allclose(sorted(map(float, network.losses)), sorted(expected), rtol=1e-4)


# Of the other methods


@pytest.mark.parametrize("shape", [(5,), (5, 1)])
def test_smoothed_cross_entropy(shape):
    random = np.random.default_rng(0)
    logits, labels = random.normal(size=(5, 7)), random.integers(0, 7, 5)
    p = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True) + 1e-4
    target = 0.99 * np.eye(7)[labels] + 0.01 / 7
    expected = -(target * np.log(p)).sum(-1)
    actual = losses.smoothed_cross_entropy(labels.reshape(shape), tf.constant(logits))
    assert actual.dtype == tf.float64
    np.testing.assert_allclose(actual, expected, rtol=1e-14)


def test_orthogonality_penalty_has_a_gradient_at_the_identity():
    identity = tf.eye(4)
    with tf.GradientTape() as tape:
        tape.watch(identity)
        value = OrthogonalityPenalty()(identity)
    assert float(value) == 0
    np.testing.assert_array_equal(tape.gradient(value, identity), np.zeros((4, 4)))
