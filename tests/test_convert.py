"""Plain models into OPT models and back: the outputs stay, on inputs larger than the kernels."""

import logging
import subprocess
import sys

import keras
import numpy as np
import pytest

from common import layers, orthogonal
from common.convert import fold_model, orthogonalize_model, refold
from common.regularizers import HypersphericalEnergy

MAPS = [
    orthogonal.gram_schmidt,
    orthogonal.householder,
    orthogonal.lowdin,
    orthogonal.cayley,
    orthogonal.identity,
]
each_map = pytest.mark.parametrize("orthogonalize", MAPS, ids=lambda m: m.__name__)
PICTURES = np.random.default_rng(0).normal(size=(3, 13, 11, 4)).astype("float32")


def plain_model() -> keras.Model:
    """A functional model with convolutions of every kind, a shared layer, a branch and a model
    inside.
    """
    inputs = keras.Input(PICTURES.shape[1:])
    x = keras.layers.Conv2D(6, (3, 2), padding="same", activation="relu")(inputs)
    x = keras.layers.BatchNormalization()(x)
    shared = keras.layers.Conv2D(6, 3, dilation_rate=2, padding="same", name="shared")
    x = keras.layers.Add()([shared(x), shared(keras.layers.ReLU()(x))])
    inner = keras.Input((None, None, 6))
    y = keras.layers.Conv2D(8, (1, 3), strides=2, groups=2, bias_initializer="ones")(inner)
    x = keras.Model(inner, y, name="inside")(x)
    x = keras.layers.Flatten()(x)
    return keras.Model(
        inputs, [keras.layers.Dense(5, name="head")(x), keras.layers.Dense(2, use_bias=False)(x)]
    )


def outputs(model: keras.Model) -> np.ndarray:
    return np.concatenate([np.asarray(o) for o in model(PICTURES, training=False)], axis=-1)


def leaves(model: keras.Model) -> list[keras.layers.Layer]:
    return list(model._flatten_layers(include_self=False))


def shake(model: keras.Model) -> None:
    """Gives every weight other values, as training would."""
    random = np.random.default_rng(1)
    for variable in model.trainable_variables:
        variable.assign(variable + random.normal(size=variable.shape))


STARTS = ["identity", "orthogonal", keras.initializers.RandomNormal(stddev=1.0)]


@pytest.mark.parametrize(
    ("orthogonalize", "rotations"),
    # without a map R itself must be orthogonal to begin with
    [
        (m, start)
        for m in MAPS
        for start in STARTS
        if m is not orthogonal.identity or isinstance(start, str)
    ],
)
def test_turning_a_model_changes_no_output(orthogonalize, rotations):
    model = plain_model()
    before, weights = outputs(model), model.get_weights()
    turned = orthogonalize_model(model, orthogonalize, rotation_initializer=rotations)
    found = [
        layer
        for layer in leaves(turned)
        if isinstance(layer, layers.OrthogonalConv2D | layers.OrthogonalDense)
    ]
    assert len(found) == 5
    assert not [
        layer
        for layer in leaves(turned)
        if type(layer) in (keras.layers.Conv2D, keras.layers.Dense)
    ]
    # products of up to 3 x 240 float32 terms
    np.testing.assert_allclose(outputs(turned), before, atol=1e-5 * np.abs(before).max())
    for old, new in zip(
        weights, model.get_weights(), strict=True
    ):  # the model itself is left alone
        np.testing.assert_array_equal(old, new)


@each_map
def test_folding_changes_no_output_and_leaves_nothing_of_ours(tmp_path, orthogonalize):
    turned = orthogonalize_model(plain_model(), orthogonalize)
    shake(turned)
    turned(PICTURES, training=True)
    turned.compile("sgd", "mse")
    folded = fold_model(turned)
    np.testing.assert_allclose(outputs(folded), outputs(turned), rtol=1e-5, atol=1e-5)
    assert all(type(layer).__module__.startswith("keras.") for layer in leaves(folded))
    folded.save(tmp_path / "folded.keras")
    assert b"opt>" not in (tmp_path / "folded.keras").read_bytes()
    np.testing.assert_array_equal(
        outputs(keras.saving.load_model(tmp_path / "folded.keras")), outputs(folded)
    )


def test_a_folded_model_loads_where_this_repository_is_not(tmp_path):
    fold_model(orthogonalize_model(plain_model())).save(tmp_path / "folded.keras")
    code = "import keras, sys; keras.saving.load_model('folded.keras'); "
    code += "assert 'common' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True, capture_output=True)


def test_a_folded_model_leaves_our_penalties_behind(tmp_path):
    """A penalty of this repository would keep the plain model from loading elsewhere; Keras's own
    stay.
    """
    penalties = (HypersphericalEnergy(), keras.regularizers.L2(1e-3))
    layers_of = [keras.layers.Dense(4, kernel_regularizer=penalty) for penalty in penalties]
    model = keras.Sequential([keras.Input((6,)), *layers_of])
    fold_model(model).save(tmp_path / "folded.keras")
    code = "import keras; layers = keras.saving.load_model('folded.keras').layers; "
    code += "print(*(type(x.kernel_regularizer).__name__ for x in layers))"
    result = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, check=True, capture_output=True, text=True
    )
    assert result.stdout.split() == ["NoneType", "L2"]


