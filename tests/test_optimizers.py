"""Schedules, and OGD by its formulae."""

import contextlib

import keras
import numpy as np
import pytest
import tensorflow as tf

from common import optimizers
from common.layers import OrthogonalDense
from common.marks import ROTATION, mark
from common.orthogonal import identity


@pytest.mark.parametrize("iterations", [1, 7])
def test_the_drops_keep_their_fractions(iterations):
    schedule = optimizers.step_decay(1.0, iterations, factor=0.5)
    for i in range(iterations):
        passed = sum(i >= round(f * iterations) for f in (0.4, 2 / 3, 13 / 15))
        assert float(schedule(i)) == 0.5**passed


def test_the_warm_up_is_linear():
    """From rate / W at iteration 0 to the full rate at W - 1; drops within it count as well."""
    plain = optimizers.step_decay(0.1, 1000, drops=(0.05, 0.5))
    warm = optimizers.step_decay(0.1, 1000, drops=(0.05, 0.5), warmup=400)
    for i in range(0, 1000, 49):
        assert float(warm(i)) == pytest.approx(float(plain(i)) * min(1, (i + 1) / 400), rel=1e-6)
    assert float(warm(0)) == pytest.approx(0.1 / 400, rel=1e-6)
    assert float(warm(399)) == float(plain(399))


def test_the_warm_up_reaches_rotations_and_survives_a_file():
    """OGD's rotations take a tenth of their step where the rate is a tenth."""
    moved = []
    for warmup in (0, 10):
        schedules = [optimizers.step_decay(rate, 100, warmup=warmup) for rate in (0.1, 1e-3)]
        optimizer = optimizers.OGD(*schedules, reorthogonalize_every=7)
        rotation = mark(keras.Variable(np.eye(4), dtype="float64"), ROTATION)
        gradient = np.random.default_rng(0).normal(size=(4, 4))
        optimizer.apply([tf.constant(gradient)], [rotation])
        moved.append(rotation.numpy() - np.eye(4))
        copy = keras.optimizers.deserialize(keras.optimizers.serialize(optimizer))
        assert copy.get_config() == optimizer.get_config()
        assert float(copy.rotation_learning_rate(3)) == float(schedules[1](3))
        assert optimizers.rate_at(copy, 3) == optimizers.rate_at(optimizer, 3)
    # of first order in the rate: a W is 1e-3 |g| here
    np.testing.assert_allclose(10 * moved[1], moved[0], atol=1e-5)
    assert np.abs(moved[0]).max() > 1e-4
    with pytest.raises(ValueError, match="warmup"):
        optimizers.LinearWarmup(schedules[0], 0)


def test_a_name_makes_no_rotation():
    """A weight called "rotation" is updated as any other; a marked one by OGD's rule."""
    gradient = tf.constant(np.random.default_rng(0).normal(size=(4, 4)))
    named = keras.Variable(np.eye(4), name="rotation", dtype="float64")
    marked = mark(keras.Variable(np.eye(4), name="kernel", dtype="float64"), ROTATION)
    optimizers.OGD(0.1).apply([gradient, gradient], [named, marked])
    np.testing.assert_allclose(named, np.eye(4) - np.float32(0.1) * gradient.numpy(), rtol=1e-12)
    x = marked.numpy()
    # the update is orthogonal to third order in the rate
    assert np.abs(x @ x.T - np.eye(4)).max() < 0.02**3 * np.linalg.norm(gradient) ** 3
    with pytest.raises(ValueError, match="marked as"):
        mark(named, "kernel")


def test_kerass_weight_decay_leaves_rotations_alone():
    """With gradients of zero it shrinks the other weights, and no rotation."""
    rotation = mark(keras.Variable(np.eye(4)), ROTATION)
    kernel, bias = keras.Variable(np.eye(4)), keras.Variable(np.eye(4), name="bias")
    optimizer = optimizers.OGD(0.1, weight_decay=0.5)
    optimizer.exclude_from_weight_decay(var_names=["bias"])
    for _ in range(3):
        optimizer.apply([tf.zeros([4, 4])] * 3, [rotation, kernel, bias])
    for kept in (rotation, bias):
        np.testing.assert_array_equal(kept, np.eye(4, dtype="float32"))
    np.testing.assert_allclose(kernel, (1 - 0.1 * 0.5) ** 3 * np.eye(4), rtol=1e-6)


