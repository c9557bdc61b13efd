"""Reads CIFAR's files, which are Python pickles, without running any code that they name."""

import io
import pickle
import pickletools
import re

import numpy as np


class _Array:
    """Replaces an array while a pickle is read: keeps its description, calls nothing of NumPy."""

    def __init__(self, raw=None, dtype=None, shape=None, order="C"):
        self.raw, self.dtype, self.shape, self.fortran = raw, dtype, shape, order == "F"

    def __setstate__(self, state):
        _, self.shape, self.dtype, self.fortran, self.raw = state

    def numpy(self) -> np.ndarray:
        """Returns the array, of integers; raises an error of any kind if it is none."""
        if not re.fullmatch("[<>|=]?[iu][1248]", self.dtype.code):
            raise ValueError("an array of something else than integers")
        raw = self.raw.encode("latin1") if isinstance(self.raw, str) else self.raw
        flat = np.frombuffer(raw, self.dtype.code)
        return flat.reshape(self.shape, order="F" if self.fortran else "C")


class _Dtype:
    def __init__(self, name, *_):
        self.name = self.code = text(name)

    def __setstate__(self, state):
        self.code = text(state[1]) + self.name  # the byte order comes first


class _Record(dict):
    """A dictionary with text for keys: the hash of nested tuples would overflow the stack."""

    __slots__ = ()

    def __setitem__(self, key, value):
        super().__setitem__(text(key), value)


# what pickles of arrays of numbers, and before protocol 3 of bytes, name
_ADMITTED = {
    "numpy._core.multiarray._reconstruct": lambda *_: _Array(),
    "numpy._core.numeric._frombuffer": _Array,
    "numpy.ndarray": None,  # only ever an argument of _reconstruct
    "numpy.dtype": _Dtype,
    "_codecs.encode": lambda string, _: string,  # text will do; copies could fill the memory
}


class _Unpickler(pickle._Unpickler):
    """Reads numbers, text, containers and arrays; refuses every other name.

    It is Python's unpickler in Python: the memo of the one in C takes memory for indices up to the
    largest.
    """

    def find_class(self, module: str, name: str):
        asked = f"{module}.{name}".replace("numpy.core.", "numpy._core.")  # as NumPy 1 calls it
        if asked not in _ADMITTED:
            raise pickle.UnpicklingError(f"it asks for {asked[:100]!r}, which no such file needs")
        return _ADMITTED[asked]

    def _record(self, items=()):
        record = _Record()
        for key, value in zip(items[::2], items[1::2], strict=True):
            record[key] = value
        self.append(record)  # type: ignore[attr-defined]

    def _refuse(self):
        raise pickle.UnpicklingError("it holds an instruction that no such file needs")

    # refused: extension codes, which may name what find_class never sees; sets, which take hashes
    dispatch = pickle._Unpickler.dispatch | {
        pickle.EMPTY_DICT[0]: _record,
        pickle.DICT[0]: lambda self: self._record(self.pop_mark()),
        **dict.fromkeys(pickle.EXT1 + pickle.EXT2 + pickle.EXT4, _refuse),
        **dict.fromkeys(pickle.EMPTY_SET + pickle.ADDITEMS + pickle.FROZENSET, _refuse),
    }


def unpickle(content: bytes, *keys: str) -> list:
    """Returns the values that a CIFAR file holds under ``keys``, None for one that is missing.

    Args:
        content: a pickle of any protocol.
        keys: names of the values; in the file they may be strings or bytes.

    Returns:
        Arrays of integers, and Python's own values.

    Raises:
        ValueError: if ``content`` is anything else, with the reason in words.
    """
    try:
        # An empty list takes 72 bytes and its instruction 1. The official training file has 200,000
        # instructions, in protocol 0 up to 800,000. Integers as indices of the memo can be chosen
        # to have the same hash, and then it takes hours
        for count, (instruction, argument, _) in enumerate(pickletools.genops(content)):
            if count > 1_000_000 or ("PUT" in instruction.name and (argument or 0) > count):
                raise ValueError("it is built as no such file is")
        record = _Unpickler(io.BytesIO(content), encoding="bytes").load()
        if not isinstance(record, _Record):
            raise ValueError("it holds no dictionary")
        values = [record.get(key) for key in keys]
        return [value.numpy() if isinstance(value, _Array) else value for value in values]
    except Exception as error:  # a hostile pickle can make the unpickler raise anything
        reason = str(error) or type(error).__name__
        raise ValueError(f"not a pickle of a CIFAR file ({reason})") from error


def text(value: str | bytes) -> str:
    """Returns ``value`` as a string; raises ValueError if it is no text."""
    if not isinstance(value, str | bytes):
        raise ValueError("a key or a name that is not text")
    return value.decode("latin1") if isinstance(value, bytes) else value
