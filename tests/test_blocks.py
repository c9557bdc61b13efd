"""Rotations in blocks: what they compute and keep, against blocks one by one and PEFT's."""

import pathlib

import keras
import numpy as np
import pytest
import tensorflow as tf
from tensorflow.linalg import LinearOperatorBlockDiag, LinearOperatorFullMatrix

from common import orthogonal
from common.energy import hyperspherical_energy, layer_drifts
from common.layers import OrthogonalDense, OrthogonalEinsumDense
from common.marks import ROTATION, mark
from common.optimizers import OGD
from common.regularizers import OrthogonalityPenalty

MAPS = [orthogonal.gram_schmidt, orthogonal.householder, orthogonal.lowdin, orthogonal.cayley]
each_map = pytest.mark.parametrize("orthogonalize", MAPS, ids=lambda m: m.__name__)
# n, block_size, the size of each block
SPLITS = [(24, 8, [8] * 3), (27, 8, [8] * 3 + [3]), (27, 13, [13, 13, 1]), (9, 5, [5, 4])]
UNITS = 6
DRAWN = keras.initializers.RandomNormal(stddev=1.0)


def built(n: int, block_size: int | None, **kwargs) -> OrthogonalDense:
    """Returns a layer in float64 that keras.utils.set_random_seed makes the same each time."""
    keras.utils.set_random_seed(0)
    kwargs = {"dtype": "float64", "rotation_initializer": DRAWN} | kwargs
    layer = OrthogonalDense(UNITS, block_size=block_size, use_bias=False, **kwargs)
    layer.build((None, n))
    return layer


def matrices(layer: OrthogonalDense) -> list[np.ndarray]:
    """Returns the rotations, one matrix for each block."""
    return [m for v in layer.rotations for m in v.numpy().reshape(-1, *v.shape[-2:])]


