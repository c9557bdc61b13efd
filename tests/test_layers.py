import keras
import numpy as np
import pytest
import tensorflow as tf

from common import orthogonal
from common.layers import BatchNormalization, OrthogonalConv2D

CONFIGURATIONS = [
    {"filters": 5, "kernel_size": 3, "padding": "same"},
    {"filters": 4, "kernel_size": (3, 2), "strides": (2, 1), "activation": "relu"},
    {"filters": 6, "kernel_size": (1, 3), "dilation_rate": 2, "padding": "same", "use_bias": False},
    {"filters": 6, "kernel_size": 3, "groups": 2, "bias_initializer": "ones"},
]


@pytest.mark.parametrize("config", CONFIGURATIONS, ids=str)
def test_convolution_is_kerass_with_the_rotated_kernel(config):
    """Same outputs and shapes as Conv2D whose kernel is map(rotation) @ fix, reshaped."""
    inputs = np.random.default_rng(0).normal(size=(2, 9, 8, 4)).astype("float32")
    layer = OrthogonalConv2D(**config)
    outputs = layer(inputs)
    plain = keras.layers.Conv2D(**config)
    plain.build(inputs.shape)
    n = int(np.prod(plain.kernel.shape[:3]))
    assert layer.rotation.shape == (n, n)
    rotation = orthogonal.gram_schmidt(layer.rotation.value).numpy()
    plain.kernel.assign((rotation @ layer.fix.numpy()).reshape(plain.kernel.shape))
    # the two kernels differ by rounding in sums of n terms
    np.testing.assert_allclose(outputs, plain(inputs), atol=10 * n * np.finfo("float32").eps)
    assert layer.compute_output_shape(inputs.shape) == outputs.shape
    assert layer.compute_output_shape((None, None, None, 4)) == plain.compute_output_shape((None, None, None, 4))


def test_only_the_rotation_and_the_bias_are_trained():
    layer = OrthogonalConv2D(4, 3)
    layer.build((None, 8, 8, 2))
    assert [v.name for v in layer.trainable_variables] == ["rotation", "bias"]
    assert [v.name for v in layer.non_trainable_variables] == ["fix"]


def test_initial_neurons_have_variance_two_over_n():
    layer = OrthogonalConv2D(400, 3, kernel_initializer=None)
    layer.build((None, 8, 8, 32))
    n = 288
    # the mean of n * 400 squares of a normal has relative deviation sqrt(2 / (n * 400))
    assert abs(np.mean(np.square(layer.fix)) * n / 2 - 1) < 5 * np.sqrt(2 / (n * 400))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"filters": 0, "kernel_size": 3}, "must be positive"),
        ({"filters": 4, "kernel_size": 0}, "kernel_size"),
        ({"filters": 4, "kernel_size": (3, 3, 3)}, "kernel_size"),
        ({"filters": 4, "kernel_size": 3, "padding": "causal"}, "padding"),
        ({"filters": 4, "kernel_size": 3, "strides": 2, "dilation_rate": 2}, "cannot both exceed 1"),
        ({"filters": 4, "kernel_size": 3, "groups": 3}, "groups"),
        ({"filters": 4, "kernel_size": 3, "orthogonalize": "gram_schmidt"}, "must be a map"),
    ],
)
def test_bad_arguments_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        OrthogonalConv2D(**arguments)


@pytest.mark.parametrize("config", CONFIGURATIONS, ids=str)
def test_config_round_trip(config):
    layer = OrthogonalConv2D(**config, rotation_regularizer=keras.regularizers.L2(1e-4))
    copy = OrthogonalConv2D.from_config(layer.get_config())
    assert copy.get_config() == layer.get_config()
    assert copy.orthogonalize is orthogonal.gram_schmidt


def small_model():
    inputs = keras.Input((8, 8, 3))
    x = OrthogonalConv2D(6, 3, padding="same", use_bias=False)(inputs)
    x = keras.layers.ReLU()(BatchNormalization()(x))
    x = OrthogonalConv2D(4, (3, 2), strides=2)(x)
    return keras.Model(inputs, keras.layers.Dense(3)(keras.layers.Flatten()(x)))


@pytest.mark.parametrize("jit", [False, True])
def test_trains_under_fit_and_survives_a_file(tmp_path, jit):
    """model.fit lowers the loss, the neurons' angles stay as drawn, and the saved model gives the same outputs."""
    keras.utils.set_random_seed(0)
    model = small_model()
    layer = next(v for v in model.layers if isinstance(v, OrthogonalConv2D))
    fix, rotation = layer.fix.numpy(), layer.rotation.numpy()
    images = np.random.default_rng(0).normal(size=(64, 8, 8, 3)).astype("float32")
    labels = (images.mean((1, 2)).argmax(-1)).astype("int32")
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(optimizer="adam", loss=loss, jit_compile=jit)
    history = model.fit(images, labels, epochs=8, batch_size=16, verbose=0).history["loss"]
    assert history[-1] < 0.8 * history[0]
    np.testing.assert_array_equal(layer.fix, fix)
    assert np.abs(layer.rotation - rotation).max() > 1e-3
    neurons = layer.neurons().numpy()
    np.testing.assert_allclose(neurons.T @ neurons, fix.T @ fix, atol=10 * len(fix) * np.finfo("float32").eps)
    model.save(tmp_path / "model.keras")
    copy = keras.saving.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(copy.predict(images, verbose=0), model.predict(images, verbose=0))


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


def test_an_untrained_layer_passes_its_inputs_on():
    batch = batches(1)[0]
    np.testing.assert_allclose(BatchNormalization(epsilon=0.0)(batch, training=False), batch, rtol=1e-6)


@pytest.mark.parametrize("jit", [False, True])
def test_the_fused_kernel_agrees_with_kerass_own_way(jit):
    """Outputs, gradients and averages of the fused path against those of keras.layers.BatchNormalization."""
    batch, weight = tf.constant(batches(1)[0]), tf.constant(batches(2)[1])
    results = []
    for layer in (BatchNormalization(), keras.layers.BatchNormalization(momentum=0.999, moving_variance_initializer="zeros")):
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


def test_batch_normalization_config_round_trip():
    layer = BatchNormalization(debias=False, momentum=0.95)
    copy = BatchNormalization.from_config(layer.get_config())
    assert copy.get_config() == layer.get_config()
    assert (copy.debias, copy.momentum) == (False, 0.95)
