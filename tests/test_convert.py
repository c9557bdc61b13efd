"""Plain models into OPT models and back: the outputs stay, on inputs larger than the kernels."""

import itertools
import logging
import re

import keras
import numpy as np
import pytest
import tensorflow as tf

from common import layers, orthogonal
from common.convert import fold_model, orthogonalize_model, refold
from common.energy import EnergyLogger
from common.layers.orthogonal import OrthogonalLayer
from common.marks import ROTATION, purpose_of
from common.regularizers import HypersphericalEnergy
from common.rotations import load_rotations, save_rotations
from tests.conftest import run

PICTURES = np.random.default_rng(0).normal(size=(3, 13, 11, 4)).astype("float32")


def plain_model() -> keras.Model:
    """Convolutions of every kind, a shared layer, a branch and a model inside."""
    inputs = keras.Input(PICTURES.shape[1:])
    x = keras.layers.Conv2D(6, (3, 2), padding="same", activation="relu")(inputs)
    x = keras.layers.BatchNormalization()(x)
    shared = keras.layers.Conv2D(6, 3, dilation_rate=2, padding="same", name="shared")
    x = keras.layers.Add()([shared(x), shared(keras.layers.ReLU()(x))])
    inner = keras.Input((None, None, 6))
    y = keras.layers.Conv2D(8, (1, 3), strides=2, groups=2, bias_initializer="ones")(inner)
    x = keras.Model(inner, y, name="inside")(x)
    x = keras.layers.Flatten()(x)
    heads = keras.layers.Dense(5, name="head"), keras.layers.Dense(2, use_bias=False)
    return keras.Model(inputs, [head(x) for head in heads])


def outputs(model: keras.Model) -> np.ndarray:
    return np.concatenate([np.asarray(o) for o in model(PICTURES, training=False)], axis=-1)


def leaves(model: keras.Model) -> list[keras.layers.Layer]:
    return list(model._flatten_layers(include_self=False))


def shake(model: keras.Model) -> None:
    """Gives every weight other values, as training would."""
    random = np.random.default_rng(1)
    for variable in model.trainable_variables:
        variable.assign(variable + random.normal(size=variable.shape))


