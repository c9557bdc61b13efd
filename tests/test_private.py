"""Canaries: each private API is there, and where it is taken away the public way gives the same."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from common import private
from common.layers import OrthogonalDense
from common.orthogonal import gram_schmidt, matmul


def test_xla_tells_that_it_compiles():
    seen = []
    function = lambda x: seen.append(private.is_compiled_by_xla()) or x  # noqa: E731
    tf.function(function, jit_compile=True)(tf.constant(1.0))
    tf.function(function)(tf.constant(1.0))
    assert seen == [True, False]


def test_xla_takes_a_precision():
    """The compiled program asks for the highest precision, which keeps the product out of TF32."""
    product = tf.function(lambda a, b: matmul(a, b), jit_compile=True)
    ones = tf.ones([8, 8])
    program = product.experimental_get_compiler_ir(ones, ones)(stage="hlo")
    assert "operand_precision={highest,highest}" in program


def test_keras_has_a_call_context():
    """A layer that is called twice in one forward pass computes its neurons once, and anew in the
    next.
    """
    layer, calls = OrthogonalDense(3), []
    layer.build((None, 3))
    original = layer.rows_to_rotate
    layer.rows_to_rotate = lambda: calls.append(1) or original()
    inputs = keras.Input((3,))
    model = keras.Model(inputs, layer(layer(inputs)))
    for count in (1, 2):
        calls.clear()
        for _ in range(count):
            model(np.ones((2, 3), "float32"))
        assert len(calls) == count


def test_keras_layers_know_their_gradient_checkpointing():
    with keras.RematScope(mode="full"):
        layer = OrthogonalDense(3)
    assert layer._remat_mode is not None
    assert OrthogonalDense(3)._remat_mode is None


def test_keras_finds_the_layers_of_wrappers():
    inner = keras.layers.Dense(2)
    model = keras.Sequential([keras.Input((4, 3)), keras.layers.TimeDistributed(inner)])
    assert any(layer is inner for layer in private.all_layers(model))


GONE = [{"_enclosing_context": None}, {"xla": None, "xla_data_pb2": None}, {"global_state": None}]


@pytest.mark.parametrize("gone", GONE, ids=lambda names: next(iter(names)))
@pytest.mark.parametrize("jit", [False, True])
def test_without_it_the_result_is_the_same(monkeypatch, gone, jit):
    """A layer called twice, forward and backward, by the public ways alone."""
    random = np.random.default_rng(0)
    layer = OrthogonalDense(6, orthogonalize=gram_schmidt)
    layer.build((None, 6))
    layer.rotation.assign(random.normal(size=(6, 6)))
    inputs = keras.Input((6,))
    model = keras.Model(inputs, layer(layer(inputs)))
    batch = tf.constant(random.normal(size=(4, 6)), tf.float32)

    def results() -> list[np.ndarray]:
        @tf.function(jit_compile=jit)
        def both():
            with tf.GradientTape() as tape:
                outputs = model(batch)
                total = tf.reduce_sum(outputs**2 * [[1.0, 2, 3, 4, 5, 6]])
            return outputs, tape.gradient(total, layer.rotation.value)

        return [value.numpy() for value in both()]

    expected = results()
    for name, value in gone.items():
        monkeypatch.setattr(private, name, value)
    for actual, wanted in zip(results(), expected, strict=True):
        # sums of 6 terms, three products and a factorization deep, in float32
        scale = np.abs(wanted).max()
        np.testing.assert_allclose(actual, wanted, atol=100 * 6 * np.finfo("float32").eps * scale)


def test_without_flatten_layers_those_of_models_are_found(monkeypatch):
    inner = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2, name="deep")])
    model = keras.Sequential([keras.Input((3,)), inner])
    monkeypatch.delattr(keras.layers.Layer, "_flatten_layers")
    assert list(private.layers_by_path(model)) == [inner.name, f"{inner.name}/deep"]


def test_keras_reads_variables_in_the_dtype_of_the_scope():
    """In mixed precision the kernel is cast as a variable's value is; without the scope it stays,
    and Keras computes in the wider dtype.
    """
    seen = []

    class Layer(keras.layers.Layer):
        def call(self, inputs):
            seen.append(private.autocast(tf.ones(3)).dtype)
            return inputs

    Layer(dtype="mixed_bfloat16")(np.ones(3, "float32"))
    Layer()(np.ones(3, "float32"))
    assert seen == [tf.bfloat16, tf.float32]
    assert private.autocast(tf.ones(3)).dtype == tf.float32


def test_weights_are_added_to_and_removed_from_a_layer_that_is_built():
    layer = keras.layers.Dense(3)
    layer.build((None, 2))
    first, bias = layer.kernel, layer.bias
    with pytest.raises(ValueError, match="cannot add new elements of state"):
        layer.add_weight(name="more", shape=())
    with private.weights_may_change(layer):
        layer.more = layer.add_weight(name="more", shape=())
    private.move_to_end(layer, first)
    assert [w is v for w, v in zip(layer.weights, (bias, layer.more, first), strict=True)]
    private.remove_weight(layer, "more")
    assert not hasattr(layer, "more")
    assert len(layer.weights) == 2
    with pytest.raises(ValueError, match="cannot add new elements of state"):
        layer.add_weight(name="more", shape=())