def test_refold_brings_a_folded_model_up_to_date():
    turned = orthogonalize_model(plain_model())
    folded = fold_model(turned)
    shake(turned)
    assert np.abs(outputs(folded) - outputs(turned)).max() > 0.1
    refold(turned, folded)
    np.testing.assert_allclose(outputs(folded), outputs(turned), rtol=1e-5, atol=1e-5)


def test_folding_debiases_the_averages():
    model = keras.Sequential(
        [
            keras.Input((13, 11, 4)),
            layers.OrthogonalConv2D(5, 3),
            layers.BatchNormalization(scale=False),
        ]
    )
    for _ in range(3):
        model(PICTURES, training=True)
    np.testing.assert_allclose(
        fold_model(model)(PICTURES), model(PICTURES, training=False), atol=1e-5
    )


def test_chosen_layers_alone():
    turned = orthogonalize_model(plain_model(), layer_names=["shared", "head"])
    kinds = {layer.name: type(layer) for layer in leaves(turned)}
    assert kinds["shared"] is layers.OrthogonalConv2D
    assert kinds["head"] is layers.OrthogonalDense
    assert sum(kind in (keras.layers.Conv2D, keras.layers.Dense) for kind in kinds.values()) == 3


def test_sequential_models_stay_sequential():
    model = keras.Sequential(
        [keras.Input((6,)), keras.layers.Dense(4, activation="tanh"), keras.layers.Dense(3)]
    )
    turned = orthogonalize_model(model, layer_names=[model.layers[0].name])
    assert isinstance(turned, keras.Sequential)
    assert [type(layer) for layer in turned.layers] == [layers.OrthogonalDense, keras.layers.Dense]
    np.testing.assert_allclose(turned(np.eye(6)), model(np.eye(6)), atol=1e-6)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: keras.Sequential([keras.layers.Dense(3)]), "must be built"),
        (
            lambda: keras.Sequential(
                [keras.Input((4,)), keras.layers.Dense(3, kernel_constraint="non_neg")]
            ),
            "kernel_constraint",
        ),
        (lambda: keras.Sequential([keras.Input((4,)), keras.layers.ReLU()]), "no Conv2D or Dense"),
        (
            lambda: keras.Sequential(
                [keras.Input((4, 9, 9)), keras.layers.Conv2D(3, 3, data_format="channels_first")]
            ),
            "channels_first",
        ),
    ],
)
def test_what_cannot_be_turned_is_said(make, message):
    with pytest.raises(ValueError, match=message):
        orthogonalize_model(make())


# Models with operations that are no layers


def residual_model() -> keras.Model:
    """A residual network as Keras 3 users write it: +, *, keras.ops, a model called twice."""
    inputs = keras.Input((8, 8, 3), name="photo")
    stem = keras.layers.Conv2D(6, 3, padding="same", activation="relu")(inputs)
    block_in = keras.Input((8, 8, 6))
    y = keras.layers.Conv2D(6, 3, padding="same")(block_in)
    block = keras.Model(block_in, keras.ops.relu(y + block_in) * 2, name="block")
    x = block(block(stem)) - 0.5
    x = keras.ops.mean(x, axis=(1, 2))
    return keras.Model(inputs, keras.layers.Dense(4)(x) / 3)


def keras_application(name: str) -> keras.Model:
    make = getattr(keras.applications, name)
    return make(weights=None, input_shape=(32, 32, 3), classes=7)


@pytest.mark.parametrize(
    "make",
    [
        residual_model,
        lambda: keras_application("MobileNetV3Small"),
        pytest.param(lambda: keras_application("ConvNeXtTiny"), marks=pytest.mark.slow),
        pytest.param(lambda: keras_application("EfficientNetV2B0"), marks=pytest.mark.slow),
    ],
    ids=["residual", "MobileNetV3Small", "ConvNeXtTiny", "EfficientNetV2B0"],
)
def test_models_with_operations(tmp_path, make):
    """Outputs are equal before, after turning, after folding, after a file; so are input names."""
    model = make()
    shape = (2, *model.input_shape[1:])
    images = np.random.default_rng(0).uniform(0, 255, shape).astype("float32")

    def scores(m: keras.Model) -> np.ndarray:
        return m.predict(images, verbose=0)

    before = scores(model)
    turned = orthogonalize_model(model)
    np.testing.assert_array_equal(scores(turned), before)  # R = I: the kernels are the same
    assert names_of_inputs(turned) == names_of_inputs(model)
    turned.save(tmp_path / "turned.keras")
    np.testing.assert_array_equal(
        scores(keras.saving.load_model(tmp_path / "turned.keras")), before
    )
    folded = fold_model(turned)
    np.testing.assert_array_equal(scores(folded), before)
    assert folded.count_params() == model.count_params()
    folded.save(tmp_path / "folded.keras")
    np.testing.assert_array_equal(
        scores(keras.saving.load_model(tmp_path / "folded.keras")), before
    )


