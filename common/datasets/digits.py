"""scikit-learn's handwritten digits: real images, no download."""

import numpy as np

from .dataset import IMAGE, Dataset


def load_digits_as_images() -> Dataset:
    """Returns the 1,797 digits of scikit-learn, each pixel drawn as 4x4 pixels.

    Every fifth image is a test image.
    """
    from sklearn.datasets import load_digits

    digits = load_digits()
    images = np.round(digits.images * (255 / 16)).astype(np.uint8)
    images = np.broadcast_to(
        images.repeat(4, 1).repeat(4, 2)[..., np.newaxis], (len(images), *IMAGE)
    )
    labels = digits.target.astype(np.int32)
    test = np.arange(len(labels)) % 5 == 0
    return Dataset(
        title="digits",
        source="scikit-learn",
        train_images=np.ascontiguousarray(images[~test]),
        train_labels=labels[~test],
        test_images=np.ascontiguousarray(images[test]),
        test_labels=labels[test],
        class_names=tuple(map(str, digits.target_names)),
        mirror=False,
    )
