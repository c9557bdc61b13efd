"""Shapes and numbers of parameters of every backbone, by the formulae."""

import itertools

import keras
import numpy as np
import pytest
import tensorflow as tf

import baseline.architecture
from common import backbones
from common.layers import OrthogonalConv2D, StochasticOrthogonalConv2D
from tests.conftest import ROOT, method_named
from tests.test_new_method import example

# of the paper's methods: the map that rotates their neurons, if one does, and of how many channels
PAPER = {"baseline": (None, 1), "upt": ("identity", 1), "mhe": (None, 1)}
PAPER |= {"opt_gs": ("gram_schmidt", 1), "opt_hr": ("householder", 1), "opt_ls": ("lowdin", 1)}
PAPER |= {"opt_cp": ("cayley", 1), "opt_ogd": ("identity", 1), "opt_or": ("identity", 1)}
PAPER |= {"sopt_gs": ("gram_schmidt", 0.25)}
WIDTHS = {"cnn6": (4, 6, 8, 10), "cnn9": (4, 6, 8, 10)}
WIDTHS |= {"resnet20": (4, 6, 8), "resnet32": (4, 6, 8)}
# every method with the smallest, and the others with the method that has two kinds of layers
PAIRS = [("cnn6", path.parent.name) for path in ROOT.glob("*/architecture.py")]
PAIRS += [(name, "sopt_gs") for name in WIDTHS if name != "cnn6"]


