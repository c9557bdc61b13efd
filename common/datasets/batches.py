"""The batches that a run draws from a training set, and their augmentation."""

from collections.abc import Iterator

import numpy as np
import tensorflow as tf


def draws(
    seed: int,
    iteration: int,
    count: int,
    batch_size: int,
    mirror: bool = True,
    episode_length: int | None = None,
) -> Iterator[np.ndarray]:
    """Yields the draws of each batch from the training set, from ``iteration`` on, without end.

    They depend on the arguments alone, so a resumed run sees the same batches. An epoch is
    ``count // batch_size`` batches of one shuffle of ``count`` images; the others are dropped.
    After ``episode_length`` iterations a new shuffle begins, also within an epoch.

    Yields:
        int32 ``[batch_size, 4]``: the image's index, the crop's offset down and across (0 to 8),
        and 1 for a flip, of half of the images with ``mirror``.
    """
    steps = count // batch_size
    while True:
        episode, inside = divmod(iteration, episode_length) if episode_length else (0, iteration)
        epoch, start = divmod(inside, steps)
        random = np.random.default_rng([seed, episode, epoch])
        order = random.permutation(count)[: steps * batch_size]
        offsets = random.integers(0, 9, (2, order.size))
        flips = random.integers(0, 2, order.size) if mirror else np.zeros_like(order)
        drawn = np.stack([order, *offsets, flips], axis=-1, dtype=np.int32)
        left = episode_length - inside if episode_length else steps
        for batch in drawn.reshape(steps, batch_size, 4)[start : start + left]:
            yield batch
            iteration += 1


def augment(images: tf.Tensor, draws: tf.Tensor) -> tf.Tensor:
    """Returns the drawn images: padded by 4 with symmetric reflection, cropped, flipped.

    Args:
        images: uint8 ``[count, size, size, 3]``, all training images.
        draws: int32 ``[batch, 4]``, as :func:`draws` yields them.

    Returns:
        uint8 ``[batch, size, size, 3]``.
    """
    height, width, channels = images.shape[1:]
    index, down, across, flip = tf.unstack(draws[:, :, tf.newaxis], axis=1)  # each [batch, 1]

    def reflect(position: tf.Tensor, size: int) -> tf.Tensor:
        # symmetric: ... 1 0 | 0 1 2 ... size-1 | size-1 size-2 ...
        position = tf.where(position < 0, -1 - position, position)
        return tf.where(position >= size, 2 * size - 1 - position, position)

    rows = reflect(tf.range(height)[tf.newaxis] + down - 4, height)  # [batch, size]
    columns = tf.range(width)[tf.newaxis]
    columns = tf.where(flip == 1, width - 1 - columns, columns)
    columns = reflect(columns + across - 4, width)  # [batch, size]
    flat = ((index * height + rows) * width)[:, :, tf.newaxis] + columns[:, tf.newaxis, :]
    return tf.gather(tf.reshape(images, [-1, channels]), flat)
