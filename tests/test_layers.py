"""OPT layers against Keras's layers; saving, precision, users' maps; batch normalization."""

import contextlib
import inspect

import keras
import numpy as np
import pytest
import tensorflow as tf

from common import layers, orthogonal
from common.convert import fold_model, orthogonalize_model
from common.energy import EnergyLogger
from common.layers import (
    BatchNormalization,
    OrthogonalConv2D,
    OrthogonalDense,
    StochasticOrthogonalDense,
)
from common.layers.batched import maps_by_xla
from common.rotations import save_rotations

DRAWN = keras.initializers.RandomNormal(stddev=1.0)


def test_arguments_stand_in_kerass_order():
    """Arguments that Keras's layers take by position, ours take in the same place."""
    for ours, theirs in (
        (OrthogonalConv2D, keras.layers.Conv2D),
        (OrthogonalDense, keras.layers.Dense),
        (StochasticOrthogonalDense, keras.layers.Dense),
    ):
        names = list(inspect.signature(theirs.__init__).parameters)[1:-1]  # not self, not kwargs
        found = list(inspect.signature(ours).parameters)
        assert found[: len(names)] == names
        assert {"orthogonalize", "learn_neurons"} <= set(found[len(names) :])
    assert OrthogonalDense(10, "relu").activation is keras.activations.relu
    assert OrthogonalConv2D(4, 3, 2, "same", "channels_last", 1, 1, "relu").strides == (2, 2)


def test_images_may_have_their_channels_first():
    images = np.random.default_rng(0).normal(size=(2, 4, 9, 8)).astype("float32")
    start = {"orthogonalize": orthogonal.identity, "rotation_initializer": "orthogonal"}
    layer = OrthogonalConv2D(6, 3, data_format="channels_first", **start)
    plain = keras.layers.Conv2D(6, 3, data_format="channels_first")
    for each in (layer, plain):
        each.build(images.shape)
    outputs = tf.function(layer, jit_compile=True)(images)  # TensorFlow has it for GPUs and XLA
    plain.kernel.assign(layer.kernel)
    expected = tf.function(plain, jit_compile=True)(images)
    np.testing.assert_allclose(outputs, expected, atol=1e-5)
    last = layer.kernel.numpy().reshape(36, 6)
    np.testing.assert_allclose(last, layer.rotation.numpy() @ layer.fix.numpy(), atol=1e-5)


def test_layers_that_share_an_initializer_draw_rotations_of_their_own():
    initializer = keras.initializers.RandomNormal(stddev=0.2)
    layers = [OrthogonalDense(4, rotation_initializer=initializer) for _ in range(2)]
    for layer in layers:
        layer.build((None, 50))
    first, second = (layer.rotation.numpy() for layer in layers)
    assert np.abs(first - second).max() > 0.1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"orthogonalize": "Cayley"}, r"\(gram_.*lowdin, cayley, identity\), not 'Cayley'"),
        ({"orthogonalize": 3}, "must be a map"),
        ({"kernel_regularizer": "l2"}, "takes no kernel_regularizer; there is `rotation_regul"),
        ({"kernel_constraint": "non_neg"}, "no kernel_constraint"),
    ],
)
def test_bad_arguments_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        OrthogonalConv2D(4, 3, **arguments)


@pytest.mark.slow
def test_xla_compiles_the_maps_of_a_pass_that_it_does_not_compile():
    """One program forward and one backward, with the same value and gradients."""
    model = keras.Sequential(
        [
            keras.Input((5,)),
            OrthogonalDense(5, orthogonalize=orthogonal.cayley),
            OrthogonalDense(4, orthogonalize=orthogonal.cayley),
            OrthogonalDense(4, block_size=3, learn_neurons=True),  # by Gram-Schmidt
        ]
    )
    inputs = tf.constant(np.random.default_rng(0).normal(size=(6, 5)), tf.float32)

    @tf.function
    def step(by_xla: bool) -> list[tf.Tensor]:
        with tf.GradientTape() as tape:
            with maps_by_xla() if by_xla else contextlib.nullcontext():
                outputs = model(inputs)
            total = tf.reduce_sum(outputs**2 * [1.0, 2, 3, 4])
        return [outputs, *tape.gradient(total, model.trainable_variables)]

    for by_xla in (True, False):
        operations = step.get_concrete_function(by_xla).graph.get_operations()
        compiled = [o for o in operations if o.node_def.attr["_XlaMustCompile"].b]
        assert len(compiled) == (2 if by_xla else 0)
    for actual, expected in zip(step(True), step(False), strict=True):
        # sums of 6 terms, three layers deep, in float32
        scale = np.abs(expected).max()
        np.testing.assert_allclose(actual, expected, atol=300 * 6 * 2.0**-23 * scale)


