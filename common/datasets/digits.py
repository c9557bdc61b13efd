"""scikit-learn's handwritten digits: real images, no download."""

import numpy as np

from .dataset import Dataset


def load_digits_as_images() -> Dataset:
    """Returns the 1,797 digits of scikit-learn, each pixel drawn as 4x4 pixels.

    Every fifth image is a test image.
    """
    from sklearn.datasets import load_digits

    digits = load_digits()
    small = np.round(digits.images * (255 / 16)).astype(np.uint8)
    images = np.kron(small[..., np.newaxis], np.ones((1, 4, 4, 3), np.uint8))
    labels = digits.target.astype(np.int32)
    test = np.arange(len(labels)) % 5 == 0
    return Dataset(
        title="digits",
        source="scikit-learn",
        train_images=images[~test],
        train_labels=labels[~test],
        test_images=images[test],
        test_labels=labels[test],
        class_names=tuple(map(str, digits.target_names)),
        mirror=False,
    )
