"""Optimizers (TensorFlow 1's momentum SGD, and OGD) and the schedule of their learning rates."""

from collections.abc import Sequence

import keras
import numpy as np
import tensorflow as tf

from .marks import ROTATION, purpose_of
from .orthogonal import matmul

DROPS = (30 / 75, 50 / 75, 65 / 75)  # the original's


def step_decay(
    rate: float,
    iterations: int,
    factor: float = 0.1,
    drops: Sequence[float] = DROPS,
    warmup: int = 0,
) -> keras.optimizers.schedules.LearningRateSchedule:
    """Returns a schedule: ``rate * factor^k`` from the k-th drop on, after a `LinearWarmup`.

    ``drops`` are fractions of the run, ``warmup`` is a number of iterations, 0 or more.
    """
    # Keras's boundary is the last iteration with the old rate
    boundaries = [round(fraction * iterations) - 1 for fraction in drops]
    rates = [rate * factor**k for k in range(len(boundaries) + 1)]
    steps = keras.optimizers.schedules.PiecewiseConstantDecay(boundaries, rates)
    return LinearWarmup(steps, warmup) if warmup else steps


@keras.saving.register_keras_serializable(package="opt")
class LinearWarmup(keras.optimizers.schedules.LearningRateSchedule):
    """A schedule whose rate grows linearly over the first iterations, counted from 0:

        rate(i) = schedule(i) * min(1, (i + 1) / warmup)

    Args:
        schedule: the schedule without warm-up.
        warmup: number of iterations, 1 or more.

    Raises:
        ValueError: if ``warmup`` is less than 1.

    Reference: Goyal et al., Accurate, Large Minibatch SGD, 2017, section 2.2.
    """

    def __init__(self, schedule: keras.optimizers.schedules.LearningRateSchedule, warmup: int):
        if warmup < 1:
            raise ValueError(f"`warmup` must be 1 or more, not {warmup}")
        self.schedule, self.warmup = schedule, warmup

    def __call__(self, step) -> tf.Tensor:
        rate = keras.ops.convert_to_tensor(self.schedule(step))
        share = (keras.ops.cast(step, rate.dtype) + 1) / self.warmup
        return rate * keras.ops.minimum(share, 1)

    def get_config(self) -> dict:
        schedule = keras.optimizers.schedules.serialize(self.schedule)
        return {"schedule": schedule, "warmup": self.warmup}

    @classmethod
    def from_config(cls, config: dict):
        schedule = keras.optimizers.schedules.deserialize(config["schedule"])
        return cls(schedule, config["warmup"])


@keras.saving.register_keras_serializable(package="opt")
class Momentum(keras.optimizers.Optimizer):
    """Momentum SGD that averages gradients, not updates:

        m = momentum * m + g
        v = v - learning_rate * m

    `keras.optimizers.SGD` averages ``learning_rate * g``, which is the same for a constant rate.

    Args:
        learning_rate: a float or a schedule. Defaults to 0.1.
        momentum: decay of the average, in [0, 1). Defaults to 0.9.
        **kwargs: as in every Keras optimizer.

    Raises:
        ValueError: if ``momentum`` is not in [0, 1).

    Reference: `tf.compat.v1.train.MomentumOptimizer`.
    """

    def __init__(self, learning_rate=0.1, momentum: float = 0.9, name: str = "momentum", **kwargs):
        super().__init__(learning_rate=learning_rate, name=name, **kwargs)
        if not 0 <= momentum < 1:
            raise ValueError(f"`momentum` must lie in [0, 1), not {momentum}")
        self.momentum = momentum

    def build(self, variables: Sequence[keras.Variable]) -> None:
        if self.built:
            return
        super().build(variables)
        self.momentums = self.add_optimizer_variables(variables, "momentum")

    def update_step(self, gradient, variable, learning_rate) -> None:
        average = self.momentums[self._get_variable_index(variable)]
        self.assign(average, average * self.momentum + keras.ops.cast(gradient, variable.dtype))
        self.assign_sub(variable, keras.ops.cast(learning_rate, variable.dtype) * average)

    def get_config(self) -> dict:
        return {**super().get_config(), "momentum": self.momentum}


