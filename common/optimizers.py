"""Momentum SGD as TensorFlow 1 defines it, and the schedule of its rate."""

from collections.abc import Sequence

import keras

# iterations 30,000, 50,000 and 65,000 of 75,000
DROPS = (30 / 75, 50 / 75, 65 / 75)


def step_decay(
    rate: float, iterations: int, factor: float = 0.1, drops: Sequence[float] = DROPS
) -> keras.optimizers.schedules.LearningRateSchedule:
    """Returns the schedule ``rate * factor^k`` from the k-th drop on.

    Args:
        rate: the first rate.
        iterations: length of the whole run.
        factor: what each drop multiplies the rate with. Defaults to 0.1.
        drops: where the rate drops, in fractions of the whole. Defaults to the original's.
    """
    # Keras's boundary is the last iteration of the rate before it
    boundaries = [round(fraction * iterations) - 1 for fraction in drops]
    return keras.optimizers.schedules.PiecewiseConstantDecay(boundaries, [rate * factor**k for k in range(len(boundaries) + 1)])


@keras.saving.register_keras_serializable(package="opt")
class Momentum(keras.optimizers.Optimizer):
    """Momentum SGD with the rate outside the average::

        m = momentum * m + g
        v = v - learning_rate * m

    `keras.optimizers.SGD` has the rate inside, which is the same until the rate changes: there the average keeps
    the old rate for some ten steps.

    Args:
        learning_rate: a float or a schedule. Defaults to 0.1.
        momentum: decay of the average. Defaults to 0.9.
        **kwargs: as in every Keras optimizer.

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


def rate_at(optimizer: keras.optimizers.Optimizer, iteration: int) -> float:
    """Returns the learning rate of an iteration, counted from 0."""
    rate = optimizer._learning_rate
    # the seven digits that float32 has, so that 0.01 reads 0.01
    return float(f"{float(rate(iteration) if callable(rate) else rate):.7g}")
