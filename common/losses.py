"""The original's loss: smoothed cross-entropy of offset probabilities, and weight decay."""

from collections.abc import Iterable

import keras
import tensorflow as tf

from .orthogonal import matmul


@keras.saving.register_keras_serializable(package="opt")
def smoothed_cross_entropy(labels: tf.Tensor, logits: tf.Tensor, smoothing: float = 0.01, offset: float = 1e-4) -> tf.Tensor:
    """Returns ``-sum(target * log(softmax(logits) + offset))`` of each example.

    The target is ``(1 - smoothing) * onehot + smoothing / num_classes``. Serves as a Keras loss:
    ``model.compile(loss=smoothed_cross_entropy)``.

    Args:
        labels: ``[batch]`` or ``[batch, 1]``, the classes, of any numeric dtype.
        logits: ``[batch, num_classes]``.

    Returns:
        ``[batch]``, of the dtype of ``logits``.
    """
    classes = logits.shape[-1]
    labels = tf.reshape(tf.cast(labels, tf.int32), [-1])
    target = tf.one_hot(labels, classes, on_value=1 - smoothing, off_value=0.0, dtype=logits.dtype) + smoothing / classes
    return -tf.reduce_sum(target * tf.math.log(tf.nn.softmax(logits) + offset), axis=-1)


def weight_decay(variables: Iterable[keras.Variable], rate: float = 5e-4) -> tf.Tensor:
    """Returns ``rate * sum(v^2) / 2`` over all entries of ``variables``, a scalar."""
    return rate * tf.add_n([tf.nn.l2_loss(v.value) for v in variables])


def decayed_variables(model: keras.Model, except_for: Iterable[str] = ()) -> list[keras.Variable]:
    """Returns what the original decays: all that is trained, and the fix matrices.

    Those are not trained; they only add a constant to the printed figure.

    Args:
        model: any model.
        except_for: names of weights to leave out, such as "rotation".
    """
    fixed = [v for v in model.non_trainable_variables if v.name == "fix"]
    return [v for v in model.trainable_variables + fixed if v.name not in set(except_for)]


@keras.saving.register_keras_serializable(package="opt")
class OrthogonalityPenalty(keras.regularizers.Regularizer):
    """``factor * |R R^T - I|_F``, which keeps a rotation near to orthogonal (OPT (OR)).

    Its gradient at an orthogonal R, where the norm has a kink, is 0.

    Args:
        factor: weight of the penalty. Defaults to the original's 0.1.
    """

    def __init__(self, factor: float = 0.1):
        self.factor = factor

    def __call__(self, rotation: tf.Tensor) -> tf.Tensor:
        rotation = tf.convert_to_tensor(rotation)
        gap = matmul(rotation, rotation, transpose_b=True) - tf.eye(rotation.shape[-1], dtype=rotation.dtype)
        square = tf.reduce_sum(tf.square(gap))
        away = square > 0
        # the inner where keeps sqrt's infinite derivative at 0 out of the gradient
        return self.factor * tf.where(away, tf.sqrt(tf.where(away, square, tf.ones_like(square))), tf.zeros_like(square))

    def get_config(self) -> dict:
        return {"factor": self.factor}
