"""What OPT's layers share: neurons, their rotation, and the map that turns them."""

import inspect
import logging
from collections.abc import Iterable, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from .. import orthogonal
from ..marks import NEURONS, ROTATION, mark
from ..orthogonal import Map
from .blocks import drawn_one_by_one
from .together import neurons_of_this_pass, neurons_together

_LOGGER = logging.getLogger(__name__)
_LARGE = 4096  # rows of a rotation that is warned of: 67 MB in float32
# a saved model stores its map by name; to load it, this import is enough
for _map in orthogonal.ALL:
    keras.saving.register_keras_serializable(package="opt")(_map)


def map_of(orthogonalize: Map | str) -> Map:
    """Returns the map of that name in `common.orthogonal`, or the map itself.

    Raises:
        ValueError: if there is no map of that name, or it cannot be called.
    """
    names = {own.__name__: own for own in orthogonal.ALL}
    if isinstance(orthogonalize, str) and orthogonalize in names:
        return names[orthogonalize]
    if not callable(orthogonalize):
        raise ValueError(
            f"`orthogonalize` must be a map, or the name of one ({', '.join(names)}), "
            f"not {orthogonalize!r}"
        )
    return orthogonalize


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


def passed_on(arguments: dict[str, Any], except_for: Iterable[str] = ()) -> dict[str, Any]:
    """Returns what an ``__init__`` passes on to that of its base class, given its `locals()`.

    For signatures that are spelled out because editors and `help` show them.
    """
    left_out = {"self", "__class__", "kwargs", *except_for}
    return {k: v for k, v in arguments.items() if k not in left_out} | arguments["kwargs"]


def he_normal() -> keras.initializers.Initializer:
    """Returns the original's initializer: normal with variance 2 / fan_in.

    Unlike Keras's He normal it is not truncated. Each call returns a new initializer, because a
    Keras initializer draws the same numbers each time it is used.
    """
    return keras.initializers.VarianceScaling(
        scale=2.0, mode="fan_in", distribution="untruncated_normal"
    )