def test_kerass_averages_leave_rotations_alone():
    """With `use_ema` the kernel ends at its average, and the rotation at its last value."""
    random = np.random.default_rng(0)
    gradients = [tf.constant(random.normal(size=(4, 4))) for _ in range(6)]
    ends = []
    for averages in ({}, {"use_ema": True, "ema_overwrite_frequency": 2}):
        rotation = mark(keras.Variable(np.eye(4), dtype="float64"), ROTATION)
        kernel = keras.Variable(np.eye(4), dtype="float64")
        optimizer = optimizers.OGD(0.1, rotation_learning_rate=0.2, **averages)
        for gradient in gradients:
            optimizer.apply([gradient, gradient], [rotation, kernel])
        optimizer.finalize_variable_values([rotation, kernel])
        ends.append((rotation.numpy(), kernel.numpy()))
    np.testing.assert_array_equal(ends[0][0], ends[1][0])
    assert np.abs(ends[0][1] - ends[1][1]).max() > 0.1


# Orthogonality-preserving gradient descent


def updates(count: int, n: int, **kwargs) -> np.ndarray:
    """Returns X after that many updates by OGD from I, along random gradients."""
    optimizer = optimizers.OGD(**kwargs)
    rotation = mark(keras.Variable(np.eye(n)), ROTATION)
    optimizer.build([rotation])
    random = tf.random.Generator.from_seed(0)
    update = tf.function(lambda: optimizer.apply([random.normal([n, n])], [rotation]))
    for _ in range(count):
        update()
    return rotation.numpy()


def drift(rotation: np.ndarray) -> float:
    exact = rotation.astype("float64")
    return np.abs(exact @ exact.T - np.eye(len(exact))).max()


@pytest.mark.slow
def test_ogd_drifts_as_its_truncation_says_and_can_be_corrected():
    """1,000 updates in float32 at n = 144 with noise for gradients.

    The update multiplies X with 1 + Z + Z^2/2 + Z^3/4, Z = a W. For a singular value s of Z that is
    of squared length 1 - s^4/4 + s^6/16: X shrinks by truncation, however exact the arithmetic.
    Noise brings every step to the cap |Z|_F = 1, where the s follow the semicircle law: s^4 is
    2/n^2 on average and 16/n^2 at most. Corrected every ten updates, what is left is the square of
    ten such errors and rounding, eps sqrt(n) a product.
    """
    steps, n, eps = 1000, 144, np.finfo("float32").eps
    free = drift(updates(steps, n))
    corrected = drift(updates(steps, n, reorthogonalize_every=10))
    print(f"drift after {steps} updates: {free:.1e}, corrected every ten: {corrected:.1e}")
    average, largest = (steps * s4 / n**2 / 4 for s4 in (2, 16))
    assert average / 2 < free < largest
    assert corrected < (10 * 16 / n**2 / 4) ** 2 + 3 * np.sqrt(n) * eps


def test_reorthogonalization_falls_on_every_third_update():
    drifts = []
    for period in (0, 3):
        options = {"rotation_learning_rate": 1e-3, "reorthogonalize_every": period}
        optimizer, random = optimizers.OGD(**options), np.random.default_rng(0)
        rotation = mark(keras.Variable(np.eye(6), dtype="float64"), ROTATION)
        drifts.append([])
        for _ in range(6):
            optimizer.apply([tf.constant(random.normal(size=(6, 6)))], [rotation])
            drifts[-1].append(drift(rotation.numpy()))
    for k, (plain, corrected) in enumerate(zip(*drifts, strict=True), start=1):
        if k < 3:
            assert plain == corrected
        if k % 3 == 0:
            assert corrected < 1e-2 * plain


