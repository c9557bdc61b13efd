"""What a user asks for reaches the code that does it."""

import functools
import itertools
import json
import pathlib
import types

import keras
import numpy as np
import pytest
import tensorflow as tf

from common import datasets
from common.layers.stochastic import draw_rows
from common.optimizers import step_decay
from common.training import loop
from common.training.evaluation import renew_averages
from common.training.methods import known, method_of
from common.training.settings import Settings
from common.training.steps import FIGURES, make_steps
from tests.conftest import method_named
from tests.test_run import settings
from tests.test_scripts import METHODS, SMALL, rows_of, train

load_digits = functools.partial(datasets.load, "digits", pathlib.Path())
OTHER = {"rotation_start": "normal", "model": "mhe", "power": "a1"}
OTHER |= {"rotation_stddev": 0.5, "learn_neurons": True, "block_size": 2, "rotation_lr": 0.5}
OTHER |= {"reorthogonalize_every": 3, "iterations_per_episode": 5, "rotated_fraction": 0.5}
OTHER |= {"reset_bn": False, "orthogonalize": "cayley"}


def tiny(layer, stem=None, score_regularizer=None) -> keras.Model:
    first = (stem or layer)(8, 1, name="first")
    return keras.Sequential([keras.Input((4, 4, 8)), first, layer(8, 1, name="second")])


def made(name: str, **flags: object) -> list[object]:
    """Returns all that a method with these flags makes."""
    keras.utils.clear_session()  # so that names are numbered from 0
    keras.utils.set_random_seed(0)
    method = method_named(name, **flags)
    model = method.build_model(tiny)
    optimizer = method.make_optimizer(0.1, functools.partial(step_decay, iterations=75))
    weights = [(v.path, v.trainable, v.numpy().tobytes()) for v in model.weights]
    maps = [getattr(layer, "orthogonalize", None) for layer in model.layers]
    episodes = method.episode_length, getattr(method.start_episode, "keywords", None)
    return [weights, maps, optimizer.get_config(), *episodes, *map(float, model.losses)]


@pytest.mark.parametrize("name", METHODS)
def test_each_flag_of_a_method_changes_it(name):
    usual = made(name)
    assert made(name) == usual
    for flag in known()[name].__dataclass_fields__.keys() - Settings.__dataclass_fields__.keys():
        assert made(name, **{flag: OTHER[flag]}) != usual, flag


@pytest.mark.parametrize("name", METHODS)
def test_where_a_methods_weights_start(name):
    """R at I or N(0, stddev^2), the neurons N(0, 2/n), which is not cut off."""
    keras.utils.set_random_seed(0)
    model = method_named(name).build_model(widths=(4, 4, 4, 32))
    layer, deviation = model.get_layer("fc6"), getattr(known()[name], "rotation_stddev", None)
    neurons = np.reshape(getattr(layer, "fix", layer.kernel), [-1, 32])
    # the squares of a normal scatter by sqrt(2) of their mean
    assert np.mean(neurons**2) * 64 / 2 == pytest.approx(1, rel=5 * np.sqrt(2 / neurons.size))
    assert np.abs(neurons).max() > 3 * neurons.std()
    if deviation:
        rotation = layer.rotation.numpy()
        assert rotation.std() == pytest.approx(deviation, rel=5 / np.sqrt(2 * rotation.size))
    elif hasattr(layer, "rotation"):
        np.testing.assert_array_equal(layer.rotation, np.eye(layer.rotation.shape[0]))


def test_seed_images_and_episodes_of_a_run(tmp_path, monkeypatch):
    seen, draws = [], datasets.draws
    monkeypatch.setattr(keras.utils, "set_random_seed", seen.append)
    monkeypatch.setattr(tf.config.experimental, "enable_op_determinism", lambda: seen.append("set"))
    monkeypatch.setattr(datasets, "draws", lambda *a: seen.append(a) or draws(*a))
    tf.config.experimental.enable_tensor_float_32_execution(True)

    def forget(model, data, few, jit):  # in place of new averages
        seen.append(len([*few]))
        model.set_weights([0 * weight for weight in model.get_weights()])

    monkeypatch.setattr(loop, "renew_averages", forget)
    words = ["--iterations=6", "--seed=7", "--train_images=100", "--iterations_per_episode=5"]
    train("sopt_gs", *SMALL, *words, "--deterministic", f"--log_dir={tmp_path}")
    assert seen == ["set", 7, (7, 0, 100, 32, False, 5), (7, 0, 100, 32, False), 6]  # no flips
    facts, labels = json.loads((tmp_path / "run.json").read_text()), load_digits().test_labels
    assert facts["renewed_accuracy"] == np.mean(labels == 0) != facts["test_accuracy"]
    assert not tf.config.experimental.tensor_float_32_execution_enabled()
    layer = keras.saving.load_model(tmp_path / "model.keras").get_layer("conv1_1")
    np.testing.assert_array_equal(layer.indices, draw_rows(7, 1, 0, 72, 18))


def test_weight_decay_of_a_run(tmp_path):
    flags = ["--iterations=2", "--log_every=1", "--weight_decay=500", "--base_lr=0.001"]
    train("baseline", *SMALL, *flags, f"--log_dir={tmp_path}")
    (reg,) = (float(row["reg"]) for row in rows_of(tmp_path) if row["reg"])
    # a step halves the weights, whose squares sum to 2 a filter and 48 gammas, +- 4
    assert reg == pytest.approx(500 / 2 * (7 * 8 * 2 + 10 * 2 + 48) / 4, rel=5 * 4 / 180)


def test_network_and_precision_of_a_run(tmp_path):
    asked = settings(tmp_path, backbone="resnet20", widths=(4, 6, 8), precision="mixed_float16")
    model, optimizer = loop._build(asked, method_of(asked), 7)
    layer = model.get_layer("conv4_0_0")
    assert (model.name, layer.filters, layer.compute_dtype) == ("resnet20", 8, "float16")
    assert model.output_shape == (None, 7)
    assert isinstance(optimizer, keras.optimizers.LossScaleOptimizer)
    assert keras.config.dtype_policy().name == "float32"  # as before


def test_renewed_averages_are_the_means_over_batches():
    inputs, random = keras.Input((32, 32, 3)), np.random.default_rng(0)
    model = keras.Model(inputs, keras.layers.BatchNormalization()(inputs))
    images = random.integers(0, 256, (8, 32, 32, 3)).astype("uint8")
    draws = [next(datasets.draws(seed, 0, 8, 4)) for seed in (1, 2)]
    renew_averages(model, types.SimpleNamespace(train_images=images), draws, jit=False)
    batches = [datasets.augment(tf.constant(images), drawn).numpy() for drawn in draws]
    mean, variance = model.layers[1].non_trainable_weights  # float32 sums of 4,096 terms
    np.testing.assert_allclose(mean, np.mean(batches, (0, 1, 2, 3)), rtol=1e-5)
    np.testing.assert_allclose(variance, np.var(batches, (1, 2, 3)).mean(0), rtol=1e-5)


def test_each_of_several_steps_in_one_call_has_its_batch():
    data = load_digits()
    draws = np.stack([*itertools.islice(datasets.draws(0, 0, 1437, 8, False), 3)])
    step = lambda _, y: dict.fromkeys(FIGURES, tf.reduce_sum(tf.cast(y, tf.float32)))  # noqa: E731
    for jit in (False, True):
        figures, fits = make_steps(step, data, 8, 4, jit)(draws)
        np.testing.assert_array_equal(fits, data.train_labels[draws[:, :, 0]].sum(1))
        assert figures["fit"] == fits[-1]