class OrthogonalLayer(keras.layers.Layer):
    """A layer whose kernel is ``map(rotation) @ fix`` (Liu et al., CVPR 2021).

    Weights:
        fix: ``[n, units]``, the neurons as they were drawn, one per column. Trained only with
            ``learn_neurons``.
        rotation: ``[n, n]``, trained. With ``block_size`` b below n ``[n // b, b, b]``: a rotation
            for each b rows of ``fix`` (Qiu et al., NeurIPS 2023).
        rotation_rest: ``[n % b, n % b]``, trained: that of the last rows, where b does not divide
            n.
        bias: ``[units]``, trained, if the layer has one.

    A matrix with orthogonal blocks on its diagonal is orthogonal itself: blocks too keep the length
    of each neuron, all angles between neurons, and so the energy. They keep the same of the
    neurons' parts within each block, which one rotation of all rows is free to change: fewer
    kernels can be learned.

    ``fix`` and the rotations are stored, and the map is computed, in float32 (float64 under that
    policy), whatever the layer's compute dtype: float16 and bfloat16 are too inaccurate for a map
    to be useful. A rotation of 4,096 rows or more is warned of (logger ``common.layers.base`` or
    ``opt_keras.layers.base``).
    """

    def __init__(
        self,
        units: int,
        *,
        activation=None,
        use_bias: bool = True,
        kernel_initializer=None,
        bias_initializer="zeros",
        bias_regularizer=None,
        activity_regularizer=None,
        orthogonalize: Map | str = orthogonal.gram_schmidt,
        rotation_initializer=None,
        rotation_regularizer=None,
        learn_neurons: bool = False,
        check_map: bool = True,
        block_size: int | None = None,
        **kwargs,
    ):
        super().__init__(activity_regularizer=activity_regularizer, **kwargs)
        if units <= 0:
            raise ValueError(f"the number of neurons must be positive, not {units}")
        if block_size is not None and not (isinstance(block_size, int) and block_size >= 2):
            raise ValueError(f"`block_size` must be None or an integer over 1, not {block_size!r}")
        self.units = units
        self.orthogonalize = map_of(orthogonalize)
        self.activation = keras.activations.get(activation)
        self.use_bias = use_bias
        self.kernel_initializer = keras.initializers.get(kernel_initializer or he_normal())
        initializer = keras.initializers.get(
            rotation_initializer or keras.initializers.RandomNormal(stddev=1.0)
        )
        # a copy: layers that share one initializer would all draw the same rotation
        self.rotation_initializer = (
            initializer.clone() if hasattr(initializer, "clone") else initializer
        )
        self.bias_initializer = keras.initializers.get(bias_initializer)
        self.rotation_regularizer = keras.regularizers.get(rotation_regularizer)
        self.bias_regularizer = keras.regularizers.get(bias_regularizer)
        self.learn_neurons = learn_neurons
        self.check_map = check_map
        self.block_size = block_size

    def build_weights(self, area: int, channels: int) -> None:
        """Creates the weights, for neurons of ``n = area * channels`` entries."""
        rows = self._rotated_rows(area, channels)
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
            shape=(area * channels, self.units),
            initializer=self.kernel_initializer,
            dtype=precision,
            trainable=self.learn_neurons,
            autocast=False,
        )
        self.fix = mark(fix, NEURONS)
        self.rotation = self._add_rotation("rotation", shape, precision)
        self.rotation_rest = None
        if rest := rows % size:
            shape, blocks = (rest, rest), rows // size
            self.rotation_rest = self._add_rotation("rotation_rest", shape, precision, blocks)
        self.bias = None
        if self.use_bias:
            self.bias = self.add_weight(
                name="bias",
                shape=(self.units,),
                initializer=self.bias_initializer,
                regularizer=self.bias_regularizer,
            )

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

    def _rotated_rows(self, area: int, channels: int) -> int:
        return area * channels

    @property
    def rotations(self) -> list[keras.Variable]:
        """`rotation`, and `rotation_rest` if there is one."""
        return [v for v in (self.rotation, self.rotation_rest) if v is not None]

    def orthogonal_matrices(self) -> list[tf.Tensor]:
        """Returns map(rotation) of each of `rotations`, of the same shapes."""
        return [self.orthogonalize(rotation.value) for rotation in self.rotations]

    def rows_to_turn(self) -> tf.Tensor:
        """Returns the rows that the rotation turns, ``[n, units]``: all of ``fix``."""
        return self.fix.value

    def with_turned_rows(self, turned: tf.Tensor) -> tf.Tensor:
        """Returns the neurons, ``[n, units]``, given `rows_to_turn` after they are turned."""
        return turned

    def neurons(self) -> tf.Tensor:
        """Returns ``map(rotation) @ fix``, ``[n, units]``: the current neurons, one per column."""
        return neurons_together([self])[0]

    def neurons_of_this_pass(self) -> tf.Tensor:
        """Returns `neurons()`, computed once per forward pass however often it is called in it."""
        return neurons_of_this_pass(self)

    def get_config(self) -> dict:
        self._refuse_a_map_that_cannot_be_loaded()
        return {
            **super().get_config(),
            "orthogonalize": keras.saving.serialize_keras_object(self.orthogonalize),
            "activation": keras.activations.serialize(self.activation),
            "use_bias": self.use_bias,
            "kernel_initializer": keras.initializers.serialize(self.kernel_initializer),
            "rotation_initializer": keras.initializers.serialize(self.rotation_initializer),
            "bias_initializer": keras.initializers.serialize(self.bias_initializer),
            "rotation_regularizer": keras.regularizers.serialize(self.rotation_regularizer),
            "bias_regularizer": keras.regularizers.serialize(self.bias_regularizer),
            "learn_neurons": self.learn_neurons,
            "check_map": self.check_map,
            "block_size": self.block_size,
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
    def from_config(cls, config: dict):
        saved = config["orthogonalize"]
        known = keras.saving.get_registered_object(saved["registered_name"])
        if inspect.isclass(known) and not hasattr(known, "from_config"):
            own = known(**saved["config"])  # Keras would ask for its from_config()
        else:
            own = keras.saving.deserialize_keras_object(saved)
        return cls(**{**config, "orthogonalize": own})
