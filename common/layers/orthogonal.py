"""OrthogonalLayer: mixed into a layer of Keras, it rotates that layer's kernel."""

import inspect
import logging
from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from .. import orthogonal
from ..marks import NEURONS, ROTATION, mark
from ..orthogonal import Map
from ..private import autocast, move_to_end, remove_weight
from .batched import neurons_of_this_pass, neurons_together
from .blocks import drawn_one_by_one, rotated_back

_LOGGER = logging.getLogger(__name__)
_LARGE = 4096  # rows of a rotation that is warned of: 67 MB in float32
_KERNEL = "kernel_initializer"  # its default is not Keras's
_BY_NAME = {each.__name__: each for each in orthogonal.ALL}
# a saved model stores its map by name; to load it, this import is enough
for _map in orthogonal.ALL:
    keras.saving.register_keras_serializable(package="opt")(_map)


def map_of(orthogonalize: Map | str) -> Map:
    """Returns the map of that name in `common.orthogonal`, or the map itself.

    Raises:
        ValueError: if there is no map of that name, or it cannot be called.
    """
    found = _BY_NAME.get(orthogonalize) if isinstance(orthogonalize, str) else orthogonalize
    if not callable(found):
        raise ValueError(
            f"`orthogonalize` must be a map, or the name of one ({', '.join(_BY_NAME)}), "
            f"not {orthogonalize!r}"
        )
    return found


def check_map(orthogonalize: Map, shape: Sequence[int]) -> None:
    """Tries a map on a random matrix in float32, or on two for a batch.

    Args:
        orthogonalize: the map.
        shape: of the rotation, ``[n, n]`` or ``[blocks, n, n]``. It is tried on ``[m, m]`` or
            ``[2, m, m]``, with m the smaller of n and 8.

    Raises:
        ValueError: if the result has another shape or max |Q Q^T - I| is above 1e-3.
    """
    size = min(shape[-1], 8)
    sample = np.random.default_rng(0).normal(size=[2] * (len(shape) - 2) + [size] * 2)
    sample = sample.astype("float32")
    with tf.init_scope():  # eagerly, also where a graph is being traced
        q = np.asarray(orthogonalize(tf.constant(sample)), "float64")
    advice = "check_map=False turns this check off"
    if q.shape != sample.shape:
        raise ValueError(f"the map takes {sample.shape} to {q.shape}; {advice}")
    deviation = np.abs(q @ np.swapaxes(q, -1, -2) - np.eye(size)).max()
    if not deviation <= 1e-3:
        raise ValueError(
            "the map's result is not orthogonal: of a random matrix of shape "
            f"{sample.shape}, max |Q Q^T - I| is {deviation:.2g}; {advice}"
        )


def he_normal() -> keras.initializers.Initializer:
    """Returns the original's initializer: normal with variance 2 / fan_in.

    Unlike Keras's He normal it is not truncated. Each call returns a new initializer, because a
    Keras initializer draws the same numbers each time it is used.
    """
    return keras.initializers.VarianceScaling(
        scale=2.0, mode="fan_in", distribution="untruncated_normal"
    )


def contracted_axes(layer: keras.layers.Layer, rank: int) -> list[int]:
    """Returns the axes of a layer's kernel, of ``rank`` axes, on which a neuron's entries lie.

    All but the last; of an EinsumDense those whose letters are in the input and not in the output.
    """
    if not isinstance(layer, keras.layers.EinsumDense):
        return list(range(rank - 1))
    operands, output = layer.equation.split("->")
    inputs, kernel = operands.replace(".", "").split(",")
    return [i for i, letter in enumerate(kernel) if letter in inputs and letter not in output]


class _OfTheClass:
    """The signature that help and editors show of a class; a layer that is made has its call's."""

    def __init__(self, signature: inspect.Signature):
        self.signature = signature

    def __get__(self, layer: keras.layers.Layer | None, kind: type) -> inspect.Signature:
        if layer is not None:
            raise AttributeError("a layer's signature is that of its call")
        return self.signature


