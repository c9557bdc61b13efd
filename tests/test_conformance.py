"""Keras's own conformance test of layers, on each public layer with each map.

It serializes the layer, builds it, calls it on symbolic and on real inputs, trains it one step in
a compiled model, and calls it in mixed precision.
"""

import itertools

import keras
import pytest
from keras.src.testing import TestCase

from common import layers, orthogonal
from common.optimizers import OGD, Momentum
from common.regularizers import HypersphericalEnergy, OrthogonalityPenalty

# a generator of the test's own data, which is not to be shuffled
pytestmark = pytest.mark.filterwarnings("ignore:`shuffle=True` was passed:UserWarning")

CONVOLUTION = {"filters": 4, "kernel_size": 2}
EINSUM = {"equation": "abc,cde->abde", "output_shape": (4, 2, 3), "bias_axes": "de"}
OF_TWO_AXES = {"equation": "abcd,ecd->abe", "output_shape": (4, 3), "bias_axes": "e"}
# by layer: arguments, the shapes of inputs and outputs
CASES = {
    "OrthogonalConv1D": [
        (CONVOLUTION, (2, 5, 4), (2, 4, 4)),
        ({**CONVOLUTION, "padding": "causal", "dilation_rate": 2}, (2, 5, 4), (2, 5, 4)),
    ],
    "OrthogonalConv2D": [
        (CONVOLUTION, (2, 4, 5, 4), (2, 3, 4, 4)),
        ({**CONVOLUTION, "padding": "same", "strides": 2}, (2, 4, 5, 4), (2, 2, 3, 4)),
        ({**CONVOLUTION, "groups": 2, "dilation_rate": (1, 2)}, (2, 4, 5, 4), (2, 3, 3, 4)),
    ],
    "OrthogonalConv3D": [(CONVOLUTION, (2, 3, 4, 3, 2), (2, 2, 3, 2, 4))],
    "OrthogonalDense": [({"units": 3}, (2, 8), (2, 3)), ({"units": 3}, (2, 4, 8), (2, 4, 3))],
    "OrthogonalEinsumDense": [
        (EINSUM, (2, 4, 8), (2, 4, 2, 3)),
        (OF_TWO_AXES, (2, 4, 2, 3), (2, 4, 3)),
    ],
}
CASES |= {f"Stochastic{name}": cases for name, cases in CASES.items()}


def test_no_public_layer_is_left_out(opt_keras):
    public = vars(opt_keras).items()
    kinds = {name for name, x in public if isinstance(x, type) and issubclass(x, keras.Layer)}
    assert kinds == {*CASES, "BatchNormalization"}
    assert {kind.__name__ for kind in layers.ROTATED.values()} == {c for c in CASES if c[0] == "O"}
    maps = {n for n, x in public if callable(x) and x is getattr(orthogonal, n, None)} - {"product"}
    assert {own.__name__ for own in orthogonal.ALL} == maps


def cases() -> list:
    """Returns layer, map, number of the case; not slow are the first map and some of Dense."""
    found = []
    for name, own in itertools.product(CASES, orthogonal.ALL):
        for i in range(len(CASES[name])):
            quick = own is orthogonal.gram_schmidt or (name == "OrthogonalDense" and i == 0)
            marks = () if quick else pytest.mark.slow
            found.append(pytest.param(name, own, i, marks=marks, id=f"{name}-{own.__name__}-{i}"))
    return found


@pytest.mark.parametrize(("name", "own", "case"), cases())
def test_layers_with_each_map(name, own, case):
    arguments, inputs, outputs = CASES[name][case]
    options = {"activation": "relu", "rotation_regularizer": "l2", "bias_regularizer": "l1"}
    if "Einsum" not in name:
        options["activity_regularizer"] = "l2"
    options = options if case else {}
    stochastic = name.startswith("Stochastic")
    TestCase().run_layer_test(
        getattr(layers, name),
        init_kwargs={**arguments, "orthogonalize": own, **options},
        input_shape=inputs,
        expected_output_shape=outputs,
        expected_output_dtype="float32",
        expected_num_trainable_weights=2,  # rotation and bias
        expected_num_non_trainable_weights=1 + stochastic,  # fix, and the rows' indices
        expected_num_seed_generators=0,
        expected_num_losses=len(options) - 1 if case else 0,
        supports_masking=name.endswith("lDense"),  # as Keras's layers
    )


def test_batch_normalization():
    """Fused and not, centred and scaled or not, in training and at inference."""
    images = (2, 4, 4, 3)
    for arguments, shape, training in (
        ({}, images, True),
        ({"debias": False, "momentum": 0.9}, images, False),
        ({"beta_regularizer": "l2", "gamma_regularizer": "l2"}, images[:2], True),
        ({"center": False, "scale": False, "axis": 1}, images, True),
    ):
        regularized = "beta_regularizer" in arguments
        TestCase().run_layer_test(
            layers.BatchNormalization,
            init_kwargs=arguments,
            input_shape=shape,
            call_kwargs={"training": training},
            expected_output_shape=shape,
            expected_num_trainable_weights=0 if "axis" in arguments else 2,
            expected_num_non_trainable_weights=3,  # two averages, and the start's weight in them
            expected_num_seed_generators=0,
            expected_num_losses=2 * regularized,
            supports_masking=True,
        )


@pytest.mark.parametrize(
    ("layer", "option", "penalty"),
    [
        (keras.layers.Dense, "kernel_regularizer", HypersphericalEnergy),
        (layers.OrthogonalDense, "rotation_regularizer", OrthogonalityPenalty),
    ],
)
def test_penalties_in_layers(layer, option, penalty):
    TestCase().run_layer_test(
        layer,
        init_kwargs={"units": 3, option: penalty(0.5)},
        input_shape=(2, 4),
        expected_output_shape=(2, 3),
        expected_num_losses=1,
    )


def test_a_penalty_of_rotations_refuses_a_kernel():
    layer = keras.layers.Dense(3, kernel_regularizer=OrthogonalityPenalty())
    layer.build((None, 4))
    with pytest.raises(ValueError, match=r"square matrix, not of shape \(4, 3\)"):
        _ = layer.losses


def test_regularizers_and_optimizers_are_what_their_configuration_says():
    rate = keras.optimizers.schedules.ExponentialDecay(0.1, 10, 0.5)
    for instance in (
        HypersphericalEnergy(2.0, "a1", half_space=False),
        OrthogonalityPenalty(0.3),
        OGD(rate),
        Momentum(rate, momentum=0.8),
    ):
        TestCase().run_class_serialization_test(instance)