def test_layers_evaluated_together_give_what_each_gives_by_itself():
    """Under XLA all maps of a model are evaluated at once, whatever the layers are in."""

    def dense(orthogonalize, **kwargs):
        return OrthogonalDense(6, orthogonalize=orthogonalize, dtype="float64", **kwargs)

    shared = dense(orthogonal.gram_schmidt, name="shared")
    own = keras.Input((6,), dtype="float64")
    nested = keras.Model(own, shared(dense(orthogonal.cayley)(own)), name="nested")

    class Block(keras.layers.Layer):
        """Its layer is made outside of the scope, and no tape records it."""

        def build(self, shape):
            self.inner = dense(orthogonal.gram_schmidt)
            self.inner.build(shape)

        def call(self, x):
            return self.inner(x)

    with keras.RematScope(mode="full"):
        block, checkpointed = Block(dtype="float64"), dense(orthogonal.gram_schmidt)
    inputs = keras.Input((6,), dtype="float64")
    x = checkpointed(shared(nested(block(inputs))))
    for other in (dense(orthogonal.gram_schmidt), dense(orthogonal.lowdin, block_size=3)):
        x = other(x)
    model = keras.Model(inputs, x)
    batch = tf.constant(np.random.default_rng(0).normal(size=(4, 6)))

    def step() -> list[tf.Tensor]:
        with tf.GradientTape() as tape:
            outputs = model(batch, training=True)
            total = tf.reduce_sum(outputs**2 * [1.0, 2, 3, 4, 5, 6])
        return [outputs, *tape.gradient(total, model.trainable_variables)]

    together = tf.function(step, jit_compile=True)()
    assert len(together) == 1 + len(model.trainable_variables)
    for actual, expected in zip(together, step(), strict=True):
        # sums of 6 terms, seven layers deep, in float64; the maps have conditions of some 100
        scale = np.abs(expected).max()
        np.testing.assert_allclose(actual, expected, atol=100 * 6 * 7 * 2.0**-52 * scale)


def sequential(orthogonalize, **kwargs) -> keras.Sequential:
    kwargs["orthogonalize"] = orthogonalize
    convolution = OrthogonalConv2D(6, 3, strides=2, activation="relu", **kwargs)
    others = keras.layers.Flatten(), OrthogonalDense(3, **kwargs)
    return keras.Sequential([keras.Input((8, 8, 3)), convolution, *others])


def learnable(count: int = 64) -> tuple[np.ndarray, np.ndarray]:
    """Returns pictures and which of their colours is strongest."""
    images = np.random.default_rng(0).normal(size=(count, 8, 8, 3)).astype("float32")
    images += np.random.default_rng(1).normal(size=(count, 1, 1, 3))
    return images, images.mean((1, 2)).argmax(-1)


LOSS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)