@keras.saving.register_keras_serializable(package="opt")
class OGD(Momentum):
    """Momentum SGD that moves rotations along the orthogonal group (OPT (OGD)).

    Rotations are those of OPT layers, and weights that `marks.mark` has marked as such; all other
    weights are updated as by `Momentum`. For a rotation X with gradient g and average M (and for
    each by itself in a batch ``[..., n, n]``):

        M = rotation_momentum * M - g
        A = M X^T - X (X^T M X^T) / 2
        W = A - A^T
        M = W X
        a = min(rotation_learning_rate, 1 / (|W|_F + 1e-8))
        Y = X + a M
        twice: Y = X + (a / 2) W (X + Y)
        X = Y

    The last lines are a fixed-point iteration, whose solution is Cayley's transform of a W / 2,
    times X. After two iterations X has shrunk a little. The original does not correct this.

    Args:
        learning_rate: of the other weights, a float or a schedule. Defaults to 0.1.
        rotation_learning_rate: of rotations, a float or a schedule; callbacks that set the learning
            rate do not change it. Defaults to the original's 0.02.
        momentum: of the other weights, in [0, 1). Defaults to 0.9.
        rotation_momentum: of rotations, in [0, 1). Defaults to 0.9.
        reorthogonalize_every: number of updates between two corrections, which replace X by
            X (3 I - X^T X) / 2. Defaults to 0: never, as in the original.
        **kwargs: as in every Keras optimizer; ``weight_decay`` and ``use_ema`` leave rotations out.

    Raises:
        ValueError: if a momentum is not in [0, 1), or ``reorthogonalize_every`` is negative. At the
            first update: if a rotation is not orthogonal, because updates would turn it to NaN.

    Reference: Liu et al., CVPR 2021, after Li, Fuxin and Todorovic, Efficient Riemannian
    Optimization on the Stiefel Manifold via the Cayley Transform, ICLR 2020.
    """

    def __init__(
        self,
        learning_rate=0.1,
        rotation_learning_rate=0.02,
        momentum: float = 0.9,
        rotation_momentum: float = 0.9,
        reorthogonalize_every: int = 0,
        name: str = "ogd",
        **kwargs,
    ):
        super().__init__(learning_rate=learning_rate, momentum=momentum, name=name, **kwargs)
        if not 0 <= rotation_momentum < 1:
            raise ValueError(f"`rotation_momentum` must lie in [0, 1), not {rotation_momentum}")
        if reorthogonalize_every < 0:
            raise ValueError(f"`reorthogonalize_every` must not be {reorthogonalize_every}")
        self.rotation_learning_rate = rotation_learning_rate
        self.rotation_momentum = rotation_momentum
        self.reorthogonalize_every = reorthogonalize_every
        self._start_is_checked = False

    def build(self, variables: Sequence[keras.Variable]) -> None:
        if not self.built:
            super().build(variables)
            self._is_rotation = [purpose_of(v) == ROTATION for v in variables]

    def _use_weight_decay(self, variable) -> bool:
        # it would shrink rotations: they would not stay orthogonal
        index = self._get_variable_index(variable)
        return not self._is_rotation[index] and super()._use_weight_decay(variable)

    def _backend_apply_gradients(self, grads, trainable_variables) -> None:
        if not self._start_is_checked:
            self._check_start(trainable_variables)
            self._start_is_checked = True
        super()._backend_apply_gradients(grads, trainable_variables)

    def _check_start(self, variables: Sequence[keras.Variable]) -> None:
        """Raises ValueError for a rotation that the update would not keep finite.

        Let p_i be the eigenvalues of X X^T. In the basis of X's singular vectors the update
        multiplies M by 1 - (1 - p_i) (1 - p_j), so M stays bounded if all p_i are below
        1 / rotation_momentum. The update never increases a p_i, and those of a rotation that has
        drifted may be as low as 1/4.
        """
        most = 1 / max(self.rotation_momentum, 1 / 2)
        with tf.init_scope():  # eagerly, also where a graph is being traced
            if self.iterations.numpy() > 0:
                return  # saved with its rotations, which it has kept finite so far
            for variable in variables:
                if purpose_of(variable) != ROTATION:
                    continue
                x = np.asarray(tf.convert_to_tensor(variable))
                gram, identity = x @ x.mT, np.eye(x.shape[-1], dtype=x.dtype)
                try:  # a symmetric matrix has a Cholesky factor if its eigenvalues are positive
                    factors = map(np.linalg.cholesky, (gram - identity / 4, most * identity - gram))
                    is_near = all(np.isfinite(factor).all() for factor in factors)
                except np.linalg.LinAlgError:
                    is_near = False
                if not is_near:
                    raise ValueError(
                        f"the rotation {variable.path} is not orthogonal, as OGD needs it at the "
                        'start; give the layer rotation_initializer="identity"'
                    )

    def update_step(self, gradient, variable, learning_rate) -> None:
        index = self._get_variable_index(variable)
        if not self._is_rotation[index]:
            super().update_step(gradient, variable, learning_rate)
            return
        average = self.momentums[index]
        rate = self.rotation_learning_rate
        rate = rate(self.iterations) if callable(rate) else rate
        # not tf.cast, which first rounds a Python float to float32
        rate = keras.ops.convert_to_tensor(rate, variable.dtype)
        x, m = tf.convert_to_tensor(variable), tf.convert_to_tensor(average)
        m = self.rotation_momentum * m - tf.cast(gradient, variable.dtype)
        mxt = matmul(m, x, transpose_b=True)
        a = mxt - matmul(x, matmul(x, mxt, transpose_a=True)) / 2
        w = a - tf.linalg.matrix_transpose(a)
        m = matmul(w, x)
        rate = tf.minimum(rate, 1 / (tf.norm(w, axis=[-2, -1], keepdims=True) + 1e-8))
        y = x + rate * m
        for _ in range(2):
            y = x + rate / 2 * matmul(w, x + y)
        if self.reorthogonalize_every:
            due = (self.iterations + 1) % self.reorthogonalize_every == 0
            y = tf.cond(due, lambda: _nearer_orthogonal(y), lambda: y)
        self.assign(average, m)
        self.assign(variable, y)

    def _update_model_variables_moving_average(self, trainable_variables) -> None:
        super()._update_model_variables_moving_average(trainable_variables)
        averages = self._model_variables_moving_average
        for variable, average in zip(trainable_variables, averages, strict=True):
            if purpose_of(variable) == ROTATION:
                average.assign(variable)

    def get_config(self) -> dict:
        rate = self.rotation_learning_rate
        schedules = keras.optimizers.schedules
        return {
            **super().get_config(),
            "rotation_learning_rate": schedules.serialize(rate) if callable(rate) else rate,
            "rotation_momentum": self.rotation_momentum,
            "reorthogonalize_every": self.reorthogonalize_every,
        }

    @classmethod
    def from_config(cls, config: dict, custom_objects: dict | None = None):
        rate = config["rotation_learning_rate"]
        if isinstance(rate, dict):
            rate = keras.optimizers.schedules.deserialize(rate, custom_objects)
        return super().from_config({**config, "rotation_learning_rate": rate}, custom_objects)


def _nearer_orthogonal(y: tf.Tensor) -> tf.Tensor:
    gram = matmul(y, y, transpose_a=True)
    return y - matmul(y, gram - tf.eye(y.shape[-1], dtype=y.dtype)) / 2


def rate_at(optimizer: keras.optimizers.Optimizer, iteration: int) -> float:
    """Returns the learning rate of an iteration, counted from 0, rounded to seven digits."""
    optimizer = getattr(optimizer, "inner_optimizer", optimizer)  # of a LossScaleOptimizer
    rate = optimizer._learning_rate  # the public one is that of the current iteration
    # float32 has seven digits; without this 0.01 would be 0.009999999776482582
    return float(f"{float(rate(iteration) if callable(rate) else rate):.7g}")