@pytest.mark.parametrize("block_size", [None, 10])
@pytest.mark.parametrize(
    ("orthogonalize", "rotations"),
    [
        (orthogonal.gram_schmidt, "identity"),
        (orthogonal.cayley, "orthogonal"),
        (orthogonal.householder, keras.initializers.RandomNormal(stddev=1.0)),
        (orthogonal.identity, "orthogonal"),  # without a map R itself must be orthogonal
    ],
)
def test_rotating_and_folding_change_no_output(orthogonalize, rotations, block_size):
    model = plain_model()
    before, weights = outputs(model), model.get_weights()
    start = {"rotation_initializer": rotations, "block_size": block_size}
    rotated, conversion = orthogonalize_model(model, orthogonalize, return_conversion=True, **start)
    kinds = [type(layer) for layer in leaves(rotated)]
    assert sum(issubclass(kind, OrthogonalLayer) for kind in kinds) == 5
    assert not {keras.layers.Conv2D, keras.layers.Dense} & {*kinds}
    blocks = ((n, min(block_size or n, n)) for n in (24, 54, 9, 280, 280))
    added = sum(n // b * b**2 + (n % b) ** 2 for n, b in blocks)
    assert rotated.count_params() - model.count_params() == conversion.added_weights == added
    # products of up to 3 x 280 float32 terms
    np.testing.assert_allclose(outputs(rotated), before, atol=1e-5 * np.abs(before).max())
    for old, new in zip(weights, model.get_weights(), strict=True):  # the model is left alone
        np.testing.assert_array_equal(old, new)
    shake(rotated)
    after = outputs(rotated)
    assert np.abs(after - before).max() > 0.1
    rotated.compile("sgd", "mse")
    folded = fold_model(rotated)
    bound = 1e-5 * np.abs(after).max()
    np.testing.assert_allclose(outputs(folded), after, rtol=1e-5, atol=bound)
    assert all(type(layer).__module__.startswith("keras.") for layer in leaves(folded))


def test_a_folded_model_loads_where_this_repository_is_not(tmp_path):
    """Our penalties would keep it from loading elsewhere; Keras's stay."""
    penalties = (HypersphericalEnergy(), keras.regularizers.L2(1e-3))
    layers_of = [keras.layers.Dense(4, kernel_regularizer=p, bias_regularizer=p) for p in penalties]
    rotated = [layers.OrthogonalDense(4), layers.BatchNormalization()]
    model = keras.Sequential([keras.Input((6,)), *layers_of, *rotated])
    folded = fold_model(model)
    folded.save(tmp_path / "folded.keras")
    assert keras.models.clone_model(folded).layers[-1].moving_variance[0] == 1  # as Keras's
    code = "import keras, sys; layers = keras.saving.load_model('folded.keras').layers; "
    code += "assert 'common' not in sys.modules; "
    code += "names = ('kernel_regularizer', 'bias_regularizer'); "
    code += "print(*(type(getattr(x, n)).__name__ for x in layers[:2] for n in names))"
    assert run("-c", code, cwd=tmp_path).stdout.split() == ["NoneType"] * 2 + ["L2"] * 2


def of(*layers_of: keras.layers.Layer) -> keras.Model:
    return keras.Sequential([keras.Input((4,)), *layers_of])


def test_models_that_cannot_be_rotated_are_refused():
    constrained = of(keras.layers.Dense(3, kernel_constraint="non_neg"))
    quantized = of(keras.layers.Dense(8, name="dense_q"))
    quantized.quantize("int8")
    for model, message in (
        (keras.Sequential([keras.layers.Dense(3)]), "must be built"),
        (of(keras.layers.SpectralNormalization(keras.layers.Dense(3))), "another layer uses its"),
        (constrained, "kernel_constraint"),
        (of(keras.layers.ReLU()), "no layer to rotate"),
        (quantized, "dense_q: quantized, int8"),
    ):
        with pytest.raises(ValueError, match=message):
            orthogonalize_model(model)


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


APPLICATIONS = ("MobileNetV3Small", "ConvNeXtTiny", "EfficientNetV2B0")


@pytest.mark.parametrize(
    "name", [None, *(pytest.param(name, marks=pytest.mark.slow) for name in APPLICATIONS)]
)
def test_models_with_operations(tmp_path, name):
    """Outputs are equal before, after rotating, after folding, after a file; so are input names."""
    make = name and getattr(keras.applications, name)
    model = make(weights=None, input_shape=(32, 32, 3), classes=7) if make else residual_model()
    shape = (2, *model.input_shape[1:])
    images = np.random.default_rng(0).uniform(0, 255, shape).astype("float32")

    before = model.predict(images, verbose=0)
    rotated = orthogonalize_model(model)
    folded = fold_model(rotated)
    assert folded.count_params() == model.count_params()
    for changed in (rotated, folded):
        assert names_of_inputs(changed) == names_of_inputs(model)
        changed.save(tmp_path / "model.keras")
        for each in (changed, keras.saving.load_model(tmp_path / "model.keras")):
            # R = I: the kernels are the same
            np.testing.assert_array_equal(each.predict(images, verbose=0), before)


def names_of_inputs(model: keras.Model) -> list[str]:
    return [layer.name for layer in model.layers if isinstance(layer, keras.layers.InputLayer)]


def test_refold_of_a_model_with_operations():
    rotated = orthogonalize_model(residual_model())
    folded = fold_model(rotated)
    shake(rotated)
    refold(rotated, folded)
    images = np.random.default_rng(0).normal(size=(2, 8, 8, 3)).astype("float32")
    actual, expected = (m.predict(images, verbose=0) for m in (folded, rotated))
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
            keras.layers.Conv2D(3, 3, name="first"),
            keras.layers.DepthwiseConv2D(3, name="depth"),
            keras.layers.TimeDistributed(keras.layers.Dense(5, name="wrapped"), name="each"),
            _Subclass(6, name="own"),
        ]
    )
    rotated, conversion = orthogonalize_model(model, return_conversion=True)
    assert capsys.readouterr().out == f"{conversion}\n"
    assert not caplog.records
    assert conversion.rotated == ("first", "each/wrapped")
    assert rotated.count_params() - model.count_params() == 36**2 + 3**2
    assert conversion.left == {"depth": "DepthwiseConv2D", "own": "a subclass, _Subclass"}
    for words in ("2 layers rotated", "adds 1,305 weights", "depth (Depthwise", "own (a sub"):
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
    rotated = orthogonalize_model(of(*layers_of))
    assert isinstance(rotated, keras.Sequential)
    warnings = [r.getMessage() for r in caplog.records if r.levelname == "WARNING"]
    assert len(warnings) == 1
    assert "kernel_regularizer of a, b is dropped" in warnings[0]
    assert not rotated.losses