def names_of_inputs(model: keras.Model) -> list[str]:
    return [layer.name for layer in model.layers if isinstance(layer, keras.layers.InputLayer)]


def test_refold_of_a_model_with_operations():
    turned = orthogonalize_model(residual_model())
    folded = fold_model(turned)
    shake(turned)
    refold(turned, folded)
    images = np.random.default_rng(0).normal(size=(2, 8, 8, 3)).astype("float32")
    actual, expected = (m.predict(images, verbose=0) for m in (folded, turned))
    # products of up to 54 float32 terms, five layers deep
    np.testing.assert_allclose(actual, expected, rtol=1e-5, atol=1e-5 * np.abs(expected).max())
    block = [layer for layer in folded.layers if layer.name == "block"]
    assert len(block) == 1  # called twice, and still one model


# What is left, and what is said of it


class _Subclass(keras.layers.Dense):
    pass


def test_nothing_is_left_out_in_silence(caplog, capsys):
    """The report is printed, or logged where Keras's messages are."""
    model = keras.Sequential(
        [
            keras.Input((9, 9, 4)),
            keras.layers.Conv2D(3, 3, name="turned"),
            keras.layers.DepthwiseConv2D(3, name="depth"),
            keras.layers.TimeDistributed(keras.layers.Dense(5, name="wrapped")),
            _Subclass(6, name="own"),
        ]
    )
    turned, conversion = orthogonalize_model(model, return_conversion=True)
    assert capsys.readouterr().out == f"{conversion}\n"
    assert not caplog.records
    assert conversion.turned == ("turned",)
    assert conversion.added_weights == 36**2
    assert turned.count_params() - model.count_params() == 36**2
    assert conversion.left == {
        "depth": "DepthwiseConv2D",
        "wrapped": "inside a wrapper or another layer",
        "own": "a subclass, _Subclass",
    }
    for words in ("1 layer turned", "adds 1,296 weights", "depth (DepthwiseConv2D)", "own (a sub"):
        assert words in str(conversion)
    keras.config.disable_interactive_logging()
    try:
        with caplog.at_level(logging.INFO, logger="common.convert"):
            orthogonalize_model(model)
            orthogonalize_model(plain_model())
    finally:
        keras.config.enable_interactive_logging()
    assert [record.levelname for record in caplog.records] == ["WARNING", "INFO"]
    assert caplog.records[0].getMessage() == str(conversion)
    assert not capsys.readouterr().out


def test_a_regularizer_is_dropped_with_a_warning(caplog):
    layers_of = [keras.layers.Dense(3, kernel_regularizer="l2", name=name) for name in "ab"]
    model = keras.Sequential([keras.Input((4,)), *layers_of])
    turned = orthogonalize_model(model)
    warnings = [r.getMessage() for r in caplog.records if r.levelname == "WARNING"]
    assert len(warnings) == 1
    assert "kernel_regularizer of a, b is dropped" in warnings[0]
    assert not turned.losses


@pytest.mark.parametrize("orthogonalize", ["lowdin", "cayley"])
def test_a_rotation_that_is_not_finite_is_not_folded(orthogonalize):
    """A solver may refuse NaN, or a map may give NaN without a word."""
    layer = layers.OrthogonalDense(3, orthogonalize=orthogonalize, block_size=2, name="x")
    model = keras.Sequential([keras.Input((5,)), layer])
    for rotation in layer.rotations:
        good = rotation.numpy()
        rotation.assign(good * np.nan)
        with pytest.raises(ValueError, match=rf"x cannot be folded: its {rotation.name} is not"):
            fold_model(model)
        rotation.assign(good)


def test_one_name_is_one_name():
    model = keras.Sequential(
        [keras.Input((4,)), *(keras.layers.Dense(3, name=n) for n in ("x", "y"))]
    )
    turned = orthogonalize_model(model, layer_names="x")
    kinds = [isinstance(layer, layers.OrthogonalDense) for layer in turned.layers]
    assert kinds == [True, False]


def test_a_subclassed_model_is_told_what_would_do():
    class Own(keras.Model):
        def __init__(self):
            super().__init__()
            self.dense = keras.layers.Dense(3)

        def call(self, inputs):
            return self.dense(inputs)

    model = Own()
    model(np.ones((1, 4), "float32"))
    for convert in (orthogonalize_model, fold_model):
        with pytest.raises(ValueError, match="must be functional or Sequential"):
            convert(model)


def test_what_cannot_be_folded_is_said():
    wrapped = keras.Sequential(
        [keras.Input((3, 6)), keras.layers.TimeDistributed(layers.OrthogonalDense(4))]
    )
    with pytest.raises(ValueError, match="cannot be folded"):
        fold_model(wrapped)
    plain = keras.Sequential([keras.Input((6,)), keras.layers.Dense(4)])
    with pytest.raises(ValueError, match="no orthogonal matrix"):
        orthogonalize_model(plain, orthogonal.identity, rotation_initializer="random_normal")


def test_unknown_names_are_said():
    with pytest.raises(ValueError, match=r"no Conv2D or Dense layers: add, nowhere"):
        orthogonalize_model(plain_model(), layer_names=["shared", "nowhere", "add"])