@pytest.mark.parametrize("jit", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_trains_under_fit_and_survives_a_file(tmp_path, jit):
    """The loss falls, every rotation is trained, the neurons' angles stay as drawn."""
    keras.utils.set_random_seed(0)
    inputs = keras.Input((8, 8, 3))
    x = OrthogonalConv2D(6, 3, padding="same", use_bias=False)(inputs)
    x = keras.layers.ReLU()(BatchNormalization()(x))
    x = OrthogonalConv2D(4, (3, 2), strides=2, block_size=10)(x)
    x = keras.layers.Flatten()(x)
    dense = OrthogonalDense(3, block_size=24, orthogonalize=orthogonal.cayley, name="dense")
    model = keras.Model(inputs, dense(x))
    rotated = [layer for layer in model.layers if hasattr(layer, "fix")]
    assert [len(layer.rotations) for layer in rotated] == [1, 2, 1]
    starts = [v.numpy() for v in model.trainable_variables]
    fixes = [layer.fix.numpy() for layer in rotated]
    images, labels = learnable()
    model.compile("adam", LOSS, jit_compile=jit)
    history = model.fit(images, labels, epochs=8, batch_size=16, verbose=0).history["loss"]
    assert history[-1] < 0.8 * history[0]
    for start, variable in zip(starts, model.trainable_variables, strict=True):
        assert np.abs(variable - start).max() > 1e-3, variable.path
    for layer, fix in zip(rotated, fixes, strict=True):
        np.testing.assert_array_equal(layer.fix, fix)
        neurons = layer.neurons().numpy()
        bound = 10 * len(fix) * np.finfo("float32").eps * np.abs(fix.T @ fix).max()
        np.testing.assert_allclose(neurons.T @ neurons, fix.T @ fix, atol=bound)
    model.save(tmp_path / "model.keras")
    copy = keras.saving.load_model(tmp_path / "model.keras")
    assert copy.get_layer("dense").block_size == 24
    np.testing.assert_array_equal(copy.predict(images, verbose=0), model.predict(images, verbose=0))


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16", "bfloat16"])
def test_low_precision_leaves_the_map_in_float32(policy):
    keras.utils.set_random_seed(0)
    model = sequential(orthogonal.cayley, dtype=policy)
    images, labels = learnable()
    model.compile("adam", LOSS, jit_compile=False)
    model.fit(images, labels, epochs=2, batch_size=16, verbose=0)
    for layer in model.layers:
        if hasattr(layer, "fix"):
            assert layer.fix.dtype == layer.rotation.dtype == layer.neurons().dtype == "float32"
            gram = layer.fix.numpy().T @ layer.fix.numpy()
            neurons = layer.neurons().numpy()
            bound = 10 * len(neurons) * np.finfo("float32").eps
            np.testing.assert_allclose(neurons.T @ neurons, gram, atol=bound)
    assert model(images).dtype == policy.removeprefix("mixed_")


def test_a_layer_that_is_never_called_is_left_out(tmp_path):
    class Model(keras.Model):
        def __init__(self):
            super().__init__()
            self.used, self.other = (OrthogonalDense(3, name=name) for name in ("used", "other"))

        def call(self, x):
            return self.used(x)

    model = Model()
    model.compile("sgd", "mse", jit_compile=False)
    data = np.ones((4, 5)), np.ones((4, 3))
    history = model.fit(*data, verbose=0, callbacks=[EnergyLogger()]).history
    assert set(history) == {"loss", "energy/used", "drift/used"}
    save_rotations(model, tmp_path / "rotations.safetensors")
    with pytest.raises(ValueError, match="other is not built"):
        fold_model(model, copy=False)


def shared_twice(orthogonalize) -> keras.Model:
    inputs = keras.Input((6,))
    layer = OrthogonalDense(6, orthogonalize=orthogonalize)
    return keras.Model(inputs, layer(keras.layers.ReLU()(layer(inputs))))


@pytest.mark.parametrize("jit", [None, False, True], ids=["eager", "graph", "jit"])
def test_a_layer_called_twice_evaluates_its_map_once_a_forward_pass(jit):
    traced = []
    model = shared_twice(lambda w: traced.append(w) or orthogonal.gram_schmidt(w))
    run = model if jit is None else tf.function(model, jit_compile=jit)
    inputs = np.random.default_rng(0).normal(size=(4, 6)).astype("float32")
    traced.clear()
    first = run(inputs).numpy()
    assert len(traced) == 1
    # and the next pass sees what has been trained since
    layer = model.layers[1]
    layer.rotation.assign(-layer.rotation)
    assert np.abs(run(inputs).numpy() - first).max() > 0.1
    expected = np.maximum(inputs @ layer.kernel.numpy(), 0) @ layer.kernel.numpy()
    np.testing.assert_allclose(run(inputs), expected, atol=1e-5)


def test_a_stateless_call_takes_the_weights_that_it_is_given():
    layer = OrthogonalDense(3)
    layer.build((None, 4))

    class Both(keras.layers.Layer):
        def call(self, x, one, other):
            fix = [layer.fix.value]
            return [layer.stateless_call([r, layer.bias.value], fix, x)[0] for r in (one, other)]

    rotations = tf.eye(4), tf.eye(4)[::-1]
    for output, rotation in zip(Both()(np.eye(4), *rotations), rotations, strict=True):
        np.testing.assert_allclose(output, rotation @ layer.fix.value, atol=1e-6)


def test_gradients_of_a_layer_called_twice():
    """Against the formula, also where a pass without a tape came before."""
    inputs = np.random.default_rng(0).normal(size=(4, 6)).astype("float32")
    model = shared_twice(lambda w: orthogonal.gram_schmidt(w))
    layer = model.layers[1]

    @tf.function
    def run():
        model(inputs)
        with tf.GradientTape() as tape:
            total = tf.reduce_sum(model(inputs) ** 2)
        with tf.GradientTape() as plain:
            kernel = orthogonal.gram_schmidt(layer.rotation.value) @ layer.fix.value
            expected = tf.reduce_sum((tf.nn.relu(inputs @ kernel) @ kernel) ** 2)
        totals = (tape, total), (plain, expected)
        return [tape.gradient(total, layer.rotation.value) for tape, total in totals]

    actual, expected = run()
    np.testing.assert_allclose(actual, expected, atol=1e-4 * np.abs(expected).max())


def test_a_folded_evaluation_of_many_batches_evaluates_the_map_once_in_all():
    """Counted while the graph runs, not while it is traced."""
    evaluations = tf.Variable(0)

    def counted(w):
        evaluations.assign_add(1)
        return orthogonal.gram_schmidt(w)

    model = shared_twice(counted)
    inputs = np.random.default_rng(0).normal(size=(64, 6)).astype("float32")
    evaluations.assign(0)
    expected = model.predict(inputs, batch_size=8, verbose=0)
    assert int(evaluations) == 8
    evaluations.assign(0)
    folded = fold_model(model).predict(inputs, batch_size=8, verbose=0)
    np.testing.assert_allclose(folded, expected, atol=1e-5)
    assert int(evaluations) == 1


@keras.saving.register_keras_serializable(package="tests")
class Reflected:
    """A map with a setting: Gram-Schmidt, or its negative."""

    def __init__(self, sign: int):
        self.sign = sign

    def __call__(self, w: tf.Tensor) -> tf.Tensor:
        return self.sign * orthogonal.gram_schmidt(w)

    def get_config(self) -> dict:
        return {"sign": self.sign}

    @classmethod
    def from_config(cls, config: dict) -> "Reflected":
        return cls(**config)


def test_a_map_with_settings_is_saved(tmp_path):
    model = keras.Sequential([keras.Input((4,)), OrthogonalDense(3, orthogonalize=Reflected(-1))])
    model.save(tmp_path / "model.keras")
    copy = keras.saving.load_model(tmp_path / "model.keras")
    assert copy.layers[0].orthogonalize.sign == -1
    images = np.random.default_rng(0).normal(size=(2, 4)).astype("float32")
    np.testing.assert_array_equal(copy(images), model(images))


def test_a_map_by_its_name(tmp_path):
    """It is the map itself from then on, in files too."""
    names = ["gram_schmidt", "householder", "lowdin", "cayley", "identity"]
    model = keras.Sequential([keras.Input((5, 5, 1))])
    for name in names:
        model.add(OrthogonalConv2D(2, 1, orthogonalize=name))
        model.add(StochasticOrthogonalDense(2, orthogonalize=name))
    model.save(tmp_path / "model.keras")
    plain = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])
    rotated = [orthogonalize_model(plain, name).layers[0] for name in names]
    for copy in (model, keras.saving.load_model(tmp_path / "model.keras")):
        found = [layer.orthogonalize for layer in copy.layers]
        assert found[::2] == found[1::2] == [layer.orthogonalize for layer in rotated]
        assert found[::2] == [getattr(orthogonal, name) for name in names]


