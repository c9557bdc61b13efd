"""Backbones of KerasHub, small, with random weights: rotated in place, trained, merged, saved."""

import keras
import numpy as np
import pytest

from common.convert import fold_model, orthogonalize_model
from common.layers.orthogonal import OrthogonalLayer
from common.marks import ROTATION, purpose_of
from common.private import all_layers
from common.rotations import load_rotations, save_rotations

keras_hub = pytest.importorskip("keras_hub")

SIZES = {"num_layers": 1, "hidden_dim": 16}
TRANSFORMER = {**SIZES, "vocabulary_size": 50, "intermediate_dim": 24, "dropout": 0.0}
IMAGES = {"image_shape": (8, 8, 3), "patch_size": 4, "num_heads": 2, "mlp_dim": 24}
TOKENS = np.random.default_rng(0).integers(0, 50, (4, 8))
WORDS = {"token_ids": TOKENS, "padding_mask": np.array([[1] * 8] * 3 + [[1] * 5 + [0] * 3])}
SEGMENTS = {"segment_ids": np.zeros((4, 8), int)}
PICTURES = np.random.default_rng(0).normal(size=(4, 8, 8, 3)).astype("float32")
GEMMA_HEADS = {"num_query_heads": 2, "num_key_value_heads": 1, "head_dim": 8}
# class, arguments, inputs, layers that are rotated
BACKBONES = {
    "bert": ("BertBackbone", {**TRANSFORMER, "num_heads": 2}, {**WORDS, **SEGMENTS}, 6 + 1),
    "gpt2": ("GPT2Backbone", {**TRANSFORMER, "num_heads": 2}, WORDS, 6),
    "gemma": ("GemmaBackbone", {**TRANSFORMER, **GEMMA_HEADS}, WORDS, 7),
    "vit": ("ViTBackbone", {**SIZES, **IMAGES}, PICTURES, 6 + 1),
}


def made(name: str) -> tuple[keras.Model, object]:
    keras.utils.set_random_seed(0)
    kind, arguments, inputs, _ = BACKBONES[name]
    return getattr(keras_hub.models, kind)(**arguments), inputs


def outputs(backbone: keras.Model, inputs: object) -> np.ndarray:
    found = backbone(inputs, training=False)
    return (found["sequence_output"] if isinstance(found, dict) else found).numpy()


@pytest.mark.parametrize(
    "name", [n if n == "gemma" else pytest.param(n, marks=pytest.mark.slow) for n in BACKBONES]
)
def test_a_backbone_is_fine_tuned_by_rotations(name, tmp_path):
    backbone, inputs = made(name)
    before = outputs(backbone, inputs)
    plain = {path: type(layer) for path, layer in enumerate(all_layers(backbone))}
    same, conversion = orthogonalize_model(
        backbone, "cayley", block_size=8, rotations_only=True, copy=False, return_conversion=True
    )
    assert same is backbone
    assert len(conversion.rotated) == BACKBONES[name][3]
    np.testing.assert_array_equal(outputs(backbone, inputs), before)
    assert {purpose_of(w) for w in backbone.trainable_weights} == {ROTATION}
    assert conversion.trained_weights == conversion.added_weights

    features = backbone.output["sequence_output"] if name == "bert" else backbone.output
    scores = keras.layers.Dense(2)(keras.layers.GlobalAveragePooling1D()(features))
    model = keras.Model(backbone.input, scores)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(1e-2), loss, jit_compile=name == "vit")
    losses = model.fit(inputs, np.arange(4) % 2, epochs=4, verbose=0).history["loss"]
    assert losses[-1] < losses[0]
    after = outputs(backbone, inputs)
    assert np.abs(after - before).max() > 1e-3

    save_rotations(backbone, tmp_path / "r.safetensors")
    other, _ = made(name)
    np.testing.assert_array_equal(outputs(other, inputs), before)
    orthogonalize_model(other, "cayley", block_size=8, copy=False)
    load_rotations(other, tmp_path / "r.safetensors")
    np.testing.assert_array_equal(outputs(other, inputs), after)

    folded = fold_model(backbone)
    assert not any(isinstance(layer, OrthogonalLayer) for layer in all_layers(folded))
    # another sum for each kernel, in float32, some ten layers deep
    tolerance = {"rtol": 0, "atol": 1e-5 * np.abs(after).max()}
    np.testing.assert_allclose(outputs(folded, inputs), after, **tolerance)
    assert fold_model(backbone, copy=False) is backbone
    assert {path: type(layer) for path, layer in enumerate(all_layers(backbone))} == plain
    np.testing.assert_array_equal(outputs(backbone, inputs), outputs(folded, inputs))
    backbone.save(tmp_path / "backbone.keras")
    loaded = keras.saving.load_model(tmp_path / "backbone.keras")
    np.testing.assert_array_equal(outputs(loaded, inputs), outputs(folded, inputs))
