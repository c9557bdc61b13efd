"""OrthogonalLayer: mixed into a layer of Keras, it rotates that layer's kernel."""

import copy
import functools
import inspect
import logging
import math
from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from .. import orthogonal
from ..marks import NEURONS, ROTATION, mark
from ..orthogonal import Map, matmul
from ..private import autocast, move_to_end, remove_weight
from .batched import joined, neurons_of_this_pass, neurons_together, split

_LOGGER = logging.getLogger(__name__)
_LARGE = 4096  # rows of a rotation that is logged as a warning
_register = keras.saving.register_keras_serializable(package="opt")
_BY_NAME = {each.__name__: _register(each) for each in orthogonal.ALL}  # as saved models have it


def check_map(orthogonalize: Map, shape: Sequence[int], dtype: str) -> None:
    """Raises ValueError for a map that makes no orthogonal matrices of small random ones."""
    size = min(shape[-1], 8)
    sample = np.random.default_rng(0).normal(size=[2] * (len(shape) - 2) + [size] * 2)
    with tf.init_scope():  # eagerly, also where a graph is being traced
        q = np.asarray(orthogonalize(tf.constant(sample, dtype)), "float64")
    problem = f"takes {sample.shape} to {q.shape}"
    if q.shape == sample.shape:
        deviation = np.abs(q @ q.mT - np.eye(size)).max()
        if deviation <= 1e-3:
            return
        problem = f"is not orthogonal: max |Q Q^T - I| of random matrices is {deviation:.2g}"
    raise ValueError(f"the map {problem}; check_map=False turns this check off")


def he_normal() -> keras.initializers.Initializer:
    """Returns the original's initializer: normal with variance 2 / fan_in, not truncated.

    Each call returns a new one, because a Keras initializer always draws the same numbers.
    """
    return keras.initializers.VarianceScaling(
        scale=2.0, mode="fan_in", distribution="untruncated_normal"
    )


def contracted_axes(layer: keras.layers.Layer, rank: int) -> list[int]:
    """Returns the axes of a kernel that are summed over: a neuron's entries lie on them."""
    if not isinstance(layer, keras.layers.EinsumDense):
        return list(range(rank - 1))
    operands, output = layer.equation.split("->")
    inputs, kernel = operands.replace(".", "").split(",")
    return [i for i, letter in enumerate(kernel) if letter in inputs and letter not in output]


def drawn_one_by_one(initializer: Any, first: int = 0) -> Callable[..., tf.Tensor]:
    """Returns an initializer that draws each matrix of ``[blocks, b, b]`` by itself.

    Keras's Identity and Orthogonal take no batch. Block i, from ``first`` on, adds i to the seed.
    """

    def draw(shape, dtype=None):
        if len(shape) > 2:
            blocks = range(first, first + shape[0])
            return tf.stack([drawn_one_by_one(initializer, i)(shape[1:], dtype) for i in blocks])
        draws = copy.copy(initializer)
        if isinstance(getattr(draws, "seed", None), int):
            draws.seed += first
        return draws(shape, dtype=dtype)

    return draw


class _OfTheClass(inspect.Signature):
    """A signature that help shows for a class; an instance has that of its call."""

    def __get__(self, layer: keras.layers.Layer | None, kind: type) -> inspect.Signature:
        if layer is not None:
            raise AttributeError("__signature__")
        return self


