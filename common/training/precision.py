"""Mixed precision: Keras's dtype policies, and the scaled loss that float16 needs."""

import contextlib
from collections.abc import Iterator

import keras


@contextlib.contextmanager
def policy(name: str) -> Iterator[None]:
    """Makes the layers that are created in the block compute as Keras's policy ``name`` says.

    After the block the policy is what it was.
    """
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(name)
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)


def scaled(optimizer: keras.optimizers.Optimizer, name: str) -> keras.optimizers.Optimizer:
    """Returns ``optimizer``, and for a policy ``name`` of float16 one that scales the loss.

    In float16 small gradients are 0. Keras's `LossScaleOptimizer` multiplies the loss by a power of
    2 and divides the gradients by it. It halves the scale where a gradient is not finite, and skips
    that update.
    """
    is_float16 = keras.dtype_policies.get(name).compute_dtype == "float16"
    return keras.optimizers.LossScaleOptimizer(optimizer) if is_float16 else optimizer