@pytest.mark.parametrize("orthogonalize", ["lowdin", "cayley"])
def test_a_rotation_that_is_not_finite_is_not_folded(orthogonalize):
    """A solver may refuse NaN, or a map may give NaN without a word."""
    layer = layers.OrthogonalDense(3, orthogonalize=orthogonalize, block_size=3, name="x")
    model = of(layer)
    for rotation in layer.rotations:
        good = rotation.numpy()
        rotation.assign(good * np.nan)
        with pytest.raises(ValueError, match=rf"x/{rotation.name} is not finite"):
            fold_model(model)
        rotation.assign(good)


def test_a_subclass_with_its_own_call_is_not_folded():
    """Its plain form would not do what its call does. Nor is a subclass of our normalization."""

    class Doubled(layers.OrthogonalDense):
        def call(self, inputs):
            return 2 * super().call(inputs)

    class Normalization(layers.BatchNormalization):
        def call(self, inputs, training=None, mask=None):
            return inputs

    for layer, copy in itertools.product((Doubled(3), Normalization()), (True, False)):
        with pytest.raises(ValueError, match=r"is of a subclass of (an OPT layer|our)"):
            fold_model(of(layer), copy=copy)


def test_unknown_names_are_said():
    with pytest.raises(ValueError, match=r"no layers that can be rotated: add, nowhere"):
        orthogonalize_model(plain_model(), layer_names=["shared", "nowhere", "add"])
    with pytest.raises(ValueError, match=r"can be rotated: gru_cell \(gru/gru_cell: GRUCell\)"):
        orthogonalize_model(model_with_attention(), layer_names="gru_cell")


def test_a_rotation_that_is_not_orthogonal_changes_nothing():
    """Nor the variables, which an optimizer and compiled functions hold."""
    first = keras.layers.Dense(3, use_bias=False, kernel_regularizer="l2")
    plain = of(first, keras.layers.Dense(2, trainable=False))
    kernel, weights, penalty = first.kernel, plain.get_weights(), float(plain.losses[0])
    start = {"rotation_initializer": "random_normal"}
    for wrong in (
        start | {"orthogonalize": orthogonal.identity},
        start | {"block_size": 1},
        start | {"orthogonalize": lambda w: orthogonal.gram_schmidt(w) * (w.shape[-1] - 3)},
        {"orthogonalize": lambda w: orthogonal.cayley(w) + 0 / tf.norm(w - tf.eye(w.shape[-1]))},
    ):
        with pytest.raises(ValueError, match=r"no orthogonal matrix|`block_size`|not orthogonal"):
            orthogonalize_model(plain, copy=False, **wrong)
        assert type(first) is keras.layers.Dense
        assert first.kernel is kernel
        np.testing.assert_equal(plain.get_weights(), weights)
        assert float(plain.losses[0]) == penalty


# Layers inside layers


class _Block(keras.layers.Layer):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.attention = keras.layers.MultiHeadAttention(2, 4, name="attention")
        self.dense = keras.layers.Dense(8, name="fix")

    def build(self, shape):
        self.attention.build(shape, shape)
        self.dense.build(shape)

    def call(self, x):
        return self.dense(x + self.attention(x, x))


def model_with_attention() -> keras.Model:
    inputs = keras.Input((5, 8))
    x = keras.layers.TimeDistributed(keras.layers.Dense(8, name="each"), name="time")(inputs)
    x = keras.layers.BatchNormalization()(_Block(name="block")(x))
    x = keras.layers.GRU(6, name="gru")(x)
    return keras.Model(inputs, keras.layers.Dense(3, name="head")(x))


