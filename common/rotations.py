"""A model's rotations in a file by themselves, in the format safetensors."""

import json
import logging
import math
import os
import pathlib
from typing import Any

import keras
import numpy as np

from .layers.orthogonal import OrthogonalLayer
from .layers.stochastic import StochasticLayer
from .private import layers_by_path

_LOGGER = logging.getLogger(__name__)
_DTYPES: dict[str, np.dtype] = {"F32": np.dtype("<f4"), "F64": np.dtype("<f8")}


def save_rotations(model: keras.Model, path: str | os.PathLike) -> None:
    """Writes the rotations of an OPT model, and nothing else of it, to ``path``.

    In the file a rotation has a name such as ``block1/attention/query/rotation``; each layer's map
    and a checksum of its neurons F are in it too. Logs a warning about other trained weights.

    Args:
        model: with OPT layers that are built.
        path: must end with ``.safetensors``.

    Raises:
        ValueError: if ``path`` ends otherwise, or the model has no OPT layer, or one that trains
            more than its rotation.
    """
    rotations, maps = _rotations_of(model)
    ours = {id(variable) for variable in rotations.values()}
    if others := [w.path for w in model.trainable_weights if id(w) not in ours]:
        _LOGGER.warning("trained, and not saved with the rotations: %s", ", ".join(others))
    header: dict = {"__metadata__": {name: str(value) for name, value in maps.items()}}
    target, start = _checked(path), 0
    arrays = {name: variable.numpy() for name, variable in rotations.items()}
    for name, array in arrays.items():
        entry = {"dtype": f"F{8 * array.itemsize}", "shape": array.shape}
        header[name] = entry | {"data_offsets": [start, start := start + array.nbytes]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    unfinished = target.with_name(f"{target.name}.{os.getpid()}")
    with unfinished.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for array in arrays.values():
            file.write(array.astype(array.dtype.newbyteorder("<")).tobytes())
    unfinished.replace(target)


def load_rotations(model: keras.Model, path: str | os.PathLike) -> None:
    """Sets a model's rotations to those that `save_rotations` has written.

    Args:
        model: converted as the one that was saved: the same layers, maps, block sizes and neurons
            F up to scale (from the same weights, by ``rotation_initializer="identity"`` or a seed).
        path: of the file.

    Raises:
        ValueError: if the file is no such file, or of another model; ``model`` is then unchanged.
    """
    rotations, maps = _rotations_of(model)
    found, found_maps = _read(_checked(path))
    both = maps.keys() & found_maps.keys()  # a file of others may name no maps
    for name in both:
        if name.endswith("//fix") and math.isclose(found_maps[name], maps[name], abs_tol=1e-3):
            found_maps[name] = maps[name]  # the same up to rounding
    here: dict[str, object] = {name: tuple(v.shape) for name, v in rotations.items()}
    here |= {layer: maps[layer] for layer in both}
    there: dict[str, object] = {name: array.shape for name, array in found.items()}
    there |= {layer: found_maps[layer] for layer in both}
    differences = [
        f"{name}: {there.get(name, 'nothing')} in place of {here.get(name, 'nothing')}"
        for name in sorted(here.keys() | there.keys())
        if here.get(name) != there.get(name)
    ]
    if differences:
        more = f" and {len(differences) - 3} more" if len(differences) > 3 else ""
        raise ValueError(f"{path} is of another model: {'; '.join(differences[:3])}{more}")
    for name, variable in rotations.items():
        variable.assign(found[name])


def _checked(path: str | os.PathLike) -> pathlib.Path:
    if pathlib.Path(path).suffix != ".safetensors":
        raise ValueError(f"the file's name must end with .safetensors, not {os.fspath(path)!r}")
    return pathlib.Path(path)


def _rotations_of(model: keras.Model) -> tuple[dict[str, keras.Variable], dict[str, Any]]:
    """Returns the rotations by path and name, and each layer's map and sum of neurons by path."""
    rotations: dict[str, keras.Variable] = {}
    maps: dict[str, Any] = {}
    for path, layer in layers_by_path(model).items():
        if not (isinstance(layer, OrthogonalLayer) and layer.built):
            continue
        if isinstance(layer, StochasticLayer) or layer.learn_neurons:
            advice = "save the model's weights, with `model.save_weights`"
            raise ValueError(f"{path} trains more than its rotation: {advice}")
        rotations |= {f"{path}/{v.name}": v for v in layer.rotations}
        rotate = layer.orthogonalize
        kind = getattr(rotate, "__name__", type(rotate).__name__)
        config = json.dumps(rotate.get_config()) if hasattr(rotate, "get_config") else ""
        maps[path] = kind + config
        fix = np.ravel(layer.fix)
        total = np.cos(np.arange(fix.size)) @ fix / (np.linalg.norm(fix) or 1.0)
        maps[f"{path}//fix"] = float(total)  # a path has no double slash
    if not rotations:
        raise ValueError(f"{model.name} has no OPT layer")
    return rotations, maps


def _read(path: pathlib.Path) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    data = path.read_bytes()
    try:
        start = 8 + int.from_bytes(data[:8], "little")
        header: dict = json.loads(data[8:start])
        maps = header.pop("__metadata__", {}).items()
        maps = {name: float(v) if name.endswith("//fix") else str(v) for name, v in maps}
        arrays = {}
        for name, entry in header.items():
            dtype, shape = _DTYPES[entry["dtype"]], entry["shape"]
            values = np.frombuffer(data, dtype, math.prod(shape), start + entry["data_offsets"][0])
            arrays[name] = values.reshape(shape)
    except Exception as error:  # a damaged or hostile file can raise anything
        raise ValueError(f"{path} is no safetensors file of rotations, or damaged") from error
    return arrays, maps
