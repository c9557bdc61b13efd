"""S-OPT: which rows are rotated, what an episode's end leaves, and other maps."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from common import orthogonal
from common.backbones import cnn6
from common.layers import StochasticEpisodes, StochasticOrthogonalConv2D, StochasticOrthogonalDense
from common.layers.stochastic import draw_rows
from sopt_gs.architecture import start_episode
from tests.conftest import method_named
from tests.test_blocks import matrices

# the usual map, and the one whose map(I) is not I
MAPS = [orthogonal.gram_schmidt, orthogonal.householder]
each_map = pytest.mark.parametrize("orthogonalize", MAPS, ids=lambda m: m.__name__)


def built_layer(orthogonalize, channels: int = 8, **kwargs) -> StochasticOrthogonalConv2D:
    layer = StochasticOrthogonalConv2D(5, 3, orthogonalize=orthogonalize, **kwargs)
    layer.build((None, 8, 8, channels))
    return layer


def rotate(layer: StochasticOrthogonalConv2D) -> None:
    random = np.random.default_rng(0)
    for rotation in layer.rotations:
        rotation.assign(random.normal(size=rotation.shape))


@pytest.mark.parametrize(("block_size", "sizes"), [(None, [18]), (8, [8, 8, 2])])
@each_map
def test_some_rows_are_rotated_and_an_episodes_end_changes_no_neuron(
    orthogonalize, block_size, sizes
):
    """The rows of ``indices`` in their order. Householder's map of I is not I."""
    layer = built_layer(orthogonalize, block_size=block_size)
    rotate(layer)
    rows, fix, neurons = layer.indices.numpy(), layer.fix.numpy(), layer.neurons().numpy()
    assert len(set(rows)) == len(rows) == 9 * 2
    assert [len(m) for m in matrices(layer)] == sizes
    expected = fix.copy()
    for m, part in zip(matrices(layer), np.split(rows, np.cumsum(sizes)[:-1]), strict=True):
        expected[part] = orthogonalize(m).numpy() @ fix[part]
    np.testing.assert_allclose(neurons, expected, atol=1e-6)
    others = np.setdiff1d(np.arange(72), rows)
    np.testing.assert_array_equal(neurons[others], fix[others])
    layer.merge()
    layer.restart(np.arange(72)[::-1][:18])
    np.testing.assert_allclose(layer.neurons(), neurons, atol=1e-6)
    for matrix in matrices(layer):
        np.testing.assert_array_equal(matrix, np.eye(len(matrix)))
    assert layer.indices.numpy().tolist() == list(range(71, 53, -1))


def test_number_of_rows():
    for share, channels, rows in ((0.25, 64, 144), (0.25, 3, 9), (0.01, 8, 9), (1.0, 8, 72)):
        layer = built_layer(orthogonal.gram_schmidt, channels, rotated_fraction=share)
        assert layer.rotation.shape == (rows, rows)
        assert layer.indices.shape == (rows,)


def test_bad_arguments_are_refused():
    for fraction in (0, 1.5, -1):
        with pytest.raises(ValueError, match="rotated_fraction"):
            StochasticOrthogonalConv2D(4, 3, rotated_fraction=fraction)
    layer = built_layer(orthogonal.gram_schmidt)
    for indices in ([0] * 18, range(17), range(60, 78), [0, *range(18)]):
        with pytest.raises(ValueError, match="different rows"):
            layer.restart(list(indices))


def small_model() -> keras.Model:
    return method_named("sopt_gs").build_model(cnn6, num_classes=10, widths=(4, 4, 4, 4))


def test_start_episode_resets_what_the_original_resets():
    model = small_model()
    first, *stochastic = [layer for layer in model.layers if hasattr(layer, "rotation")]
    names = [layer.name for layer in stochastic if hasattr(layer, "indices")]
    assert names == ["conv1_1", "conv2_0", "conv2_1", "conv3_0", "conv3_1", "fc6"]
    normalizations = {v.name: v for v in model.layers if v.name.endswith("_bn")}
    for layer in (first, *stochastic):
        rotate(layer)
    for layer in normalizations.values():
        layer.gamma.assign(layer.gamma + 1)
    before = first.rotation.numpy()
    start_episode(model, seed=0, episode=1)
    np.testing.assert_array_equal(first.rotation, before)
    for layer in stochastic:
        np.testing.assert_array_equal(layer.rotation, np.eye(layer.rotation.shape[0]))
    gammas = {name: float(layer.gamma[0]) for name, layer in normalizations.items()}
    assert gammas.pop("conv1_0_bn") == 2
    assert set(gammas.values()) == {1}
    model.get_layer("conv2_0_bn").gamma.assign(3 * np.ones(4))
    start_episode(model, seed=0, episode=2, reset_bn=False)
    assert float(model.get_layer("conv2_0_bn").gamma[0]) == 3