def convolutions(name: str) -> list[tuple[str, int, int, int]]:
    """Returns name, kernel area, input channels and neurons of every layer, by the papers."""
    widths, plain = WIDTHS[name], name.startswith("cnn")
    if plain:
        ends = [str(i) for i in range(int(name[3:]) // 3)]
    else:
        ends = [f"{block}_{i}" for block in range((int(name[6:]) - 2) // 6) for i in (0, 1)]
    stages = enumerate(widths[:3], start=1 if plain else 2)
    found = [(f"conv{stage}_{end}", 9, width) for stage, width in stages for end in ends]
    found = [*found, ("fc6", 16, widths[3])] if plain else [("conv1", 9, widths[0]), *found]
    channels = [3, *(neurons for _, _, neurons in found[:-1])]
    return [(*layer[:2], before, layer[2]) for layer, before in zip(found, channels, strict=True)]


@pytest.mark.parametrize(("name", "method"), PAIRS)
def test_parameters(name, method):
    build = method_named(method).build_model
    model = build(backbones.known()[name], num_classes=7, widths=WIDTHS[name])
    assert model.name == name
    assert model.input_shape == (None, 32, 32, 3)
    assert model.output_shape == (None, 7)
    expected = convolutions(name)
    resnet = name.startswith("resnet")
    assert len(expected) == {"cnn6": 7, "cnn9": 10, "resnet20": 19, "resnet32": 31}[name]
    trained = 7 * expected[-1][3] + (7 if resnet else 0)
    for layer_name, area, channels, neurons in expected:
        n, layer = area * channels, model.get_layer(layer_name)
        trained += 2 * neurons if layer_name != "fc6" else 0  # gamma and beta
        if not isinstance(layer, OrthogonalConv2D):
            assert layer.kernel.shape[2:] == (channels, neurons)
            trained += n * neurons
            continue
        assert layer.fix.shape == (n, neurons)
        rows = n
        if isinstance(layer, StochasticOrthogonalConv2D):
            rows = area * max(1, round(layer.rotated_fraction * channels))
            assert layer.indices.shape == (rows,)
        assert layer.rotation.shape == (rows, rows)
        trained += rows**2
    assert sum(np.prod(v.shape) for v in model.trainable_variables) == trained
    layers = [model.get_layer(layer_name) for layer_name, *_ in expected]
    maps = [getattr(getattr(x, "orthogonalize", None), "__name__", None) for x in layers]
    fractions = [getattr(x, "rotated_fraction", 1) for x in layers]
    if method in PAPER:  # others are free
        orthogonalize, fraction = PAPER[method]
        assert maps == [orthogonalize] * len(layers)
        assert fractions == [1] + [fraction] * (len(layers) - 1)


@pytest.mark.parametrize("name", ["cnn6", "resnet20"])
def test_larger_images(name):
    """The weights are those of 32x32 images; a cnn's scores are the mean over places."""
    keras.utils.set_random_seed(0)
    usual, larger = (
        baseline.architecture.build_model(
            backbones.known()[name], num_classes=3, widths=WIDTHS[name], image_size=size
        )
        for size in (32, 56)
    )
    assert larger.input_shape == (None, 56, 56, 3)
    larger.set_weights(usual.get_weights())
    image = np.random.default_rng(0).integers(0, 256, (1, 56, 56, 3)).astype("float32")
    scores = larger(image).numpy()
    assert scores.shape == (1, 3)
    if name.startswith("cnn"):  # fc6 sees 4 x 4 of 7 x 7 places; the scores are those places' mean
        places = keras.Model(larger.input, larger.get_layer("score").output)(image).numpy()
        assert places.shape == (1, 4, 4, 3)
        np.testing.assert_allclose(scores, places.mean((1, 2)), rtol=1e-5)


def test_a_new_backbone_is_a_file_and_a_line(tmp_path, monkeypatch):
    """CONTRIBUTING.md's example is a network for every method."""
    (tmp_path / "tiny.py").write_text(example("Add a backbone"))
    monkeypatch.setattr(backbones, "__path__", [*backbones.__path__, str(tmp_path)])
    monkeypatch.setattr(backbones, "tiny", backbones.Network("tiny", 1, (16, 32)), raising=False)
    build_model = method_named("sopt_gs").build_model
    model = build_model(backbones.known()["tiny"], num_classes=10)
    found = [layer for layer in model.layers if isinstance(layer, OrthogonalConv2D)]
    assert [layer.filters for layer in found] == [16, 32]
    stochastic = [isinstance(layer, StochasticOrthogonalConv2D) for layer in found]
    assert stochastic == [False, True]  # the first layer is the stem
    assert model.output_shape == (None, 10)


@pytest.mark.parametrize(
    ("backbone", "millions"), [(backbones.resnet20, 0.27), (backbones.resnet32, 0.46)]
)
def test_resnets_have_the_published_numbers_of_parameters(backbone, millions):
    """He et al., table 6: ResNet-20 of 0.27 M parameters, ResNet-32 of 0.46 M, for ten classes."""
    model = baseline.architecture.build_model(backbone, num_classes=10)
    count = sum(np.prod(v.shape) for v in model.trainable_variables)
    assert count / 1e6 == pytest.approx(millions, abs=0.005)


def test_the_forward_pass_of_resnets():
    """He et al., section 4.2. Untrained batch normalization divides by sqrt(1 + epsilon)."""
    widths = WIDTHS["resnet20"]
    model = baseline.architecture.build_model(backbones.resnet20, num_classes=3, widths=widths)
    images = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3)).astype("float32")

    def convolution(x: tf.Tensor, name: str, strides: int = 1) -> tf.Tensor:
        kernel = model.get_layer(name).kernel
        return tf.nn.conv2d(x, kernel, strides, "SAME") / np.sqrt(1.001)

    x = tf.nn.relu(convolution((images - 127.5) / 128, "conv1"))
    for stage, block in itertools.product((2, 3, 4), range(3)):
        name, strides = f"conv{stage}_{block}", 2 if stage > 2 and block == 0 else 1
        y = convolution(tf.nn.relu(convolution(x, f"{name}_0", strides)), f"{name}_1")
        # a shortcut of kind A: every second pixel, and zeros for the new channels
        new = [[0, 0]] * 3 + [[0, y.shape[-1] - x.shape[-1]]]
        x = tf.nn.relu(y + tf.pad(x[:, ::strides, ::strides], new))
    expected = tf.reduce_mean(x, [1, 2]) @ model.get_layer("score").kernel
    scale = np.abs(expected).max()
    # sums of up to 72 terms, 20 layers deep, in float32
    np.testing.assert_allclose(model(images), expected, atol=20 * 72 * 2.0**-23 * scale)
    with tf.GradientTape() as tape:
        total = tf.reduce_sum(model(images, training=True) ** 2)
    gradients = tape.gradient(total, model.trainable_variables)
    assert all(0 < np.abs(gradient).max() < np.inf for gradient in gradients)