def test_a_map_that_is_not_registered_is_refused_when_saving(tmp_path):
    """Not when the file is loaded, by somebody else, later."""
    model = sequential(lambda w: orthogonal.gram_schmidt(w))
    with pytest.raises(ValueError, match="cannot be saved: its map <lambda> is not registered"):
        model.save(tmp_path / "model.keras")


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (lambda w: 2 * orthogonal.gram_schmidt(w), r"not orthogonal: .* is 3; check_map=False"),
        (lambda w: w[:, :2], r"takes \(8, 8\) to \(8, 2\)"),
        (lambda w: w * np.nan, "not orthogonal: .* is nan"),
    ],
)
def test_a_map_that_is_none_is_an_error_at_build(wrong, message):
    with pytest.raises(ValueError, match=message):
        OrthogonalDense(3, orthogonalize=wrong).build((None, 20))
    OrthogonalDense(3, orthogonalize=wrong, check_map=False).build((None, 20))
    # and where a graph is being traced
    layer = OrthogonalConv2D(3, 3, orthogonalize=wrong)
    with pytest.raises(ValueError, match=message):
        tf.function(lambda x: layer(x))(tf.ones([1, 5, 5, 4]))


def test_neurons_without_entries_are_refused():
    summed = layers.OrthogonalEinsumDense("ab,b->ab", 3)
    for layer, shape in ((OrthogonalDense(3), (2, 0)), (summed, (2, 3))):
        with pytest.raises(ValueError, match="has neurons without entries"):
            layer.build(shape)


