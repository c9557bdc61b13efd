"""Reads the official CIFAR files, which are Python pickles, without running any of their code."""

import io
import math
import pickle
import pickletools

import numpy as np


class ArrayOfBytes:
    """Takes a NumPy array's place while a pickle is read.

    It keeps the array's description and calls no function of NumPy.
    """

    def __setstate__(self, state):
        _, self.shape, self.dtype, self.fortran, self.raw = state

    def numpy(self) -> np.ndarray:
        """Returns the array, uint8, or raises ValueError."""
        raw = self.raw.encode("latin1") if isinstance(self.raw, str) else self.raw
        plain = (
            isinstance(raw, bytes)
            and isinstance(self.shape, tuple)
            and all(type(n) is int for n in self.shape)
        )
        if not plain or self.dtype.name not in ("u1", b"u1") or len(raw) != math.prod(self.shape):
            raise ValueError("an array that is not one of bytes")
        return np.frombuffer(raw, np.uint8).reshape(self.shape, order="F" if self.fortran else "C")


class _Dtype:
    def __init__(self, name, *_):
        self.name = name

    def __setstate__(self, _):
        """Ignores the rest of a dtype's state, byte order and alignment: bytes have neither."""


_ADMITTED = {
    ("numpy.core.multiarray", "_reconstruct"): lambda *_: ArrayOfBytes(),
    ("numpy._core.multiarray", "_reconstruct"): lambda *_: ArrayOfBytes(),
    ("numpy", "ndarray"): None,  # only ever an argument of _reconstruct
    ("numpy", "dtype"): _Dtype,
}


class _Unpickler(pickle.Unpickler):
    """Reads built-in containers, numbers, strings and arrays of bytes; refuses every other name."""

    def find_class(self, module: str, name: str):
        if (module, name) not in _ADMITTED:
            asked = f"{module}.{name}"
            raise pickle.UnpicklingError(f"it asks for {asked[:100]!r}, which no such file needs")
        return _ADMITTED[module, name]


_INSTRUCTIONS = frozenset(
    """PROTO FRAME STOP MARK NONE NEWTRUE NEWFALSE INT BININT BININT1 BININT2 LONG LONG1
STRING BINSTRING SHORT_BINSTRING UNICODE BINUNICODE SHORT_BINUNICODE BINBYTES SHORT_BINBYTES
BINBYTES8 EMPTY_DICT DICT SETITEM SETITEMS EMPTY_LIST LIST APPEND APPENDS EMPTY_TUPLE TUPLE TUPLE1
TUPLE2 TUPLE3 GLOBAL STACK_GLOBAL REDUCE BUILD PUT BINPUT LONG_BINPUT MEMOIZE GET BINGET
LONG_BINGET""".split()  # noqa: SIM905 (a list of one name per line is longer)
)


def _check_instructions(content: bytes) -> None:
    """Raises UnpicklingError for a pickle that would exhaust memory or the stack.

    It only looks through the instructions; it builds no object.
    """
    tuples = 0
    for count, (instruction, argument, _) in enumerate(pickletools.genops(content)):
        name = instruction.name
        if name not in _INSTRUCTIONS:
            raise pickle.UnpicklingError(
                f"it holds the instruction {name}, which no such file needs"
            )
        # an array has about five tuples; hashing thousands of nested ones would overflow the stack
        tuples += "TUPLE" in name
        # Count: an empty list takes 72 bytes and its instruction 1, so their number is limited; the
        # official training file has about 200,000 instructions.
        # PUT: the memory for the memo grows with the largest index.
        # Large: integers of this size can be chosen to have the same hash, and a dictionary of them
        # takes hours.
        number = argument if isinstance(argument, int) else 0
        beyond = "PUT" in name and number > count
        if count > 1_000_000 or tuples > 100 or abs(number) >= 2**60 or beyond:
            raise pickle.UnpicklingError("it is built as no such file is")


def unpickle(content: bytes) -> dict:
    """Returns the dictionary that an official CIFAR file holds, with its keys as strings.

    Raises:
        ValueError: if ``content`` is anything else, with the reason in words.
    """
    try:
        _check_instructions(content)
        record = _Unpickler(io.BytesIO(content), encoding="bytes").load()
    except Exception as error:  # a hostile pickle can make the unpickler raise anything
        raise ValueError(
            f"not a pickle of a CIFAR file ({str(error) or type(error).__name__})"
        ) from error
    if not isinstance(record, dict):
        raise ValueError("not a pickle of a CIFAR file (it holds no dictionary)")
    return {text(key): value for key, value in record.items() if isinstance(key, str | bytes)}


def text(value) -> str:
    return value.decode("latin1") if isinstance(value, bytes) else str(value)