class OrthogonalLayer(keras.layers.Layer):
    """A layer of Keras whose kernel is ``map(rotation) @ fix`` (Liu et al., CVPR 2021).

    A neuron is a column of ``fix``: the kernel's entries on the axes that are summed over, n of
    them. For Dense these are the input's features. For a convolution they are the kernel's area
    times its input channels; the filters of all groups share one rotation. For EinsumDense they are
    the letters that are in the input and not in the output. Shapes, dtypes, masks and the other
    arguments are as in Keras's layer, except that ``kernel_initializer`` defaults to He's,
    variance 2 / n.

    Args:
        orthogonalize: the map ``[..., n, n] -> [..., n, n]``, or the name of one. Defaults to
            `gram_schmidt`.
        rotation_initializer: for the rotations. Defaults to "identity": the layer starts as the
            plain one. The paper's methods draw them N(0, 1).
        rotation_regularizer: for the rotations. Defaults to None.
        learn_neurons: whether ``fix`` is trained too; the energy is then not constant. Defaults to
            False.
        check_map: whether a map of your own is tried when the layer is built, on a small random
            matrix, and refused where its result is not orthogonal. Defaults to True.
        block_size: None, or b of 2 or more: the n rows of ``fix`` are split into blocks of b, and a
            last smaller one where b does not divide n. Each has a small rotation of its own.
            Neurons' lengths and angles, and so the energy, are kept as by one rotation, but rows of
            different blocks are never mixed. A b of n or more is as None. Defaults to None: one
            rotation of all rows.

    Weights:
        - ``fix [n, neurons]``: the neurons as they were drawn. Trained only with
          ``learn_neurons``.
        - ``rotation [n, n]``: trained. With ``block_size`` b below n ``[n // b, b, b]``: a
          rotation for each b rows of ``fix`` (Qiu et al., NeurIPS 2023).
        - ``rotation_rest [n % b, n % b]``: trained; that of the last rows, where b does not
          divide n.
        - ``bias``: as in Keras's layer.

    ``fix`` and the rotations are stored, and the map is computed, in float32 (float64 under that
    policy), whatever the layer's compute dtype: float16 and bfloat16 are too inaccurate for a map
    to be useful. Logs a warning from 4,096 rows (logger ``common.layers.orthogonal`` or
    ``opt_keras.layers.orthogonal``).

    Raises:
        ValueError: if an argument is not as above, or ``kernel_regularizer``, ``kernel_constraint``
            or LoRA is asked for; otherwise as Keras's layer.
    """

    plain: type[keras.layers.Layer]  # the layer of Keras that a subclass rotates
    own_arguments: tuple[str, ...]
    own_state = ("_axes", "_permuted_shape", "_matrix_shape", "rotation_rest")

    def __init_subclass__(cls, **kwargs):
        super().__init_subclass__(**kwargs)
        functions = [vars(c)["configure"] for c in cls.__mro__[::-1] if "configure" in vars(c)]
        parameters = [p for f in functions for p in inspect.signature(f).parameters.values()]
        own = [p for p in parameters if p.kind is p.KEYWORD_ONLY]
        cls.own_arguments = tuple(p.name for p in own)
        cls.plain = next(c for c in cls.__mro__ if c.__module__.startswith("keras."))
        _, *theirs, rest = inspect.signature(cls.plain.__init__).parameters.values()
        theirs = [p.replace(default=None) if p.name == _KERNEL else p for p in theirs]
        cls.__signature__ = _OfTheClass(inspect.Signature([*theirs, *own, rest]))

    def __init__(self, *args, **kwargs):
        own = {name: kwargs.pop(name) for name in self.own_arguments if name in kwargs}
        bound = inspect.signature(self.plain.__init__).bind(self, *args, **kwargs)
        if bound.arguments.get(_KERNEL) is None:
            bound.arguments[_KERNEL] = he_normal()
        super().__init__(*bound.args[1:], **bound.kwargs)
        self.configure(**own)

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
                raise ValueError(
                    f"{self.name}: a rotation keeps the neurons' lengths and angles, so that an "
                    f"OPT layer takes no {name}; there is `rotation_regularizer`"
                )
        if block_size is not None and not (type(block_size) is int and block_size >= 2):
            raise ValueError(f"`block_size` must be None or an integer over 1, not {block_size!r}")
        self.orthogonalize = map_of(orthogonalize)
        initializer = keras.initializers.get(rotation_initializer)
        # a copy: layers that share one initializer would all draw the same rotation
        self.rotation_initializer = (
            initializer.clone() if hasattr(initializer, "clone") else initializer
        )
        self.rotation_regularizer = keras.regularizers.get(rotation_regularizer)
        self.learn_neurons = learn_neurons
        self.check_map = check_map
        self.block_size = block_size

    def build(self, input_shape: Sequence[int | None]) -> None:
        if self.quantization_mode:
            self._check_quantize_args(self.quantization_mode, self.compute_dtype)
        super().build(input_shape)
        self.add_rotation()

    def add_rotation(self) -> None:
        """Replaces the kernel's variable by ``fix`` and adds the rotations."""
        kernel, shape = self._kernel, tuple(self._kernel.shape)
        contracted = contracted_axes(self, len(shape))
        self._axes = contracted + [i for i in range(len(shape)) if i not in contracted]
        self._permuted_shape = [shape[i] for i in self._axes]
        n = int(np.prod(self._permuted_shape[: len(contracted)]))
        self._matrix_shape = (n, int(np.prod(shape)) // n)
        rows = self._rotated_rows(n, shape[contracted[-1]])
        size = min(self.block_size or rows, rows)
        shape = (rows, rows) if size == rows else (rows // size, size, size)
        if self.check_map and self.orthogonalize not in orthogonal.ALL:
            check_map(self.orthogonalize, shape)
        precision = "float64" if self.variable_dtype == "float64" else "float32"
        if size >= _LARGE:
            megabytes = rows * np.dtype(precision).itemsize / 1e6  # per column
            _LOGGER.warning(
                f"{self.name}: the rotation of {rows:,} rows takes {megabytes * size:,.0f} MB, and "
                "its gradient and each average of the optimizer as much again; "
                f"with block_size=256 it would take {megabytes * 256:,.0f} MB"
            )
        fix = self.add_weight(
            name="fix",
            shape=self._matrix_shape,
            initializer=lambda shape, dtype: self.columns_of(kernel, dtype),
            dtype=precision,
            trainable=self.learn_neurons,
            autocast=False,
        )
        remove_weight(self, "_kernel")
        self.fix = mark(fix, NEURONS)
        self.rotation = self._add_rotation("rotation", shape, precision)
        self.rotation_rest = None
        if rest := rows % size:
            shape, blocks = (rest, rest), rows // size
            self.rotation_rest = self._add_rotation("rotation_rest", shape, precision, blocks)
        if self.bias is not None:
            move_to_end(self, self.bias)

    def _add_rotation(
        self, name: str, shape: Sequence[int], precision: str, first: int = 0
    ) -> keras.Variable:
        rotation = self.add_weight(
            name=name,
            shape=shape,
            initializer=drawn_one_by_one(self.rotation_initializer, first),
            regularizer=self.rotation_regularizer,
            dtype=precision,
            autocast=False,
        )
        return mark(rotation, ROTATION)

    def _rotated_rows(self, n: int, channels: int) -> int:
        return n

    @property
    def rotations(self) -> list[keras.Variable]:
        """`rotation`, and `rotation_rest` if there is one."""
        return [v for v in (self.rotation, self.rotation_rest) if v is not None]

    def orthogonal_matrices(self) -> list[tf.Tensor]:
        """Returns map(rotation) of each of `rotations`, of the same shapes."""
        return [self.orthogonalize(rotation.value) for rotation in self.rotations]

    def rows_to_rotate(self) -> tf.Tensor:
        """Returns the rows that the rotation rotates, ``[n, neurons]``: all of ``fix``."""
        return self.fix.value

    def with_rotated_rows(self, rotated: tf.Tensor) -> tf.Tensor:
        """Returns the neurons, ``[n, neurons]``, given `rows_to_rotate` after the rotation."""
        return rotated

    def rotate_back(self, matrices: list[tf.Tensor]) -> None:
        """Multiplies the rows to rotate by the transpose of `orthogonal_matrices`.

        With ``fix`` as the neurons should be, this makes them what the layer computes.
        """
        self.fix.assign(self.with_rotated_rows(rotated_back(matrices, self.rows_to_rotate())))

    def neurons(self) -> tf.Tensor:
        """Returns ``map(rotation) @ fix``, ``[n, neurons]``, the current neurons, in its dtype."""
        return neurons_together([self])[0]

    def columns_of(self, kernel: tf.Tensor, dtype: str) -> tf.Tensor:
        """Returns a kernel as a matrix ``[n, neurons]``."""
        return tf.reshape(tf.transpose(tf.cast(kernel, dtype), self._axes), self._matrix_shape)

    @property
    def kernel(self) -> tf.Tensor:
        """The current kernel, of the shape and dtype of that of Keras's layer.

        It is computed once per forward pass however often the layer is called in it.
        """
        if not self.built:
            raise AttributeError(f"{self.name} has no kernel before it is built")
        return autocast(self.kernel_of(neurons_of_this_pass(self)))

    def kernel_of(self, columns: tf.Tensor) -> tf.Tensor:
        """Returns the kernel that `columns_of` has made a matrix of, in the variables' dtype."""
        kernel = tf.reshape(tf.cast(columns, self.variable_dtype), self._permuted_shape)
        return tf.transpose(kernel, np.argsort(self._axes))

    def plain_weights(self) -> dict[str, tf.Tensor]:
        """Returns, by name, the weights of Keras's layer that this one has not."""
        return {"kernel": self.kernel}

    def rematerialized_call(self, layer_call: Callable, *args, **kwargs) -> Callable:
        """Returns Keras's call with gradient checkpointing, without `training`.

        In a graph Keras's takes no keywords, and `training` changes nothing here.
        """
        kwargs.pop("training", None)
        call = super().rematerialized_call(layer_call, *args, **kwargs)
        return lambda *args, training=None, **kwargs: call(*args, **kwargs)

    # Dense and convolutions write `kernel` alone
    save_own_variables = keras.layers.Layer.save_own_variables
    load_own_variables = keras.layers.Layer.load_own_variables

    def enable_lora(self, *args, **kwargs) -> None:
        raise NotImplementedError(
            f"{self.name} is an OPT layer: fold the model with `fold_model`, then call this"
        )

    _check_quantize_args = enable_lora  # with which each `quantize` of Keras begins

    def get_config(self) -> dict[str, Any]:
        self._refuse_a_map_that_cannot_be_loaded()
        return {
            **super().get_config(),
            **{name: getattr(self, name) for name in self.own_arguments},
            "orthogonalize": keras.saving.serialize_keras_object(self.orthogonalize),
            "rotation_initializer": keras.initializers.serialize(self.rotation_initializer),
            "rotation_regularizer": keras.regularizers.serialize(self.rotation_regularizer),
        }

    def _refuse_a_map_that_cannot_be_loaded(self) -> None:
        """Raises ValueError for a map that Keras could not find again by its name."""
        own = self.orthogonalize
        name = keras.saving.get_registered_name(own if inspect.isfunction(own) else type(own))
        if name == "<lambda>":
            reason = "has no name"
        elif keras.saving.get_registered_object(name) is None:
            reason = "is not registered with Keras"
        else:
            return
        raise ValueError(
            f"the layer {self.name} cannot be saved: its map {name} {reason}. Write the map as a "
            "function, or as a class with get_config(), with the decorator "
            "@keras.saving.register_keras_serializable()"
        )

    @classmethod
    def from_config(cls, config: dict[str, Any]):
        saved = config["orthogonalize"]
        known = keras.saving.get_registered_object(saved["registered_name"])
        if inspect.isclass(known) and not hasattr(known, "from_config"):
            own = known(**saved["config"])  # Keras would ask for its from_config()
        else:
            own = keras.saving.deserialize_keras_object(saved)
        return super().from_config({**config, "orthogonalize": own})