def test_energy_and_drift_in_the_logs(tmp_path):
    """Of each layer, and their means."""
    model = sequential(orthogonal.gram_schmidt)
    muon = keras.optimizers.Muon(0.02, exclude_layers=["dense"])  # it factorizes matrices itself
    model.compile(muon, LOSS, jit_compile=False)
    callbacks = [EnergyLogger(per_layer=False), EnergyLogger()]
    callbacks += [keras.callbacks.CSVLogger(str(tmp_path / "log.csv"))]
    history = model.fit(*learnable(), 16, epochs=3, verbose=0, callbacks=callbacks).history
    names = [layer.name for layer in model.layers if hasattr(layer, "fix")]
    assert len(names) == 2
    for name in names:
        energies, drifts = np.array(history[f"energy/{name}"]), history[f"drift/{name}"]
        assert np.abs(energies / energies[0] - 1).max() < 1e-4
        assert max(drifts) < 10 * 54 * np.finfo("float32").eps
        assert f"energy/{name}" in (tmp_path / "log.csv").read_text()
    for figure in ("energy", "drift"):
        each = [history[f"{figure}/{name}"] for name in names]
        np.testing.assert_allclose(history[f"{figure}/mean"], np.mean(each, axis=0), rtol=1e-12)
    logger, logs = EnergyLogger(per_layer=False), {}
    logger.set_model(keras.Sequential([keras.Input((8, 8, 3)), keras.layers.Flatten()]))
    logger.on_epoch_end(0, logs)  # no layer, so no mean
    assert logs == {}


# Batch normalization


def batches(steps: int, shape=(16, 5, 5, 3)) -> np.ndarray:
    return np.random.default_rng(1).normal(2.0, 3.0, (steps, *shape)).astype("float32")


def test_averages_start_at_zero_and_are_debiased_at_inference():
    layer, raw = BatchNormalization(momentum=0.9), BatchNormalization(momentum=0.9, debias=False)
    mean = variance = np.zeros(3)
    for batch in batches(7):
        layer(batch, training=True)
        raw(batch, training=True)
        mean = 0.9 * mean + 0.1 * batch.mean((0, 1, 2))
        variance = 0.9 * variance + 0.1 * batch.var((0, 1, 2))  # NumPy's is the biased variance
    weight = 1 - 0.9**7
    for which, divisor in ((layer, weight), (raw, 1.0)):
        # float32 sums of 400 values
        np.testing.assert_allclose(which.moving_mean, mean, rtol=1e-5)
        np.testing.assert_allclose(which.moving_variance, variance, rtol=1e-5)
        expected = (batch - mean / divisor) / np.sqrt(variance / divisor + 1e-3)
        np.testing.assert_allclose(which(batch, training=False), expected, atol=1e-4)


