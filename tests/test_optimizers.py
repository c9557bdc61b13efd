import keras
import numpy as np
import pytest

from common import optimizers


def test_the_rate_drops_where_the_original_drops_it():
    """0.1, times 0.1 from iterations 30,000, 50,000 and 65,000 of 75,000 on."""
    optimizer = optimizers.Momentum(optimizers.step_decay(0.1, 75_000))
    rates = {0: 0.1, 29_999: 0.1, 30_000: 0.01, 49_999: 0.01, 50_000: 0.001, 64_999: 0.001, 65_000: 1e-4, 74_999: 1e-4}
    assert {i: optimizers.rate_at(optimizer, i) for i in rates} == pytest.approx(rates)


@pytest.mark.parametrize("iterations", [1, 2, 7, 100])
def test_the_drops_keep_their_fractions(iterations):
    schedule = optimizers.step_decay(1.0, iterations, factor=0.5)
    for i in range(iterations):
        passed = sum(i >= round(f * iterations) for f in (0.4, 2 / 3, 13 / 15))
        assert float(schedule(i)) == 0.5**passed


def test_momentum_keeps_the_rate_outside_the_average():
    """Against v -= rate * m, m = 0.9 m + g, through a drop of the rate; Keras's SGD gives something else."""
    gradients = np.random.default_rng(0).normal(size=(6, 3)).astype("float32")
    schedule = keras.optimizers.schedules.PiecewiseConstantDecay([2], [0.1, 0.01])
    results = {}
    for optimizer in (optimizers.Momentum(schedule), keras.optimizers.SGD(schedule, momentum=0.9)):
        variable = keras.Variable(np.ones(3, "float32"))
        for gradient in gradients:
            optimizer.apply([keras.ops.convert_to_tensor(gradient)], [variable])
        results[type(optimizer)] = variable.numpy()
    v, m = np.ones(3), 0.0
    for i, gradient in enumerate(gradients):
        m = 0.9 * m + gradient
        v = v - (0.1 if i <= 2 else 0.01) * m
    np.testing.assert_allclose(results[optimizers.Momentum], v, rtol=1e-6)
    assert np.abs(results[keras.optimizers.SGD] - v).max() > 1e-2


def test_momentum_config_round_trip():
    optimizer = optimizers.Momentum(optimizers.step_decay(0.2, 100), momentum=0.8)
    copy = keras.optimizers.deserialize(keras.optimizers.serialize(optimizer))
    assert copy.get_config() == optimizer.get_config()
    with pytest.raises(ValueError, match="momentum"):
        optimizers.Momentum(momentum=1.0)