SEQUENCES = np.random.default_rng(0).normal(size=(4, 5, 8)).astype("float32")
INSIDE = [f"block/attention/{name}" for name in ("query", "key", "value", "attention_output")]


@pytest.mark.parametrize("copy", [True, False])
def test_layers_inside_layers_are_rotated_and_folded(copy):
    model = model_with_attention()
    before = model.predict(SEQUENCES, verbose=0)  # a compiled function, which must not stay
    rotated, conversion = orthogonalize_model(
        model, "cayley", rotation_initializer="orthogonal", copy=copy, return_conversion=True
    )
    assert (rotated is model) is not copy
    assert {*conversion.rotated} == {"time/each", *INSIDE, "block/fix", "head"}
    assert conversion.left == {"gru/gru_cell": "GRUCell"}
    assert any(isinstance(layer, layers.OrthogonalDense) for layer in leaves(model)) is not copy
    # sums of up to 8 terms, ten layers deep, in float32
    bound = {"rtol": 0, "atol": 1e-5 * np.abs(before).max()}
    np.testing.assert_allclose(rotated.predict(SEQUENCES, verbose=0), before, **bound)
    shake(rotated)
    after = rotated.predict(SEQUENCES, verbose=0)
    assert np.abs(after - before).max() > 0.1
    folded = fold_model(rotated, copy=copy)
    assert (folded is rotated) is not copy
    assert not [layer for layer in leaves(folded) if hasattr(layer, "fix")]
    np.testing.assert_allclose(folded.predict(SEQUENCES, verbose=0), after, **bound)
    assert [w.shape for w in folded.weights] == [w.shape for w in model_with_attention().weights]


def test_names_paths_and_patterns_choose_layers():
    def chosen(names) -> set[str]:
        arguments = model_with_attention(), "cayley", names
        _, conversion = orthogonalize_model(*arguments, return_conversion=True)
        assert conversion.left == {}
        return {*conversion.rotated}

    assert chosen("query") == {"block/attention/query"}
    assert chosen(["block/fix", "head"]) == {"block/fix", "head"}
    assert chosen("block/attention/*") == {*INSIDE}
    assert chosen("[kq]*y") == {"block/attention/query", "block/attention/key"}


def test_a_name_that_occurs_twice_is_two_layers():
    def part(name: str) -> keras.Model:
        inputs = keras.Input((6,))
        return keras.Model(inputs, keras.layers.Dense(4, name="dense")(inputs), name=name)

    inputs = keras.Input((6,))
    model = keras.Model(inputs, keras.layers.Add()([part("a")(inputs), part("b")(inputs)]))
    rotated, conversion = orthogonalize_model(model, return_conversion=True)
    assert conversion.rotated == ("a/dense", "b/dense")
    rotated.compile("sgd", "mse")
    data = np.ones((8, 6)), np.zeros((8, 4))
    history = rotated.fit(*data, verbose=0, callbacks=[EnergyLogger()]).history
    names = ["drift/a/dense", "drift/b/dense", "energy/a/dense", "energy/b/dense", "loss"]
    assert sorted(history) == names


def test_what_is_converted_is_converted_again_without_a_change():
    model = orthogonalize_model(model_with_attention(), rotation_initializer="orthogonal")
    rotations = [layer.rotation.numpy() for layer in leaves(model) if hasattr(layer, "fix")]
    for copy in (True, False):
        again, conversion = orthogonalize_model(model, copy=copy, return_conversion=True)
        assert conversion.rotated == ()
        found = [layer.rotation for layer in leaves(again) if hasattr(layer, "fix")]
        for ours, expected in zip(found, rotations, strict=True):
            np.testing.assert_array_equal(ours, expected)
    folded = fold_model(model)
    outputs_of = [m(SEQUENCES).numpy() for m in (folded, fold_model(folded))]
    np.testing.assert_array_equal(*outputs_of)