@pytest.mark.parametrize("jit", [False, True])
def test_the_fused_kernel_agrees_with_kerass_own_way(jit):
    """Outputs, gradients and averages, against keras.layers.BatchNormalization."""
    batch, weight = tf.constant(batches(1)[0]), tf.constant(batches(2)[1])
    results = []
    for layer in (
        BatchNormalization(),
        keras.layers.BatchNormalization(momentum=0.999, moving_variance_initializer="zeros"),
    ):
        layer.build(batch.shape)
        layer.gamma.assign([0.5, 1.0, 2.0])

        @tf.function(jit_compile=jit)
        def run(layer=layer):
            with tf.GradientTape() as tape:
                tape.watch(batch)
                outputs = layer(batch, training=True)
                total = tf.reduce_sum(outputs * weight)
            return outputs, *tape.gradient(total, [batch, layer.gamma.value, layer.beta.value])

        results.append([*run(), layer.moving_mean.numpy(), layer.moving_variance.numpy()])
    for ours, keras_own in zip(*results, strict=True):
        scale = max(1.0, np.abs(keras_own).max())
        # sums of 400 float32 values in another order
        np.testing.assert_allclose(ours, keras_own, atol=400 * np.finfo("float32").eps * scale)


# Kinds


SIX = {"filters": 6, "kernel_size": 3}
EINSUM, HEADS = {"output_shape": (None, 6), "bias_axes": "e"}, {"output_shape": (None, 3, 6)}


@pytest.mark.parametrize(
    ("name", "shape", "arguments", "n"),
    [
        ("Dense", (6, 5), {"units": 7, "activation": "tanh"}, 5),
        ("Dense", (3, 4, 5), {"units": 7}, 5),
        ("Conv2D", (2, 9, 8, 4), {**SIX, "padding": "same"}, 36),
        ("Conv2D", (2, 9, 8, 4), {**SIX, "kernel_size": (3, 2), "strides": (2, 1)}, 24),
        ("Conv2D", (2, 9, 8, 4), {**SIX, "kernel_size": (1, 3), "dilation_rate": 2}, 12),
        ("Conv2D", (2, 9, 8, 4), {**SIX, "groups": 2, "activation": "relu"}, 18),
        ("Conv1D", (2, 7, 4), {**SIX, "padding": "causal"}, 12),
        ("Conv3D", (2, 4, 3, 4, 2), {"filters": 3, "kernel_size": (1, 2, 3)}, 12),
        ("EinsumDense", (2, 5, 3, 4), {**EINSUM, "equation": "abcd,ecd->abe"}, 12),
        ("EinsumDense", (2, 5, 3, 4), {**HEADS, "equation": "abcd,cde->abce"}, 4),
    ],
)
def test_every_kind_is_kerass_layer_with_neurons_rotated(name, shape, arguments, n):
    """Each neuron is rotated by one matrix: it has the entries that a sum runs over."""
    inputs = np.random.default_rng(0).normal(size=shape).astype("float32")
    kind, plain = getattr(layers, f"Orthogonal{name}"), getattr(keras.layers, name)
    layer = kind(**arguments, rotation_initializer=DRAWN, bias_initializer="ones")
    outputs = layer(inputs)
    assert layer.rotation.shape == (n, n)
    other = plain(**arguments, bias_initializer="ones")
    other.build(shape)
    assert layer.compute_output_shape(shape) == other.compute_output_shape(shape)
    other.kernel.assign(layer.kernel)
    np.testing.assert_allclose(outputs, other(inputs), atol=1e-5)
    q = orthogonal.gram_schmidt(layer.rotation.value).numpy()
    kernel, equation = layer.kernel.numpy(), arguments.get("equation")
    if equation:
        kernel = np.einsum({"ecd": "ecd->cde", "cde": "cde->dce"}[equation[5:8]], kernel)
    np.testing.assert_allclose(kernel.reshape(n, -1), q @ layer.fix.numpy(), atol=1e-5)


def test_what_is_for_plain_layers_is_refused():
    layer = OrthogonalDense(3)
    layer.build((None, 4))
    for refused in (
        lambda: layer.quantize("int8"),
        lambda: layer.enable_lora(2),
        lambda: OrthogonalDense(3, lora_rank=2).build((None, 4)),
        lambda: OrthogonalDense(3, dtype="int8_from_float32").build((None, 4)),
    ):
        with pytest.raises(NotImplementedError, match="fold the model with `fold_model`"):
            refused()
    model = keras.Sequential([keras.Input((4,)), OrthogonalDense(3)])
    fold_model(model, copy=False)
    model.quantize("int8")
    assert model.layers[0].quantization_mode == "int8"
