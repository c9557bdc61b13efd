"""The Dataset class: images and labels in memory."""

import dataclasses
import zlib

import numpy as np

from ..errors import UserError


@dataclasses.dataclass(frozen=True)
class Dataset:
    """A data set in memory.

    Attributes:
        title: its usual name.
        source: where they were read.
        train_images, test_images: uint8 ``[count, size, size, 3]``.
        train_labels, test_labels: int32 ``[count]``, from 0 to ``num_classes - 1``.
        class_names: one per class.
        mirror: whether an image may be flipped left-right; a mirrored digit is not a digit.
    """

    title: str
    source: str
    train_images: np.ndarray
    train_labels: np.ndarray
    test_images: np.ndarray
    test_labels: np.ndarray
    class_names: tuple[str, ...]
    mirror: bool = True

    @property
    def num_classes(self) -> int:
        return len(self.class_names)

    def part(self, count: int) -> "Dataset":
        """Returns the data set with ``count`` of its training images, the same number per class.

        The choice depends on the data set alone. A larger part contains a smaller one.

        Raises:
            UserError: if ``count`` is not a multiple of the number of classes, or a class has too
                few images.
        """
        flag, classes = f"--train_images={count}", self.num_classes
        each, rest = divmod(count, classes)
        if rest:
            raise UserError(f"{flag} cannot be shared equally by {classes} classes")
        random, chosen = np.random.default_rng(0), []
        for label, name in enumerate(self.class_names):
            found = np.flatnonzero(self.train_labels == label)
            if len(found) < each:
                has = f"{name!a} has {len(found):,}"
                raise UserError(f"{flag} needs {each:,} images of each class, and {has}")
            chosen.append(random.permutation(found)[:each])
        kept = np.sort(np.concatenate(chosen))
        return dataclasses.replace(
            self, train_images=self.train_images[kept], train_labels=self.train_labels[kept]
        )

    @property
    def identity(self) -> str:
        """Returns title and CRC-32 sum: the same when a run is resumed, and in all of a table."""
        crc = zlib.crc32("\n".join(self.class_names).encode())
        for array in (self.train_images, self.train_labels, self.test_images, self.test_labels):
            crc = zlib.crc32(array.data, crc)
        return f"{self.title} with the sum {crc:08x}"

    def __str__(self) -> str:
        counts = f"{len(self.train_labels):,} training and {len(self.test_labels):,} test images"
        return f"{self.title} from {self.source}: {counts} of {self.num_classes} classes"