def test_a_file_of_layers_inside_layers_of_ones_own(tmp_path):
    """Keras's constructors know of no rotation: a file loads into a converted model only."""
    model = orthogonalize_model(model_with_attention(), rotation_initializer="orthogonal")
    model.save(tmp_path / "model.keras")
    with pytest.raises(ValueError, match=r"expected \d+ variables|weights"):
        keras.saving.load_model(tmp_path / "model.keras", custom_objects={"_Block": _Block})
    again = orthogonalize_model(model_with_attention())
    again.load_weights(tmp_path / "model.keras")
    np.testing.assert_array_equal(again(SEQUENCES), model(SEQUENCES))
    only = orthogonalize_model(model_with_attention(), layer_names=["each", "head"])
    only.save(tmp_path / "only.keras")  # a wrapper's file has the layer inside
    with keras.saving.custom_object_scope({"_Block": _Block}):
        copy = keras.saving.load_model(tmp_path / "only.keras")
    np.testing.assert_array_equal(copy(SEQUENCES), only(SEQUENCES))


class _Own(keras.Model):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.block = _Block()
        self.dense = keras.layers.Dense(3)

    def build(self, shape):
        self.block.build(shape)
        self.dense.build(shape)

    def call(self, inputs):
        return self.dense(self.block(inputs))


def test_a_subclassed_model_is_converted():
    class Local(_Own):
        pass

    for kind in (_Own, Local):
        model = kind()
        before = model(SEQUENCES).numpy()
        rotated = orthogonalize_model(model)
        assert type(rotated) is kind
        np.testing.assert_array_equal(rotated(SEQUENCES), before)
        np.testing.assert_array_equal(fold_model(rotated)(SEQUENCES), before)
        assert type(model.dense) is keras.layers.Dense


def test_a_model_whose_class_makes_opt_layers_is_folded():
    class Rotated(_Own):
        def __init__(self, **kwargs):
            super().__init__(**kwargs)
            self.dense = layers.OrthogonalDense(3)

    model = Rotated()
    before = model(SEQUENCES)
    for each in (model, orthogonalize_model(model)):  # the second has layers of both origins
        np.testing.assert_array_equal(fold_model(each)(SEQUENCES), before)
    assert type(model.dense) is layers.OrthogonalDense


def test_a_copy_keeps_what_is_frozen():
    model = _Own()
    model(SEQUENCES)
    model.block.attention.trainable = False
    model.block.dense.kernel.trainable = model.dense.bias.trainable = False
    rotated = orthogonalize_model(model)
    names = [w.name for w in model.trainable_weights]
    assert [w.name for w in rotated.trainable_weights] == ["bias", "rotation"]
    for each in (fold_model(rotated), fold_model(rotated, copy=False)):
        assert sorted(w.name for w in each.trainable_weights) == names == ["bias", "kernel"]


def test_a_model_that_cannot_be_copied_is_changed_in_place():
    class Closed(_Own):
        def __init__(self):
            super().__init__()

    class NotBuilt(_Own):
        build = keras.Model.build

    for model, message in ((Closed(), "unexpected keyword"), (NotBuilt(), "is not built")):
        before = model(SEQUENCES).numpy()
        with pytest.raises(ValueError, match=rf"cannot copy .*{message}.*; with copy=False"):
            orthogonalize_model(model)
        assert orthogonalize_model(model, copy=False) is model
        np.testing.assert_array_equal(model(SEQUENCES), before)


# State that is not a weight


def test_state_beside_weights_is_kept(tmp_path):
    words = keras.layers.StringLookup(vocabulary=["a", "b"], output_mode="one_hot", name="lookup")
    scale = keras.layers.Normalization()
    scale.adapt(np.random.default_rng(0).normal(5, 3, (64, 3)))
    inputs = keras.Input((1,), dtype="string")
    x = keras.layers.Lambda(lambda z: tf.square(z) / len(INSIDE))(scale(words(inputs)))
    model = keras.Model(inputs, keras.layers.Dense(2)(x))
    data = tf.constant([["a"], ["b"], ["c"]])
    before = model(data).numpy()
    rotated = orthogonalize_model(model)
    np.testing.assert_array_equal(rotated(data), before)
    np.testing.assert_array_equal(fold_model(rotated)(data), before)
    assert model.layers[3].function.__name__ == "<lambda>"