def test_rows_are_a_function_of_seed_episode_and_layer():
    drawn = [tuple(draw_rows(*numbers, 72, 18)) for numbers in np.ndindex(2, 2, 2)]
    assert len(set(drawn)) == 8
    assert drawn == [tuple(draw_rows(*numbers, 72, 18)) for numbers in np.ndindex(2, 2, 2)]


@each_map
def test_learned_neurons_are_merged_too(orthogonalize):
    """Rows that are not rotated learn as well, and an episode's end keeps what was learned."""
    layer = built_layer(orthogonalize, use_bias=False, learn_neurons=True)
    rotate(layer)
    with tf.GradientTape() as tape:
        total = tf.reduce_sum(layer(np.ones((2, 8, 8, 8), "float32")) ** 2)
    of_fix, of_rotation = tape.gradient(total, [layer.fix.value, layer.rotation.value])
    assert [v.name for v in layer.trainable_variables] == ["rotation", "fix"]
    assert np.abs(of_rotation).max() > 0
    assert (np.abs(of_fix).max(axis=1) > 0).all()
    layer.fix.assign_sub(0.01 * of_fix)
    before = layer.neurons().numpy()
    layer.merge()
    layer.restart(np.arange(18))
    np.testing.assert_allclose(layer.neurons(), before, atol=1e-5)


def test_episodes_under_fit():
    """Rows are drawn every three steps, by the seed and the step alone, and no angle changes."""
    images = np.random.default_rng(0).normal(size=(32, 8)).astype("float32")
    seen: list[list] = []

    class Watch(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            seen[-1].append(tuple(self.model.layers[0].indices.numpy()))

    def train(fits: list[int], seed: int) -> None:
        """Calls fit for so many epochs each, of four steps."""
        keras.utils.set_random_seed(0)
        layer = StochasticOrthogonalDense(5, rotated_fraction=0.5, orthogonalize="cayley")
        model = keras.Sequential([keras.Input((8,)), layer])
        start = layer.fix.numpy()
        model.compile(keras.optimizers.SGD(0.3), "mse", jit_compile=False)
        seen.append([])
        for epochs in fits:
            callbacks = [StochasticEpisodes(steps=3, seed=seed), Watch()]
            model.fit(images, images[:, :5], 8, epochs, verbose=0, callbacks=callbacks)
        neurons = layer.neurons().numpy()
        assert np.abs(neurons - start).max() > 0.05
        # sums of 8 terms, four merges, in float32
        np.testing.assert_allclose(neurons.T @ neurons, start.T @ start, atol=1e-5)

    train([3], seed=0)
    train([1, 2], seed=0)
    train([3], seed=1)
    once, twice, other = seen
    assert [len(set(once[i : i + 3])) for i in (0, 3, 6, 9)] == [1] * 4
    assert len(set(once)) == 4
    assert once == twice
    assert not set(once) & set(other)
    assert once[3] == tuple(draw_rows(0, 1, 0, 8, 4))


def test_episodes_refuse_what_cannot_have_them():
    with pytest.raises(ValueError, match="`steps` must be positive, not 0"):
        StochasticEpisodes(steps=0)
    for layer, use_ema, message in (
        (keras.layers.Dense(3), False, "has no stochastic layer"),
        (StochasticOrthogonalDense(3), True, "`use_ema` would average"),
    ):
        model = keras.Sequential([keras.Input((4,)), layer])
        model.compile(keras.optimizers.SGD(use_ema=use_ema), "mse")
        with pytest.raises(ValueError, match=message):
            model.fit(np.ones((2, 4)), np.ones((2, 3)), verbose=0, callbacks=[StochasticEpisodes()])
