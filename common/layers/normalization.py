"""The original's batch normalization, debiased at inference."""

from collections.abc import Sequence

import keras
import tensorflow as tf


@keras.saving.register_keras_serializable(package="opt")
class BatchNormalization(keras.layers.BatchNormalization):
    """Batch normalization with the original's averages, debiased at inference.

    The averages of mean and (biased) variance start at zero, as in the original. After t steps they
    are too small by the factor ``1 - momentum^t``, and inference divides them by it. Variables of
    bfloat16 are too coarse for such averages, Keras's too: take the policy "mixed_bfloat16".

    Args:
        momentum: decay of the averages per step. Defaults to 0.999.
        debias: whether inference divides; the original does not. Defaults to True.
        **kwargs: as in `keras.layers.BatchNormalization`.

    Raises:
        ValueError: for ``renorm``, which is not supported.
    """

    def __init__(
        self,
        momentum: float = 0.999,
        debias: bool = True,
        moving_variance_initializer="zeros",
        **kwargs,
    ):
        super().__init__(
            momentum=momentum, moving_variance_initializer=moving_variance_initializer, **kwargs
        )
        if kwargs.get("renorm"):
            raise ValueError("`renorm` has averages that this layer cannot debias")
        self.debias = debias

    def build(self, input_shape: Sequence[int | None]) -> None:
        super().build(input_shape)
        # momentum^t: the weight that the initial zeros still have in the averages
        self.start_weight = self.add_weight(
            name="start_weight", shape=(), initializer="ones", trainable=False, autocast=False
        )

    def plain_weights(self) -> dict[str, tf.Tensor]:
        """Returns mean and variance for inference, each ``[channels]``; 0 and 1 at the start."""
        mean, variance = self.moving_mean.value, self.moving_variance.value
        if self.debias:
            weight = 1.0 - self.start_weight.value
            trained = weight > 0
            safe = tf.where(trained, weight, 1.0)
            mean, variance = mean / safe, tf.where(trained, variance / safe, 1.0)
        return {"moving_mean": mean, "moving_variance": variance}

    def call(self, inputs: tf.Tensor, training: bool | None = None, mask=None) -> tf.Tensor:
        if not (training and self.trainable):
            mean, variance = self.plain_weights().values()
            inputs = tf.cast(inputs, mean.dtype)
            outputs = keras.ops.batch_normalization(
                inputs, mean, variance, self.axis, self.beta, self.gamma, self.epsilon
            )
            return tf.cast(outputs, self.compute_dtype)
        self.start_weight.assign(self.start_weight * self.momentum)
        images = inputs.shape.rank == 4 and self.axis in (-1, 3) and mask is None
        float32 = self.scale and self.center and self.gamma.dtype == "float32"
        if images and float32 and not self.synchronized:
            return self._normalize_fused(inputs)
        return super().call(inputs, training=True, mask=mask)

    def _normalize_fused(self, inputs: tf.Tensor) -> tf.Tensor:
        """Returns the normalized batch, by TensorFlow's fused kernel: a step is a fifth shorter."""
        outputs, mean, variance, *_ = tf.raw_ops.FusedBatchNormV3(
            x=inputs,
            scale=self.gamma.value,
            offset=self.beta.value,
            mean=tf.zeros([0]),
            variance=tf.zeros([0]),
            epsilon=self.epsilon,
        )
        # the kernel returns the unbiased variance, sum / (count - 1)
        count = tf.cast(tf.reduce_prod(tf.shape(inputs)[:3]), variance.dtype)
        variance = variance * (count - 1) / count
        for average, value in ((self.moving_mean, mean), (self.moving_variance, variance)):
            value = tf.stop_gradient(value) * (1.0 - self.momentum)
            average.assign(average * self.momentum + value)
        return outputs

    def get_config(self) -> dict:
        return {**super().get_config(), "debias": self.debias}