class OrthogonalLayer(keras.layers.Layer):
    """A layer of Keras whose kernel is ``map(rotation) @ fix`` (Liu et al., CVPR 2021).

    A neuron is a column of ``fix``: the kernel's n entries on the axes that are summed over. For
    Dense these are the input's features; for a convolution the kernel's area times its input
    channels, with one rotation for all groups; for EinsumDense the letters that the input has and
    the output lacks. All else is as in Keras's layer, except that ``kernel_initializer`` defaults
    to He's, variance 2 / n.

    Args:
        orthogonalize: the map ``[..., n, n] -> [..., n, n]``, or the name of one. Defaults to
            `gram_schmidt`.
        rotation_initializer: for the rotations. Defaults to "identity": the layer starts as the
            plain one. The paper's methods draw them N(0, 1).
        rotation_regularizer: for the rotations. Defaults to None.
        learn_neurons: whether to train ``fix`` too; the energy then changes. Defaults to False.
        check_map: whether to try a map of your own on a random matrix. Defaults to True.
        block_size: b of 2 or more gives each b rows of ``fix`` a small rotation (Qiu et al.,
            NeurIPS 2023), and one to the last rows if b does not divide n. Defaults to None: one
            rotation of all rows.

    Weights, float32 whatever the compute dtype, or float64 under that policy:
        - ``fix [n, neurons]``: the neurons as they were drawn.
        - ``rotation [n, n]``, or with blocks ``[n // b, b, b]``: trained.
        - ``rotation_rest [n % b, n % b]``: trained; if b does not divide n.
        - ``bias``: as in Keras's layer.

    Raises:
        ValueError: if an argument is wrong, or ``kernel_regularizer`` or ``kernel_constraint`` is
            given.
        NotImplementedError: for LoRA and quantization; fold the model first.
    """

    plain: type[keras.layers.Layer]  # the layer of Keras that a subclass rotates
    opt_arguments: tuple[str, ...]
    converted = False  # whether it was made of a layer of Keras

    def __init_subclass__(cls, **kwargs):
        super().__init_subclass__(**kwargs)
        functions = [vars(c)["configure"] for c in cls.__mro__[::-1] if "configure" in vars(c)]
        parameters = [p for f in functions for p in inspect.signature(f).parameters.values()]
        ours = [p for p in parameters if p.kind is p.KEYWORD_ONLY]
        cls.opt_arguments = tuple(p.name for p in ours)
        cls.plain = next(c for c in cls.__mro__ if c.__module__.startswith("keras."))
        _, *theirs, rest = inspect.signature(cls.plain.__init__).parameters.values()
        cls.__signature__ = _OfTheClass([*theirs, *ours, rest])

    def __init__(self, *args, **kwargs):
        given = inspect.signature(type(self)).bind(*args, **kwargs).arguments
        given |= given.pop("kwargs", {})
        ours = {name: given.pop(name) for name in self.opt_arguments if name in given}
        if given.get("kernel_initializer") is None:
            given["kernel_initializer"] = he_normal()
        super().__init__(**given)
        self.configure(**ours)

    def configure(
        self,
        *,
        orthogonalize: Map | str = orthogonal.gram_schmidt,
        rotation_initializer="identity",
        rotation_regularizer=None,
        learn_neurons: bool = False,
        check_map: bool = True,
        block_size: int | None = None,
    ) -> None:
        """Sets the arguments that Keras's layer does not have."""
        for name in ("kernel_regularizer", "kernel_constraint"):
            if getattr(self, name) is not None:
                reason = f"a rotation keeps the neurons' lengths and angles, so it takes no {name}"
                raise ValueError(f"{self.name}: {reason}; there is `rotation_regularizer`")
        if block_size is not None and not (type(block_size) is int and block_size >= 2):
            raise ValueError(f"`block_size` must be None or an integer over 1, not {block_size!r}")
        found = _BY_NAME.get(orthogonalize) if isinstance(orthogonalize, str) else orthogonalize
        if not callable(found):
            maps = f"a map, or the name of one ({', '.join(_BY_NAME)})"
            raise ValueError(f"`orthogonalize` must be {maps}, not {orthogonalize!r}")
        self.orthogonalize = found
        initializer = keras.initializers.get(rotation_initializer)
        if hasattr(initializer, "clone"):  # layers that share one would draw the same rotation
            initializer = initializer.clone()
        self.rotation_initializer = initializer
        self.rotation_regularizer = keras.regularizers.get(rotation_regularizer)
        self.learn_neurons = learn_neurons
        self.check_map = check_map
        self.block_size = block_size

    def build(self, input_shape: Sequence[int | None]) -> None:
        if self.quantization_mode:
            self.enable_lora()  # raises; Keras's `quantize` would first want a built layer
        super().build(input_shape)
        self.add_rotation()

    def add_rotation(self) -> None:
        """Replaces the kernel's variable by ``fix`` and adds the rotations."""
        kernel, shape = self._kernel, self._kernel.shape
        axes = contracted_axes(self, len(shape))
        n = math.prod(shape[i] for i in axes)
        if not axes or n == 0:
            raise ValueError(f"{self.name} has neurons without entries: it sums over nothing")
        self._axes = axes + [i for i in range(len(shape)) if i not in axes]
        self._permuted_shape = [shape[i] for i in self._axes]
        rows = self.number_of_rows(n, channels=shape[axes[-1]])
        size = min(self.block_size or rows, rows)
        square = (rows, rows) if size == rows else (rows // size, size, size)
        precision = "float64" if self.variable_dtype == "float64" else "float32"
        if self.check_map and self.orthogonalize not in orthogonal.ALL:
            check_map(self.orthogonalize, square, precision)
        if size >= _LARGE:
            each = rows * np.dtype(precision).itemsize / 1e6  # MB per column
            takes = f"{self.name}: the rotation of {rows:,} rows takes {each * size:,.0f} MB, and "
            takes += "its gradient and each average of the optimizer as much again"
            _LOGGER.warning("%s; with block_size=256 it would take %.0f MB", takes, each * 256)
        add = functools.partial(self.add_weight, dtype=precision, autocast=False)

        def columns(shape, dtype):
            return tf.reshape(tf.transpose(tf.cast(kernel, dtype), self._axes), shape)

        def rotation(name: str, shape: tuple[int, ...], first: int = 0) -> keras.Variable:
            draw = drawn_one_by_one(self.rotation_initializer, first)
            options = {"initializer": draw, "regularizer": self.rotation_regularizer}
            return mark(add(name=name, shape=shape, **options), ROTATION)

        remove_weight(self, "_kernel")
        self.rotation = rotation("rotation", square)
        rest = rows % size
        self.rotation_rest = rotation("rotation_rest", (rest, rest), rows // size) if rest else None
        if self.bias is not None:
            move_to_end(self, self.bias)
        # last: so weights have one order, whether fix is trained or not
        neurons = math.prod(self._permuted_shape) // n
        fix = add(name="fix", shape=(n, neurons), initializer=columns, trainable=self.learn_neurons)
        self.fix = mark(fix, NEURONS)
        for each in self.rotations:
            each.trainable = kernel.trainable

    def number_of_rows(self, n: int, channels: int) -> int:
        """Returns how many of the n rows of ``fix`` are rotated."""
        return n

    @property
    def rotations(self) -> list[keras.Variable]:
        """`rotation`, and `rotation_rest` if there is one."""
        return [v for v in (self.rotation, self.rotation_rest) if v is not None]

    def orthogonal_matrices(self) -> list[tf.Tensor]:
        """Returns map(rotation) of each of `rotations`, of the same shapes."""
        return [self.orthogonalize(rotation.value) for rotation in self.rotations]

    def rows_to_rotate(self) -> tf.Tensor:
        """Returns the rows of ``fix`` that are rotated, ``[rows, neurons]``."""
        return self.fix.value

    def with_rotated_rows(self, rotated: tf.Tensor) -> tf.Tensor:
        """Returns the neurons, ``[n, neurons]``, given `rows_to_rotate` after the rotation."""
        return rotated

    def rotate_back(self, matrices: list[tf.Tensor]) -> None:
        """Multiplies `rows_to_rotate` by each matrix transposed, in ``fix``."""
        parts = zip(matrices, split(matrices, self.rows_to_rotate()), strict=True)
        rotated = joined([matmul(matrix, part, transpose_a=True) for matrix, part in parts])
        self.fix.assign(self.with_rotated_rows(rotated))

    def neurons(self) -> tf.Tensor:
        """Returns the current neurons, ``map(rotation) @ fix``, ``[n, neurons]``, in its dtype."""
        return neurons_together([self])[0]

    @property
    def kernel(self) -> tf.Tensor:
        """The current kernel, in shape and dtype as in Keras's layer; cached per forward pass."""
        if not self.built:
            raise AttributeError(f"{self.name} has no kernel before it is built")
        return autocast(self.kernel_of(neurons_of_this_pass(self)))

    def kernel_of(self, neurons: tf.Tensor) -> tf.Tensor:
        """Returns the kernel that holds ``neurons [n, neurons]``, in the variables' dtype."""
        kernel = tf.reshape(tf.cast(neurons, self.variable_dtype), self._permuted_shape)
        return tf.transpose(kernel, np.argsort(self._axes))

    def plain_weights(self) -> dict[str, tf.Tensor]:
        """Returns by name the weights that Keras's layer has in place of ours."""
        return {"kernel": self.kernel}

    def rematerialized_call(self, layer_call: Callable, *args, **kwargs) -> Callable:
        """Returns Keras's call, without `training`: in a graph it takes no keywords."""
        kwargs.pop("training", None)
        call = super().rematerialized_call(layer_call, *args, **kwargs)
        return lambda *args, training=None, **kwargs: call(*args, **kwargs)

    # Dense and convolutions write `kernel` alone
    save_own_variables = keras.layers.Layer.save_own_variables
    load_own_variables = keras.layers.Layer.load_own_variables

    def quantize(self, *args, **kwargs) -> None:
        if not isinstance(self, OrthogonalLayer):  # Keras keeps a layer's method where it is folded
            return type(self).quantize(self, *args, **kwargs)
        raise NotImplementedError(f"{self.name} is an OPT layer: fold the model with `fold_model`")

    enable_lora = quantize

    def get_config(self) -> dict[str, Any]:
        rotate = self.orthogonalize
        kind = rotate if inspect.isfunction(rotate) else type(rotate)
        name = keras.saving.get_registered_name(kind)
        if keras.saving.get_registered_object(name) is None:
            raise ValueError(
                f"the layer {self.name} cannot be saved: its map {name} is not registered with "
                "Keras, by the decorator @keras.saving.register_keras_serializable()"
            )
        return {
            **super().get_config(),
            **{name: getattr(self, name) for name in self.opt_arguments},
            "orthogonalize": keras.saving.serialize_keras_object(rotate),
            "rotation_initializer": keras.initializers.serialize(self.rotation_initializer),
            "rotation_regularizer": keras.regularizers.serialize(self.rotation_regularizer),
        }

    @classmethod
    def from_config(cls, config: dict[str, Any]):
        rotate = keras.saving.deserialize_keras_object(config["orthogonalize"])
        return super().from_config({**config, "orthogonalize": rotate})
