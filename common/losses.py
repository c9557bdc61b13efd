"""The original's loss: smoothed cross-entropy of offset probabilities, and weight decay."""

from collections.abc import Callable, Collection, Iterable

import keras
import tensorflow as tf

from .marks import NEURONS, purpose_of
from .private import is_compiled_by_xla


@keras.saving.register_keras_serializable(package="opt")
def smoothed_cross_entropy(
    labels: tf.Tensor, logits: tf.Tensor, smoothing: float = 0.01, offset: float = 1e-4
) -> tf.Tensor:
    """Returns ``-sum(target * log(softmax(logits) + offset))`` of each example.

    The target is ``(1 - smoothing) * onehot + smoothing / num_classes``. It can be used as a Keras
    loss: ``model.compile(loss=smoothed_cross_entropy)``.

    Args:
        labels: ``[batch]`` or ``[batch, 1]``, the classes, of any numeric dtype.
        logits: ``[batch, num_classes]``, of a floating-point dtype.
        smoothing: the share of the target that is spread over all classes. Defaults to the
            original's 0.01.
        offset: keeps the logarithm finite. Defaults to the original's 1e-4.

    Returns:
        ``[batch]``, float64 for logits of float64 and float32 for all others.
    """
    classes = logits.shape[-1]
    logits = tf.cast(logits, tf.float64 if logits.dtype == tf.float64 else tf.float32)
    labels = tf.reshape(tf.cast(labels, tf.int32), [-1])
    onehot = tf.one_hot(labels, classes, on_value=1 - smoothing, off_value=0.0, dtype=logits.dtype)
    target = onehot + smoothing / classes
    return -tf.reduce_sum(target * tf.math.log(tf.nn.softmax(logits) + offset), axis=-1)


def weight_decay(variables: Iterable[keras.Variable], strength: float) -> tf.Tensor:
    """Returns ``strength * sum(v^2) / 2``, a scalar of the dtype that ``variables`` have."""

    @tf.custom_gradient
    def decay(*tensors: tf.Tensor) -> tuple[tf.Tensor, Callable]:
        if is_compiled_by_xla():
            # one sum in place of many: a GPU starts the kernels of each in turn
            joined = tf.concat([tf.reshape(t, [-1]) for t in tensors], axis=0)
            value = tf.reduce_sum(strength / 2 * tf.square(joined))
        else:
            value = strength * tf.add_n([tf.nn.l2_loss(t) for t in tensors])
        return value, lambda g: [strength * g * t for t in tensors]

    return decay(*(v.value for v in variables))


def decayed_variables(model: keras.Model, except_for: Collection[str] = ()) -> list[keras.Variable]:
    """Returns the weights that the original decays, but those with a mark in ``except_for``.

    They are all trained ones, and the fix matrices, which only add a constant to the printed loss.
    """
    fixed = [v for v in model.non_trainable_variables if purpose_of(v) == NEURONS]
    return [v for v in model.trainable_variables + fixed if purpose_of(v) not in except_for]
