"""OPT in your own model: two layers rotate fixed neurons, and the rest is ordinary Keras.

    python -m examples.own_model

Trains on scikit-learn's digits with `model.fit`, and folds the result into a plain model. This
takes about half a minute.
"""

import keras
import numpy as np
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from common.convert import fold_model
from common.energy import EnergyLogger
from common.layers import OrthogonalConv2D, OrthogonalDense
from common.orthogonal import cayley, gram_schmidt


def main() -> float:
    keras.utils.set_random_seed(0)
    digits = load_digits()
    images = digits.images[..., np.newaxis].astype("float32") / 16
    train_x, test_x, train_y, test_y = train_test_split(
        images, digits.target, test_size=0.2, random_state=0
    )

    model = keras.Sequential(
        [
            keras.Input((8, 8, 1)),
            OrthogonalConv2D(32, 3, padding="same", orthogonalize=gram_schmidt, activation="relu"),
            keras.layers.MaxPooling2D(),
            keras.layers.Flatten(),
            OrthogonalDense(64, orthogonalize=cayley, activation="relu"),
            keras.layers.Dense(10),
        ]
    )
    model.compile(
        optimizer=keras.optimizers.Adam(1e-2),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    # energy/... stays constant while accuracy rises
    model.fit(train_x, train_y, epochs=8, batch_size=64, verbose=2, callbacks=[EnergyLogger()])

    plain = fold_model(model)  # OPT layers become Conv2D and Dense
    plain.save("digits.keras")
    accuracy = float(np.mean(plain.predict(test_x, verbose=0).argmax(-1) == test_y))
    print(f"test accuracy of the folded model: {100 * accuracy:.1f} %")
    return accuracy


if __name__ == "__main__":
    main()
