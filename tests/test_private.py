"""Each private API is there and does what it is used for."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from common import private
from common.orthogonal import matmul


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


def test_keras_reads_variables_in_the_dtype_of_the_scope():
    """In mixed precision the kernel is cast as a variable is; without the scope it stays."""
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
    with pytest.raises(ValueError, match="cannot add new elements of state"):
        layer.add_weight(name="more", shape=())
    with private.weights_may_change(layer):
        layer.more = layer.add_weight(name="more", shape=())
        private.move_to_end(layer, layer.kernel)
    assert [weight.name for weight in layer.weights] == ["bias", "more", "kernel"]
    private.remove_weight(layer, "more")
    assert not hasattr(layer, "more")
    assert [weight.name for weight in layer.weights] == ["bias", "kernel"]
    with pytest.raises(ValueError, match="cannot add new elements of state"):
        layer.add_weight(name="more", shape=())
