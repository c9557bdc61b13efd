"""Hyperspherical energy by its formula."""

import itertools

import numpy as np
import pytest
import tensorflow as tf

from common import energy
from tests.test_upstream_parity import each_mode


def by_definition(neurons: np.ndarray, s: float, half_space: bool) -> float:
    units = list((neurons / np.linalg.norm(neurons, axis=0)).T)
    units += [-w for w in units] if half_space else []
    distances = [np.linalg.norm(a - b) for a, b in itertools.permutations(units, 2)]
    return sum(np.log(1 / d) if s == 0 else d**-s for d in distances)


def test_known_values():
    """Two opposite neurons are 2 apart; two at right angles sqrt 2."""
    for neurons, s in (([[1.0, -3.0], [0.0, 0.0]], 1), ([[1.0, 0.0], [0.0, 2.0]], 2)):
        assert float(energy.hyperspherical_energy(neurons, s)) == pytest.approx(2 / 2)
    assert np.isinf(energy.hyperspherical_energy([[1.0, 2.0], [0.0, 0.0]]))
    with pytest.raises(ValueError, match="matrix"):
        energy.hyperspherical_energy([1.0, 2.0])
    with pytest.raises(ValueError, match="known shape"):
        tf.function(energy.hyperspherical_energy).get_concrete_function(tf.TensorSpec([4, None]))


@each_mode
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_energy_by_its_definition_and_infinite_where_neurons_coincide(dtype, jit, monkeypatch):
    """To a rounding of the scaled neurons: 3 w and 1e5 w have the direction of w up to that."""
    monkeypatch.setattr(energy, "CHUNK", 4)
    cases = list(itertools.product((0, 1, 2.5), (False, True)))

    def energies(neurons: tf.Tensor) -> list[tf.Tensor]:
        return [energy.hyperspherical_energy(neurons, s, half) for s, half in cases]

    evaluate = tf.function(energies, jit_compile=jit)
    random = np.random.default_rng(0).normal(size=(48, 6)).astype(dtype)
    expected = [by_definition(random.astype("float64"), *case) for case in cases]
    np.testing.assert_allclose(evaluate(random), expected, rtol=1e-12)
    for factor in (1, 3, 1e5, -1, -3):
        twin = np.concatenate([random[:, 1:], random[:, :1] * np.asarray(factor, dtype)], axis=1)
        twin[:, :1] = random[:, :1]
        np.testing.assert_equal(np.isinf(evaluate(twin)), [factor > 0, True] * 3)
    # far above rounding: the distance is 2e-3 to three digits
    near = np.eye(48, 6, dtype=dtype)
    near[:, 5] = near[:, 0] + 2e-3 * near[:, 1]
    assert np.isfinite(evaluate(near)).all()
    assert np.isnan(evaluate(random * (np.arange(6) > 0))).all()
