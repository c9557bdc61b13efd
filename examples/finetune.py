"""Fine-tuning four ways: all weights, LoRA, rotations in blocks, and the new head alone.

    python -m examples.finetune

A small transformer learns to tell the digits 0 to 4 apart, from all training images of
scikit-learn's digits. Then it is fine-tuned to the digits 5 to 9, from twenty images of each.
"""

import time
from collections.abc import Callable

import keras
import numpy as np
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from common.convert import fold_model, orthogonalize_model
from common.orthogonal import cayley
from common.private import all_layers

WIDTH, HEADS, BLOCKS = 64, 4, 2


def backbone() -> keras.Model:
    """Returns a transformer that takes an image's eight rows as words, ``[8, 8]`` to ``[64]``."""
    inputs = keras.Input((8, 8))
    x = keras.layers.Dense(WIDTH, name="embedding")(inputs)
    for i in range(BLOCKS):
        attention = keras.layers.MultiHeadAttention(HEADS, WIDTH // HEADS, name=f"attention{i}")
        y = keras.layers.LayerNormalization()(x)
        x = x + attention(y, y)
        y = keras.layers.LayerNormalization()(x)
        y = keras.layers.Dense(2 * WIDTH, "relu", name=f"wide{i}")(y)
        x = x + keras.layers.Dense(WIDTH, name=f"narrow{i}")(y)
    x = keras.layers.Flatten()(keras.layers.LayerNormalization()(x))
    return keras.Model(inputs, keras.layers.Dense(WIDTH, "relu", name="features")(x))


def train(body: keras.Model, x: np.ndarray, y: np.ndarray, epochs: int, rate: float) -> keras.Model:
    """Returns a model of ``body`` and a new head for five classes, trained on ``x`` and ``y``."""
    keras.utils.set_random_seed(0)
    model = keras.Sequential([body, keras.layers.Dense(5, name="head")])
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    # XLA would compile longer than this trains
    model.compile(keras.optimizers.Adam(rate), loss, jit_compile=False)
    model.fit(x, y, epochs=epochs, batch_size=50, verbose=0)
    return model


def lora(body: keras.Model) -> None:
    """Adds Keras's LoRA to all dense layers, and freezes the rest."""
    for layer in all_layers(body):
        if isinstance(layer, keras.layers.Dense | keras.layers.EinsumDense):
            layer.enable_lora(4)
            layer.bias.trainable = False
        elif not all_layers(layer):
            layer.trainable = False


def rotations(body: keras.Model) -> None:
    orthogonalize_model(body, cayley, block_size=8, rotations_only=True, copy=False)


# how the backbone is prepared, and the learning rate
WAYS: dict[str, tuple[Callable[[keras.Model], None], float]] = {
    "all weights": (lambda body: None, 1e-3),
    "LoRA, rank 4": (lora, 3e-3),
    "rotations in blocks of 8": (rotations, 3e-3),
    "the head alone": (lambda body: setattr(body, "trainable", False), 3e-3),
}


def main() -> dict[str, float]:
    keras.config.disable_interactive_logging()  # the report of a conversion goes to the log
    keras.utils.set_random_seed(0)
    digits = load_digits()
    split = train_test_split(digits.images / 16, digits.target, test_size=0.3, random_state=0)
    train_x, test_x, train_y, test_y = split
    pretrained = backbone()
    low = train_y < 5
    train(pretrained, train_x[low], train_y[low], epochs=20, rate=1e-3)
    weights = pretrained.get_weights()

    few = np.concatenate([np.flatnonzero(train_y == k)[:20] for k in range(5, 10)])
    high = test_y >= 5
    print(f"{'fine-tuned':<28}{'accuracy %':>12}{'weights trained':>18}{'seconds':>10}")
    accuracies = {}
    for name, (prepare, rate) in WAYS.items():
        body = backbone()
        body.set_weights(weights)
        prepare(body)
        start = time.perf_counter()
        model = train(body, train_x[few], train_y[few] - 5, epochs=30, rate=rate)
        seconds = time.perf_counter() - start
        count = sum(int(np.prod(w.shape)) for w in model.trainable_weights)
        plain = fold_model(model, copy=False)  # merges the rotations
        right = plain.predict(test_x[high], verbose=0).argmax(-1) == test_y[high] - 5
        accuracies[name] = float(np.mean(right))
        print(f"{name:<28}{100 * accuracies[name]:>12.1f}{count:>18,}{seconds:>10.1f}", flush=True)
    return accuracies


if __name__ == "__main__":
    main()
