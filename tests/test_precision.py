"""Mixed precision: what stays in float32, how far the losses go, and what a skipped step leaves."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from common import energy
from common.convert import fold_model, orthogonalize_model
from common.layers import BatchNormalization, OrthogonalConv2D
from common.losses import smoothed_cross_entropy
from common.optimizers import OGD
from common.orthogonal import identity, lowdin
from common.training.settings import PRECISIONS
from common.training.steps import make_step, policy, scaled
from tests.conftest import method_named
from tests.test_scripts import METHODS

MIXED = PRECISIONS[1:]
# half the distance of neighbouring numbers around 1: bfloat16 has 8 bits, float16 has 11
ROUNDING = {"mixed_bfloat16": 2.0**-8, "mixed_float16": 2.0**-11}
IMAGES = np.random.default_rng(0).integers(0, 256, (16, 32, 32, 3)).astype("float32")
LABELS = np.arange(16) % 10


def built(method: str, precision: str, rate: float = 0.01) -> tuple:
    """Returns the model of a method, its optimizer, and its training step, not compiled."""
    keras.utils.set_random_seed(0)
    ours = method_named(method)
    with policy(precision):
        model = ours.build_model(num_classes=10, widths=(4, 4, 4, 4))
    optimizer = scaled(ours.make_optimizer(rate, lambda rate, factor=0.1: rate), precision)
    return model, optimizer, make_step(ours, model, optimizer)


def values(model: keras.Model) -> list[np.ndarray]:
    return [variable.numpy() for variable in model.trainable_variables]


@pytest.mark.parametrize("precision", MIXED)
@pytest.mark.parametrize(
    "method", [pytest.param(m, marks=[pytest.mark.slow] * (m != "opt_ogd")) for m in METHODS]
)
def test_every_method_takes_a_step(method, precision):
    """The loss is float32's as far as the network's roundings go.

    Each of 8 layers rounds its inputs, kernel and outputs. Independent errors add up as their
    squares do, so a score is off by sqrt(24) roundings of the largest score. The loss of an image
    changes at most twice as much as its scores.
    """
    model, optimizer, step = built(method, precision)
    dtypes = {v.dtype for v in [*model.variables, *optimizer.variables]}
    assert {dtype for dtype in dtypes if "float" in dtype} == {"float32"}
    scores = model(IMAGES, training=True)
    assert scores.dtype == precision.removeprefix("mixed_")
    before = values(model)
    figures = step(IMAGES, LABELS)
    assert {value.dtype for value in figures.values()} == {tf.float32}
    for _ in range(15):  # float16 may skip the first ones; the scale falls from 2^15 to 1 at most
        if (before[0] != model.trainable_variables[0].numpy()).any():
            break
        step(IMAGES, LABELS)
    assert all((a != v).any() for a, v in zip(before, values(model), strict=True))
    exact = built(method, "float32")[2](IMAGES, LABELS)
    off = 2 * np.sqrt(3 * 8) * ROUNDING[precision] * np.abs(scores.numpy().astype("float32")).max()
    assert abs(float(figures["fit"] - exact["fit"])) < off
    # neither is computed in 16 bits: nothing of them passes through the network
    assert float(figures["reg"]) == float(exact["reg"])
    assert float(figures["penalty"]) == float(exact["penalty"])


def test_a_skipped_step_leaves_the_weights_and_counts():
    model, optimizer, step = built("opt_ogd", "mixed_float16")
    step(IMAGES, LABELS)
    scale = 2.0**120  # the gradients of a loss of this size are infinite
    optimizer.dynamic_scale.assign(scale)
    kept = [*model.trainable_variables, *optimizer.inner_optimizer.momentums]
    before = [v.numpy() for v in kept]
    figures = step(IMAGES, LABELS)
    assert np.isfinite(figures["fit"])
    for value, variable in zip(before, kept, strict=True):
        np.testing.assert_array_equal(variable, value)
    assert float(optimizer.dynamic_scale) == scale / 2
    # the rate that is logged for an iteration is the one that the optimizer uses in it
    assert int(optimizer.iterations) == 2
    optimizer.dynamic_scale.assign(2.0**15)
    step(IMAGES, LABELS)
    assert int(optimizer.iterations) == 3
    assert any((a != v.numpy()).any() for a, v in zip(before, kept, strict=True))


@pytest.mark.parametrize("precision", MIXED)
def test_fit_save_fold_and_turn(tmp_path, precision):
    """Kernels that float32 rounds otherwise give outputs that are off by a few roundings."""
    keras.utils.set_random_seed(0)
    with policy(precision):
        layers = [
            keras.Input((8, 8, 3)),
            OrthogonalConv2D(4, 3, orthogonalize=identity, rotation_initializer="identity"),
            BatchNormalization(),
            keras.layers.Flatten(),
            keras.layers.Dense(10),
        ]
        model = keras.Sequential(layers)
    model.compile(OGD(0.01), smoothed_cross_entropy)
    is_scaled = isinstance(model.optimizer, keras.optimizers.LossScaleOptimizer)
    assert is_scaled == (precision == "mixed_float16")
    images = np.random.default_rng(0).normal(size=(32, 8, 8, 3)).astype("float32")
    losses = model.fit(images, np.arange(32) % 10, epochs=3, verbose=0).history["loss"]
    assert losses[-1] < losses[0]
    rotation = model.layers[0].rotation
    assert rotation.dtype == "float32"
    # three updates of OGD; what each misses, (rate |W|)^4 / 4, is less than its roundings here
    assert energy.orthogonality_drift(rotation.value) < 3 * 27 * np.finfo("float32").eps
    outputs = model.predict(images, verbose=0)
    model.save(tmp_path / "model.keras")
    with policy(precision):  # by it Keras knows that the optimizer scales the loss
        copy = keras.saving.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(copy.predict(images, verbose=0), outputs)
    plain = fold_model(model)
    assert type(plain.layers[0]) is keras.layers.Conv2D
    assert plain.layers[0].compute_dtype == precision.removeprefix("mixed_")
    np.testing.assert_array_equal(plain.predict(images, verbose=0), outputs)
    turned = orthogonalize_model(plain, lowdin, rotation_initializer="random_normal")
    assert turned.layers[0].compute_dtype == precision.removeprefix("mixed_")
    far = np.abs(turned.predict(images, verbose=0).astype("float32") - outputs.astype("float32"))
    assert far.max() < 4 * ROUNDING[precision] * np.abs(outputs.astype("float32")).max()
