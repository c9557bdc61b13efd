"""What OPT's layers share: neurons, their rotation, and the map that turns them."""

import keras
import tensorflow as tf

from .. import orthogonal
from ..marks import NEURONS, ROTATION, mark
from ..orthogonal import Map
from ..private import once_per_forward_pass

# a saved model stores its map by name; to load it, this import is enough
for _map in (
    orthogonal.gram_schmidt,
    orthogonal.householder,
    orthogonal.lowdin,
    orthogonal.cayley,
    orthogonal.identity,
):
    keras.saving.register_keras_serializable(package="opt")(_map)


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
        rotation: ``[n, n]``, trained.
        bias: ``[units]``, trained, if the layer has one.

    ``fix`` and ``rotation`` are stored, and the map is computed, in float32 (float64 under that
    policy), whatever the layer's compute dtype: float16 and bfloat16 are too inaccurate for a map
    to be useful.
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
        orthogonalize: Map = orthogonal.gram_schmidt,
        rotation_initializer=None,
        rotation_regularizer=None,
        learn_neurons: bool = False,
        **kwargs,
    ):
        super().__init__(activity_regularizer=activity_regularizer, **kwargs)
        if not callable(orthogonalize):
            raise ValueError(
                f"`orthogonalize` must be a map such as gram_schmidt, not {orthogonalize!r}"
            )
        if units <= 0:
            raise ValueError(f"the number of neurons must be positive, not {units}")
        self.units = units
        self.orthogonalize = orthogonalize
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

    def build_weights(self, area: int, channels: int) -> None:
        """Creates the weights, for neurons of ``n = area * channels`` entries."""
        precision = "float64" if self.variable_dtype == "float64" else "float32"
        fix = self.add_weight(
            name="fix",
            shape=(area * channels, self.units),
            initializer=self.kernel_initializer,
            dtype=precision,
            trainable=self.learn_neurons,
            autocast=False,
        )
        self.fix = mark(fix, NEURONS)
        rotation = self.add_weight(
            name="rotation",
            shape=(self._rotated_rows(area, channels),) * 2,
            initializer=self.rotation_initializer,
            regularizer=self.rotation_regularizer,
            dtype=precision,
            autocast=False,
        )
        self.rotation = mark(rotation, ROTATION)
        self.bias = None
        if self.use_bias:
            self.bias = self.add_weight(
                name="bias",
                shape=(self.units,),
                initializer=self.bias_initializer,
                regularizer=self.bias_regularizer,
            )

    def _rotated_rows(self, area: int, channels: int) -> int:
        return area * channels

    def neurons(self) -> tf.Tensor:
        """Returns ``map(rotation) @ fix``, ``[n, units]``: the current neurons, one per column."""
        return orthogonal.product(self.orthogonalize, self.rotation.value, self.fix.value)

    def neurons_of_this_pass(self) -> tf.Tensor:
        """Returns `neurons()`, computed once per forward pass however often it is called in it."""
        return once_per_forward_pass(self, self.neurons)

    def get_config(self) -> dict:
        if getattr(self.orthogonalize, "__name__", "<lambda>") == "<lambda>":
            raise ValueError(
                f"the layer {self.name} cannot be saved: its map {self.orthogonalize!r} has no "
                "name. Write the map as a function with the decorator "
                "@keras.saving.register_keras_serializable()"
            )
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
        }

    @classmethod
    def from_config(cls, config: dict):
        config = dict(config)
        config["orthogonalize"] = keras.saving.deserialize_keras_object(config["orthogonalize"])
        return cls(**config)