@each_map
@pytest.mark.parametrize(("n", "block_size", "sizes"), SPLITS)
def test_the_kernel_is_that_of_a_block_diagonal_rotation(orthogonalize, n, block_size, sizes):
    """It keeps lengths, angles and the energy, and also those of the parts within a block."""
    layer = built(n, block_size, orthogonalize=orthogonalize)
    assert [len(m) for m in matrices(layer)] == sizes
    assert layer.rotation.shape == (n // block_size, block_size, block_size)
    blocks = [LinearOperatorFullMatrix(orthogonalize(tf.constant(m))) for m in matrices(layer)]
    q = LinearOperatorBlockDiag(blocks).to_dense().numpy()
    bound = 10 * n * np.finfo("float64").eps
    fix, kernel = layer.fix.numpy(), layer.kernel.numpy()
    np.testing.assert_allclose(kernel, q @ fix, atol=bound)
    np.testing.assert_allclose(q @ q.T, np.eye(n), atol=bound)
    gram = fix.T @ fix
    np.testing.assert_allclose(kernel.T @ kernel, gram, atol=bound * np.abs(gram).max())
    energies = [float(hyperspherical_energy(neurons)) for neurons in (fix, kernel)]
    assert energies[1] == pytest.approx(energies[0], rel=1e-11)
    for rows in np.split(np.arange(n), np.cumsum(sizes)[:-1]):
        grams = [neurons[rows].T @ neurons[rows] for neurons in (fix, kernel)]
        np.testing.assert_allclose(*grams, atol=bound * np.abs(grams[0]).max())
    one = built(n, None, orthogonalize=orthogonalize)
    first = slice(sizes[0])
    parts = [neurons[first].T @ neurons[first] for neurons in (one.fix.numpy(), one.kernel.numpy())]
    assert np.abs(parts[1] - parts[0]).max() > 0.1  # which a rotation of all rows does not keep


@each_map
@pytest.mark.parametrize("jit", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_gradients_are_those_of_each_block_by_itself(orthogonalize, jit):
    n, block_size, sizes = SPLITS[1]
    layer = built(n, block_size, orthogonalize=orthogonalize)
    cotangent = np.random.default_rng(0).normal(size=(n, UNITS))

    @tf.function(jit_compile=jit)
    def gradients() -> list[tf.Tensor]:
        with tf.GradientTape() as tape:
            total = tf.reduce_sum(layer.neurons() * cotangent)
        return tape.gradient(total, [v.value for v in layer.rotations])

    found = [g for v in gradients() for g in v.numpy().reshape(-1, *v.shape[-2:])]
    parts = [np.split(x, np.cumsum(sizes)[:-1]) for x in (layer.fix.numpy(), cotangent)]
    for block, fix, part, gradient in zip(matrices(layer), *parts, found, strict=True):
        w = tf.constant(block)
        with tf.GradientTape() as tape:
            tape.watch(w)
            total = tf.reduce_sum(orthogonalize(w) @ fix * part)
        expected = tape.gradient(total, w)
        # a map's gradient loses as many digits as the matrix is ill-conditioned
        lost = np.linalg.cond(block) * 100 * n * np.finfo("float64").eps
        np.testing.assert_allclose(gradient, expected, atol=lost * np.abs(expected).max())


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_peft_merges_the_same_weight(dtype):
    """In Dense and in attention's EinsumDense; see golden/peft_oft.py."""
    golden = np.load(pathlib.Path(__file__).parent / "golden" / "peft_oft.npz")
    blocks, (units, n) = len(golden["skew"]), golden["weight"].shape
    b = n // blocks
    rotation = np.zeros((blocks, b, b))
    rotation[:, *np.triu_indices(b, 1)] = -golden["skew"]  # theirs has the other sign
    assert np.abs(golden["merged"] - golden["weight"]).max() > 0.1
    common = {"orthogonalize": orthogonal.cayley, "block_size": b, "dtype": dtype}
    before, after = (None, units, 1), (None, units)
    for equation, output, inputs, kernel in (
        (None, None, (n,), (n, units)),
        ("abc,cde->abde", before, (3, n), (n, units, 1)),
        ("abcd,cde->abe", after, (3, 2, n // 2), (2, n // 2, units)),
        ("abc,dec->abde", before, (3, n), (units, 1, n)),
    ):
        if equation:
            layer = OrthogonalEinsumDense(equation, output, **common)
        else:
            layer = OrthogonalDense(units, **common)
        layer.build((None, *inputs))
        layer.rotation.assign(rotation)
        layer.fix.assign(golden["weight"].T)
        merged = golden["merged"] if kernel[-1] == n else golden["merged"].T
        limit = 10 * n * np.finfo(dtype).eps * np.abs(merged).max()
        np.testing.assert_allclose(layer.kernel, merged.reshape(kernel), rtol=0, atol=limit)


# What is drawn, and what is refused


@pytest.mark.parametrize("block_size", [9, 10, 4096])
def test_a_block_of_all_rows_is_no_block(block_size):
    with_blocks, without = built(9, block_size), built(9, None)
    assert {v.name: tuple(v.shape) for v in with_blocks.weights} == {
        "fix": (9, UNITS),
        "rotation": (9, 9),
    }
    for ours, expected in zip(with_blocks.weights, without.weights, strict=True):
        np.testing.assert_array_equal(ours, expected)


@pytest.mark.parametrize(
    "initializer",
    [DRAWN, "orthogonal", keras.initializers.RandomNormal(seed=3)],
    ids=["drawn", "orthogonal", "an object"],
)
def test_each_block_draws_other_numbers(initializer):
    layer = built(27, 8, rotation_initializer=initializer)
    corners = [m[:3, :3] for m in matrices(layer)]
    for i, corner in enumerate(corners):
        assert all(np.abs(corner - other).max() > 1e-3 for other in corners[:i])
    again = built(27, 8, rotation_initializer=initializer)
    for ours, other in zip(matrices(layer), matrices(again), strict=True):
        np.testing.assert_array_equal(ours, other)


@pytest.mark.parametrize("bad", [0, 1, -8, 8.0, "8", True])
def test_bad_sizes_are_refused_by_name(bad):
    with pytest.raises(ValueError, match="`block_size` must be None or an integer over 1"):
        OrthogonalDense(3, block_size=bad)


def test_a_map_of_ones_own_must_take_batches():
    def single(w: tf.Tensor) -> tf.Tensor:
        return orthogonal.gram_schmidt(tf.reshape(w, [-1, w.shape[-1]])[: w.shape[-1]])

    OrthogonalDense(3, orthogonalize=single).build((None, 24))
    with pytest.raises(ValueError, match=r"takes \(2, 8, 8\) to \(8, 8\)"):
        OrthogonalDense(3, orthogonalize=single, block_size=8).build((None, 24))


def test_a_large_rotation_is_warned_of(caplog):
    def build(n: int, **kwargs) -> list[str]:
        caplog.clear()
        # zeros are quick to draw, and no map is computed
        layer = OrthogonalDense(1, rotation_initializer="zeros", name="fc1", **kwargs)
        layer.build((None, n))
        return [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]

    (message,) = build(4096)
    for words in ("fc1: the rotation of 4,096 rows takes 67 MB", "block_size=256", "take 4 MB"):
        assert words in message
    assert build(4095) == build(4096, block_size=2048) == []


def test_drift_is_that_of_the_worst_block():
    layer = built(27, 8, orthogonalize=orthogonal.identity, rotation_initializer="identity")
    name = f"drift/{layer.name}"
    assert layer_drifts({layer.name: layer}) == {name: 0}
    for variable, drift in ((layer.rotation, 3.0), (layer.rotation_rest, 8.0)):
        value = np.array(variable)
        value.flat[-1] = np.sqrt(1 + drift)  # in the last block alone
        variable.assign(value)
        assert layer_drifts({layer.name: layer})[name] == pytest.approx(drift)


# Without a map


def test_ogd_moves_each_block_by_itself():
    """A batch of rotations moves as its matrices do one by one, corrections included."""
    random = np.random.default_rng(0)
    start = np.stack([np.linalg.qr(random.normal(size=(5, 5)))[0] for _ in range(3)])
    batch = mark(keras.Variable(start, dtype="float64"), ROTATION)
    alone = [mark(keras.Variable(x, dtype="float64"), ROTATION) for x in start]
    optimizers = [OGD(reorthogonalize_every=3) for _ in range(2)]
    for scale in (0.01, 1, 100, 1):  # below the cap of the rate, and above it
        g = scale * random.normal(size=start.shape) * np.reshape([1, 2, 3], (3, 1, 1))
        optimizers[0].apply([tf.constant(g)], [batch])
        optimizers[1].apply([tf.constant(x) for x in g], alone)
    np.testing.assert_allclose(batch, np.stack(alone), rtol=0, atol=1e-14)
    assert np.abs(batch - start).max() > 0.01


def test_the_penalty_is_the_sum_over_blocks():
    blocks = np.random.default_rng(0).normal(size=(3, 4, 4))
    penalty = OrthogonalityPenalty(0.5)
    expected = sum(np.linalg.norm(b @ b.T - np.eye(4)) / 2 for b in blocks)
    assert float(penalty(blocks)) == pytest.approx(expected, rel=1e-12)
    layer = built(27, 8, orthogonalize=orthogonal.identity, rotation_regularizer=penalty)
    expected = sum(np.linalg.norm(b @ b.T - np.eye(len(b))) / 2 for b in matrices(layer))
    assert float(tf.add_n(layer.losses)) == pytest.approx(expected, rel=1e-12)
