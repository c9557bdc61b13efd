"""Shapes and numbers of parameters of every backbone, by the formulae."""

import importlib
import pathlib
import shutil
import subprocess
import sys

import keras
import numpy as np
import pytest

from common import backbones
from common.backbones.resnet20 import resnet20
from common.backbones.resnet32 import resnet32
from common.layers import OrthogonalConv2D, StochasticOrthogonalConv2D
from common.training.methods import known
from common.training.settings import Settings
from common.training.steps import make_train_step
from tests.test_new_method import example

ROOT = pathlib.Path(__file__).resolve().parents[1]
METHODS = sorted(known())
# of the paper's methods: the map that turns their neurons, if one does, and of how many channels
PAPER = {"baseline": (None, 1), "upt": ("identity", 1), "mhe": (None, 1)}
PAPER |= {"opt_gs": ("gram_schmidt", 1), "opt_hr": ("householder", 1), "opt_ls": ("lowdin", 1)}
PAPER |= {"opt_cp": ("cayley", 1), "opt_ogd": ("identity", 1), "opt_or": ("identity", 1)}
PAPER |= {"sopt_gs": ("gram_schmidt", 0.25)}


def convolutions(name: str, widths: tuple[int, ...]) -> list[tuple[str, int, int, int]]:
    """Returns name, kernel area, input channels and neurons of every layer that a factory makes, as
    the papers have it.
    """
    if name.startswith("cnn"):
        per_stage, found, channels = int(name[3:]) // 3, [], 3
        for stage, width in enumerate(widths[:3], start=1):
            for i in range(per_stage):
                found.append((f"conv{stage}_{i}", 9, channels, width))
                channels = width
        return [*found, ("fc6", 16, channels, widths[3])]
    blocks, found, channels = (int(name[6:]) - 2) // 6, [("conv1", 9, 3, widths[0])], widths[0]
    for stage, width in enumerate(widths, start=2):
        for block in range(blocks):
            found += [
                (f"conv{stage}_{block}_0", 9, channels, width),
                (f"conv{stage}_{block}_1", 9, width, width),
            ]
            channels = width
    return found


def widths_of(name: str) -> tuple[int, ...]:
    return (4, 6, 8, 10) if name.startswith("cnn") else (4, 6, 8)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name", backbones.known())
def test_parameters(name, method):
    widths, classes = widths_of(name), 7
    model = importlib.import_module(f"{method}.architecture").build_model(
        backbones.load(name), num_classes=classes, widths=widths
    )
    assert model.input_shape == (None, 32, 32, 3)
    assert model.output_shape == (None, classes)
    expected = convolutions(name, widths)
    resnet = name.startswith("resnet")
    assert len(expected) == {"cnn6": 7, "cnn9": 10, "resnet20": 19, "resnet32": 31}[name]
    trained = classes * expected[-1][3] + (classes if resnet else 0)
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
    if method in PAPER:  # others turn theirs as they like
        turned, fraction = PAPER[method]
        assert maps == [turned] * len(layers)
        assert fractions == [1] + [fraction] * (len(layers) - 1)


@pytest.mark.parametrize("name", backbones.known())
def test_larger_images(name):
    """The weights are those of 32x32 images; a cnn's scores are the mean over places."""
    keras.utils.set_random_seed(0)
    build = importlib.import_module("baseline.architecture").build_model
    usual, larger = (
        build(backbones.load(name), num_classes=3, widths=widths_of(name), image_size=size)
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


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name", backbones.known())
def test_every_method_trains_every_backbone(name, method):
    """Twelve steps on one batch bring its loss down."""
    keras.utils.set_random_seed(0)
    recipe = importlib.import_module(f"{method}.architecture").METHOD
    model = recipe.build_model(backbones.load(name), num_classes=5, widths=widths_of(name))
    step = make_train_step(
        recipe, model, recipe.make_optimizer(0.01, lambda rate, factor=0.1: rate)
    )
    if recipe.start_episode:
        recipe.start_episode(model, 0, 0)
    random = np.random.default_rng(0)
    batch = random.integers(0, 256, (16, 32, 32, 3)).astype("float32"), random.integers(0, 5, 16)
    losses = [float(step(*batch)["fit"]) for _ in range(12)]
    assert np.isfinite(losses).all()
    assert min(losses[1:]) < losses[0]


def test_the_flags_know_the_backbones():
    assert all(Settings(backbone=name) for name in backbones.known())


def test_a_backbone_is_one_file(tmp_path):
    """CONTRIBUTING.md's example, put into the folder, is a network for the flags, for training and
    for compare.py.
    """
    shutil.copytree(
        ROOT, tmp_path / "copy", ignore=shutil.ignore_patterns(".*", "log", "docs", "tests")
    )
    (tmp_path / "copy/common/backbones/tiny.py").write_text(example("Add a backbone"))
    flags = ["--dataset=digits", "--iterations=2", "--batch_size=16", "--widths=4,6"]
    command = [
        sys.executable,
        "train.py",
        "--backbone=tiny",
        *flags,
        f"--log_dir={tmp_path / 'log'}",
    ]
    subprocess.run(command, cwd=tmp_path / "copy" / "sopt_gs", check=True, capture_output=True)
    model = keras.saving.load_model(tmp_path / "log" / "folded.keras")
    kernels = [layer.filters for layer in model.layers if isinstance(layer, keras.layers.Conv2D)]
    assert kernels == [4, 6]
    assert model.output_shape == (None, 10)
    words = ["compare.py", "--backbone=tiny", "--widths=1,2,3"]
    result = subprocess.run(
        [sys.executable, *words], cwd=tmp_path / "copy", capture_output=True, text=True
    )
    assert "tiny takes 2 numbers" in result.stderr


def test_resnet20_has_the_published_number_of_parameters():
    """He et al., table 6: ResNet-20 of 0.27 M parameters, ResNet-32 of 0.46 M, for ten classes."""
    plain = importlib.import_module("baseline.architecture").build_model
    for backbone, millions in ((resnet20, 0.27), (resnet32, 0.46)):
        model = plain(backbone, num_classes=10)
        assert sum(np.prod(v.shape) for v in model.trainable_variables) / 1e6 == pytest.approx(
            millions, abs=0.005
        )


def test_shortcuts_of_kind_a():
    """Where a stage begins: every second pixel, and zeros for the new channels, after the old
    ones.
    """
    model = importlib.import_module("baseline.architecture").build_model(
        resnet20, num_classes=3, widths=(4, 6, 8)
    )
    add = model.get_layer("conv3_0_add")
    before = model.get_layer("conv2_2_relu").output
    branch, shortcut = keras.Model(model.input, [before, add.input[1]])(
        np.random.default_rng(0).uniform(0, 255, (2, 32, 32, 3))
    )
    np.testing.assert_array_equal(shortcut[..., :4], branch[:, ::2, ::2])
    assert not np.any(shortcut[..., 4:])
    assert shortcut.shape[-1] == 6
