"""What a data set is."""

import dataclasses
import zlib

import numpy as np

IMAGE = (32, 32, 3)  # the shape of an image


@dataclasses.dataclass(frozen=True)
class Dataset:
    """A data set in memory.

    Attributes:
        title: its usual name.
        source: where it was read from.
        train_images, test_images: uint8 ``[count, size, size, 3]``; size is 32 but for a folder's.
        train_labels, test_labels: int32 ``[count]``, from 0 to ``num_classes - 1``.
        class_names: one per class.
        mirror: whether an image may be flipped left-right; a mirrored digit is not a digit.
        sum_of_rest: a CRC-32 sum of what may change beside the training images; 0 for data sets
            that are published, which do not change.
    """

    title: str
    source: str
    train_images: np.ndarray
    train_labels: np.ndarray
    test_images: np.ndarray
    test_labels: np.ndarray
    class_names: tuple[str, ...]
    mirror: bool = True
    sum_of_rest: int = 0

    @property
    def num_classes(self) -> int:
        return len(self.class_names)

    @property
    def identity(self) -> str:
        """Returns what a run that is resumed must find as it was: title and CRC-32 sum."""
        return (
            f"{self.title} with the sum {zlib.crc32(self.train_images.data, self.sum_of_rest):08x}"
        )

    def __str__(self) -> str:
        counts = f"{len(self.train_labels):,} training and {len(self.test_labels):,} test images"
        return f"{self.title} from {self.source}: {counts} of {self.num_classes} classes"