def test_a_copy_leaves_the_optimizer_where_it_is():
    model = of(keras.layers.Dense(3))
    model.compile("adam", lambda y, p: tf.reduce_mean((y - p) ** 2))
    model.fit(np.ones((8, 4)), np.ones((8, 3)), verbose=0)
    optimizer = model.optimizer
    assert orthogonalize_model(model).optimizer is None
    assert model.compiled
    assert model.optimizer is optimizer


# Fine-tuning


def test_rotations_alone_are_trained_saved_and_loaded(tmp_path):
    model, conversion = orthogonalize_model(
        model_with_attention(), "cayley", rotations_only=True, block_size=3, return_conversion=True
    )
    trained = {purpose_of(weight) for weight in model.trainable_weights}
    assert trained == {ROTATION}
    assert conversion.trained_weights == conversion.added_weights == 5 * (2 * 9 + 4) + 22 + 2 * 9
    shares = f"{conversion.trained_weights:,} of {model.count_params():,} are trained"
    assert shares in str(conversion)
    frozen = [w.numpy() for w in model.non_trainable_weights]
    model.compile(keras.optimizers.Adam(0.1), "mse", jit_compile=False)
    model.fit(SEQUENCES, np.ones((4, 3)), epochs=2, verbose=0)
    for weight, value in zip(model.non_trainable_weights, frozen, strict=True):
        np.testing.assert_array_equal(weight, value)

    path = tmp_path / "rotations.safetensors"
    save_rotations(model, path)
    assert path.stat().st_size < 5 * conversion.trained_weights + 3000
    plain = fold_model(model)
    for layer in leaves(model):
        if hasattr(layer, "fix"):
            for rotation in layer.rotations:
                rotation.assign(np.zeros(rotation.shape))
    load_rotations(model, path)
    for change, message in (
        ({"block_size": 4}, r"/rotation: \(2, 3, 3\) in place of \(2, 4, 4\); .* more"),
        ({"layer_names": "head"}, r"output/rotation: \(2, 3, 3\) in place of nothing; .* more"),
        ({}, r"attention_output//fix: [\d.-]+ in place of [\d.-]+; .* more"),  # other neurons
        ({"orthogonalize": "lowdin"}, "block/attention/key: cayley in place of lowdin and .* more"),
    ):
        arguments = {"orthogonalize": "cayley", "block_size": 3} | change
        with pytest.raises(ValueError, match=rf"is of another model: .*{message}"):
            load_rotations(orthogonalize_model(model_with_attention(), **arguments), path)
    content = path.read_bytes()
    no_number = re.sub(rb'(//fix": ").', rb"\1x", content)
    empty = re.sub(rb"\[\d+, \d+\]", lambda match: b"[]".ljust(len(match[0])), content)
    for damaged in (b"", content[:7], content[:200], content[:-4], b"\xff" * 64, no_number, empty):
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match="is no safetensors file of rotations, or damaged"):
            load_rotations(model, path)
    np.testing.assert_allclose(model(SEQUENCES), plain(SEQUENCES), atol=1e-6)  # unchanged
    for model_of, message in (
        (model_with_attention(), "has no OPT layer"),
        (of(layers.StochasticOrthogonalDense(3)), "more than"),
    ):
        with pytest.raises(ValueError, match=message):
            save_rotations(model_of, path)
    with pytest.raises(ValueError, match=r"must end with \.safetensors"):
        save_rotations(model, tmp_path / "rotations.h5")


def test_others_read_the_file(tmp_path, caplog):
    library = pytest.importorskip("safetensors.numpy")
    model = orthogonalize_model(model_with_attention(), rotation_initializer="orthogonal")
    model.get_layer("head").fix.assign(np.zeros((6, 3)))  # as a last layer may start
    save_rotations(model, tmp_path / "r.safetensors")
    load_rotations(model, tmp_path / "r.safetensors")
    assert "trained, and not saved with the rotations: " in caplog.text
    found = library.load_file(tmp_path / "r.safetensors")
    assert len(found) == 7
    expected = model.get_layer("head").rotation
    np.testing.assert_array_equal(found["head/rotation"], expected)
    library.save_file(found, tmp_path / "theirs.safetensors")
    load_rotations(model, tmp_path / "theirs.safetensors")
