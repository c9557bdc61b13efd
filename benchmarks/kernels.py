"""The kernels of a compiled program, counted: a measure of its speed on a GPU that needs no GPU.

A GPU starts the kernels of a step one after the other. Where they are small, as those of the maps
are, their number decides how long a step takes. XLA's compiler for the CPU says how many there are.
The one for a GPU fuses others. So compare the numbers with one another: those of two methods, or
those of a step before and after a change.
"""

import re
from typing import NamedTuple

import tensorflow as tf

# operations that only name an existing value
FREE = {"parameter", "constant", "tuple", "get-tuple-element", "bitcast"}


class Instruction(NamedTuple):
    """An instruction: a line ``%name = shape operation(operands), attributes``."""

    operation: str
    rest: str

    def attribute(self, pattern: str) -> str | None:
        found = re.search(pattern, self.rest)
        return found[1] if found else None


def count(function: tf.types.experimental.PolymorphicFunction, *arguments: tf.Tensor) -> int:
    """Returns the kernels of ``function(*arguments)``, a ``tf.function(jit_compile=True)``.

    It is compiled, which takes seconds to a minute, and not run.

    Raises:
        ValueError: as `count_in`.
    """
    return count_in(function.experimental_get_compiler_ir(*arguments)(stage="optimized_hlo"))


def count_in(text: str) -> int:
    """Returns the kernels that an optimized HLO program starts.

    A kernel is an instruction that is none of `FREE`; a fusion is one. A loop's body counts once
    per trip, without the test for its end. Of `tf.cond` only the first function counts: in this
    project it is the usual one, and the second is for rare matrices.

    Raises:
        ValueError: if the number of trips of a loop is not known, or the usual branch of a
            conditional is not: that of `tf.switch_case`.
    """
    computations, entry = _parsed(text)

    def kernels(name: str) -> int:
        return sum(weight(instruction) for instruction in computations[name])

    def weight(instruction: Instruction) -> int:
        operation, rest = instruction
        if operation in FREE:
            return 0
        if operation == "while":
            trips = instruction.attribute(r'"known_trip_count":\{"n":"(\d+)"')
            if trips is None:
                raise ValueError(f"a loop of unknown length: while({rest}")
            return int(trips) * kernels(_called(instruction, "body"))
        if operation == "call":
            return kernels(_called(instruction, "to_apply"))
        if operation == "conditional":
            return kernels(_called(instruction, "true_computation"))
        return 1

    return kernels(entry)


def _called(instruction: Instruction, word: str) -> str:
    name = instruction.attribute(rf"\b{word}=%([^\s,]+)")
    if name is None:
        operation, rest = instruction
        raise ValueError(f"without {word}=, what is run is not known: {operation}({rest}")
    return name


def _parsed(text: str) -> tuple[dict[str, list[Instruction]], str]:
    """Returns the instructions of each computation by its name, and the name of the first to run.

    A computation is a line ``%name (parameters) -> shape {``, its instructions, and a line ``}``.
    """
    computations: dict[str, list[Instruction]] = {}
    entry = current = ""
    for line in text.splitlines():
        if head := re.match(r"(ENTRY )?%(\S+) \(.*\) -> .* \{$", line):
            current = head[2]
            computations[current] = []
            entry = current if head[1] else entry
        elif line.startswith("}"):
            current = ""
        # the shape is one word, or a tuple in brackets, in which there are spaces and no "name("
        elif current and (found := re.match(r"\s+(?:ROOT )?%\S+ = .*? ([\w-]+)\((.*)$", line)):
            computations[current].append(Instruction(found[1], found[2]))
    if not entry:
        raise ValueError("this is no HLO program: it has no ENTRY")
    return computations, entry
