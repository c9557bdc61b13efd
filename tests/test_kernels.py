"""The kernels that XLA makes of a training step, which a GPU starts one after the other."""

import functools

import keras
import pytest
import tensorflow as tf

from benchmarks import kernels, steps
from common.layers import OrthogonalDense
from common.training.steps import make_step
from tests.conftest import method_named

# of CNN-6 with 16 neurons in every layer, whose rotations have 27, 144 and 256 rows; counted with
# TensorFlow 2.21
COUNTS = {
    "baseline": 227,
    "mhe": 376,
    "opt_cp": 563,
    "opt_gs": 825,
    "opt_hr": 1183,
    "opt_ls": 862,
    "opt_ogd": 318,
    "opt_or": 305,
    "sopt_gs": 676,
    "upt": 244,
}


@pytest.mark.slow
@pytest.mark.parametrize("method", COUNTS)
def test_a_step_needs_no_more_kernels_than_a_quarter_above_the_count(method):
    step, batch = steps.prepare(method, [16] * 4, batch=8)
    count = kernels.count(compiled(step), *batch)
    assert count <= 1.25 * COUNTS[method]


def test_a_step_of_one_small_layer_with_gram_schmidt():
    """It stands for the complete steps, which take too long to compile: 68 kernels."""
    model = keras.Sequential([keras.Input((8,)), OrthogonalDense(4)])
    method = method_named("opt_gs")
    step = make_step(method, model, method.make_optimizer(0.1, lambda rate: rate))
    assert kernels.count(compiled(step), tf.zeros((8, 8)), tf.zeros(8, tf.int32)) <= 1.25 * 68


compiled = functools.partial(tf.function, jit_compile=True)
SQUARE = tf.ones((8, 8))


def products(x: tf.Tensor, count: int) -> tf.Tensor:
    for _ in range(count):
        x = tf.matmul(x, SQUARE)
    return x


@pytest.mark.parametrize(("usual", "rare"), [(1, 6), (6, 1)])
def test_of_a_condition_the_first_function_counts(usual, rare):
    """As the program is run: where the condition is true, that is the function that is called."""

    def either(x: tf.Tensor, condition: tf.Tensor) -> tf.Tensor:
        return tf.cond(condition, lambda: products(x, usual), lambda: products(x, rare))

    assert kernels.count(compiled(either), SQUARE, tf.constant(True)) == usual


def test_the_body_of_a_loop_counts_once_per_trip():
    def loop(x: tf.Tensor, trips: int) -> list:
        return tf.while_loop(lambda i, _: i < trips, lambda i, x: (i + 1, products(x, 3)), [0, x])

    counts = [kernels.count(compiled(loop), SQUARE, trips) for trips in (20, 30, 40)]
    assert counts[1] - counts[0] == counts[2] - counts[1] >= 30


def test_what_has_no_known_count_is_refused():
    def loop(x: tf.Tensor) -> tf.Tensor:
        return tf.while_loop(lambda x: tf.reduce_sum(x) > 1, lambda x: [products(x, 1) / 9], [x])

    def choice(x: tf.Tensor, number: tf.Tensor) -> tf.Tensor:
        return tf.switch_case(number, [lambda: x, lambda: products(x, 1), lambda: products(x, 2)])

    with pytest.raises(ValueError, match="a loop of unknown length: while"):
        kernels.count(compiled(loop), SQUARE)
    with pytest.raises(ValueError, match="without true_computation="):
        kernels.count(compiled(choice), SQUARE, tf.constant(1))
    with pytest.raises(ValueError, match="no HLO program"):
        kernels.count_in("")


def test_what_is_free_and_what_is_a_kernel():
    program = """
%inner (p: f32[4]) -> f32[4] {
  ROOT %cosine = f32[4]{0} cosine(%p)
}
%outlined (q: f32[4]) -> f32[4] {
  ROOT %product = f32[4]{0} custom-call(%q, %q), custom_call_target="product"
}
ENTRY %main (a: f32[4]) -> (f32[4], f32[2,2]) {
  %a = f32[4]{0} parameter(0)
  %fused = f32[4]{0} fusion(%a), kind=kLoop, calls=%inner
  %parallel = f32[4]{0} call(%fused), to_apply=%outlined
  %pair = (f32[4]{0}, /*index=1*/f32[4]{0}) tuple(%fused, %parallel)
  %again = f32[4]{0} get-tuple-element(%pair), index=1
  %square = f32[2,2]{1,0} bitcast(%again)
  %copy = f32[4]{0} copy(%a)
  ROOT %results = (f32[4]{0}, f32[2,2]{1,0}) tuple(%copy, %square)
}
"""
    assert kernels.count_in(program) == 3  # fusion, custom-call, copy