@pytest.mark.parametrize(
    "case",
    ["graph", "loaded", *(pytest.param(c, marks=pytest.mark.slow) for c in ("XLA", "replicas"))],
)
def test_ogd_refuses_a_start_that_is_not_orthogonal(case):
    """At the first update, so that weights may be loaded after the optimizer is built."""
    random = np.random.default_rng(0)
    replicas = tf.distribute.MirroredStrategy(["CPU:0"]).scope()
    with replicas if case == "replicas" else contextlib.nullcontext():
        start = "identity" if case == "loaded" else keras.initializers.RandomNormal(stddev=1)
        first = OrthogonalDense(5, orthogonalize=identity, rotation_initializer=start, name="first")
        model = keras.Sequential([keras.Input((9,)), first])
        model.compile(optimizers.OGD(), "mse", jit_compile=case == "XLA")
    if case == "loaded":
        model.optimizer.build(model.trainable_variables)
        # its entries are far from I by less than 0.3, but some singular values are near 0 or 2
        first.rotation.assign(random.normal(size=(9, 9)) / 3)
    fit = {"x": random.normal(size=(8, 9)), "y": random.normal(size=(8, 5)), "verbose": 0}
    before = first.rotation.numpy()
    with pytest.raises(ValueError, match=r'first/rotation .*rotation_initializer="identity"'):
        model.fit(**fit)
    np.testing.assert_array_equal(first.rotation, before)


def test_ogd_starts_where_its_average_cannot_grow():
    """In the basis of X's singular vectors an update multiplies the average by the momentum and
    1 - (1 - p_i) (1 - p_j), with p the squared singular values. OGD's updates only shrink them.
    """
    random, momentum = np.random.default_rng(0), 0.9
    left, right = (np.linalg.qr(random.normal(size=(8, 8)))[0] for _ in range(2))
    largest = 1 / momentum

    def start(low: float, high: float) -> tuple[optimizers.OGD, keras.Variable]:
        x = left * np.sqrt(np.linspace(low, high, 8)) @ right
        # the second block is always orthogonal
        rotation = mark(keras.Variable(np.stack([x, left]), dtype="float32"), ROTATION)
        return optimizers.OGD(rotation_momentum=momentum), rotation

    for low, high in ((0.24, 1), (1, largest + 1e-3), (np.nan, np.nan), (0, 0)):
        optimizer, rotation = start(low, high)
        with pytest.raises(ValueError, match="not orthogonal"):
            optimizer.apply([tf.zeros([2, 8, 8])], [rotation])
    optimizer, rotation = start(0.26, largest - 1e-3)
    gradient = tf.constant(random.normal(size=(2, 8, 8)), tf.float32)
    optimizer.build([rotation])
    update = tf.function(lambda: optimizer.apply([gradient], [rotation]))
    for _ in range(500):
        update()
    # 1 / (1 - momentum) gradients, of norms near 8, and as they are projected, at most twice that
    assert tf.norm(optimizer.momentums[0]) < 2 * np.linalg.norm(gradient) / (1 - momentum)
    assert np.isfinite(rotation.numpy()).all()


def test_ogd_goes_on_with_what_it_has_moved():
    """A rotation that its updates have shrunk far, loaded with the optimizer's state."""
    rotation = mark(keras.Variable(np.eye(3) * 0.1), ROTATION)
    optimizer = optimizers.OGD()
    optimizer.build([rotation])
    optimizer.iterations.assign(75_000)
    optimizer.apply([tf.ones([3, 3])], [rotation])
    assert np.isfinite(rotation.numpy()).all()


def test_bad_arguments_are_refused():
    for bad in ({"momentum": 1.0}, {"rotation_momentum": 1.0}, {"reorthogonalize_every": -1}):
        with pytest.raises(ValueError, match="must"):
            optimizers.OGD(**bad)
