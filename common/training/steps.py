"""The training step, in mixed precision too, and several steps in one call of the device."""

import contextlib
from collections.abc import Callable, Iterator

import keras
import numpy as np
import tensorflow as tf

from .. import datasets, losses
from ..layers.batched import maps_by_xla
from .evaluation import accuracy
from .method import Method
from .settings import Settings

FIGURES = ("fit", "reg", "acc", "penalty")  # of a step


@contextlib.contextmanager
def policy(name: str) -> Iterator[None]:
    """Makes the layers that are created in the block compute as Keras's policy ``name`` says."""
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(name)
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)


def scaled(optimizer: keras.optimizers.Optimizer, name: str) -> keras.optimizers.Optimizer:
    """Returns ``optimizer``, in Keras's `LossScaleOptimizer` if policy ``name`` is of float16."""
    is_float16 = keras.dtype_policies.get(name).compute_dtype == "float16"
    return keras.optimizers.LossScaleOptimizer(optimizer) if is_float16 else optimizer


def make_step(
    method: Method,
    model: keras.Model,
    optimizer: keras.optimizers.Optimizer,
    weight_decay: float = Settings.weight_decay,
    jit_maps: bool = False,
) -> Callable[[tf.Tensor, tf.Tensor], dict[str, tf.Tensor]]:
    """Returns ``step(images, labels)``, which updates the model once; for use in a `tf.function`.

    It takes ``images [batch, size, size, 3]`` (any real dtype, 0 to 255) and ``labels [batch]``,
    of several replicas each its share, and returns the scalars fit, reg, acc and penalty (the sum
    of the layers' losses) before the update. ``weight_decay`` is the strength of reg, of which the
    loss has `Method.decay_factor`. With ``jit_maps`` XLA compiles the maps alone.
    A step that `LossScaleOptimizer` skips counts: learning rates go by the run's iterations.
    """
    optimizer.build(model.trainable_variables)
    decayed = losses.decayed_variables(model, method.undecayed)

    def step(images: tf.Tensor, labels: tf.Tensor) -> dict[str, tf.Tensor]:
        with tf.GradientTape() as tape:
            with maps_by_xla() if jit_maps else contextlib.nullcontext():
                logits = model(images, training=True)
            losses_of_images = losses.smoothed_cross_entropy(labels, logits)
            # the mean; divided last it would be a kernel more on a GPU
            count = tf.cast(tf.size(losses_of_images), losses_of_images.dtype)
            fit = tf.reduce_sum(losses_of_images / count)
            reg = losses.weight_decay(decayed, weight_decay)
            penalty = tf.add_n(model.losses) if model.losses else tf.zeros_like(fit)
            total = fit + method.decay_factor * reg + penalty
            # the optimizer adds up the replicas' gradients
            total /= tf.distribute.get_strategy().num_replicas_in_sync
            total = optimizer.scale_loss(total)
        gradients = tape.gradient(total, model.trainable_variables)
        done = optimizer.iterations + 1
        optimizer.apply(gradients, model.trainable_variables)
        if isinstance(optimizer, keras.optimizers.LossScaleOptimizer):
            optimizer.iterations.assign(done)
        return dict(zip(FIGURES, (fit, reg, accuracy(labels, logits), penalty), strict=True))

    return step


def make_steps(
    step: Callable, data: datasets.Dataset, batch_size: int, limit: int, jit: bool
) -> Callable[[np.ndarray], tuple[dict[str, tf.Tensor], np.ndarray]]:
    """Returns ``steps(draws [count, batch, 4])``: up to ``limit`` training steps in one call.

    It returns the figures of the last step, and fit of each, ``[count]``.
    """
    strategy = tf.distribute.get_strategy()
    images, labels = tf.constant(data.train_images), tf.constant(data.train_labels)
    share = batch_size // strategy.num_replicas_in_sync

    def replica_step(draws: tf.Tensor) -> dict[str, tf.Tensor]:
        replica = tf.distribute.get_replica_context().replica_id_in_sync_group
        if share < batch_size:
            draws = tf.slice(draws, [replica * share, 0], [share, 4])
        return step(datasets.augment(images, draws), tf.gather(labels, draws[:, 0]))

    def one(draws: tf.Tensor) -> dict[str, tf.Tensor]:
        figures = strategy.run(replica_step, (draws,))
        return {name: strategy.reduce("MEAN", value, axis=None) for name, value in figures.items()}

    @tf.function(jit_compile=jit)
    def steps(draws: tf.Tensor, count: tf.Tensor) -> tuple[dict[str, tf.Tensor], tf.Tensor]:
        if limit == 1:
            figures = one(draws[0])
            return figures, figures["fit"][None]

        def another(i: tf.Tensor, _, fits: tf.Tensor) -> tuple:
            figures = one(draws[i])
            return i + 1, figures, tf.tensor_scatter_nd_update(fits, [[i]], [figures["fit"]])

        # also of the first step, which would round otherwise if it were compiled by itself
        loop = [0, dict.fromkeys(FIGURES, tf.zeros([])), tf.zeros([limit])]
        return tf.while_loop(lambda i, *_: i < count, another, loop)[1:]

    def run(draws: np.ndarray) -> tuple[dict[str, tf.Tensor], np.ndarray]:
        padded = np.pad(draws, [(0, limit - len(draws)), (0, 0), (0, 0)])  # for a single trace
        figures, fits = steps(tf.constant(padded), tf.constant(len(draws)))
        return figures, fits.numpy()[: len(draws)]

    return run
