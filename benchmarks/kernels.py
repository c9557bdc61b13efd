"""The kernels of a compiled program, counted: a measure of its speed on a GPU that needs no GPU.

A GPU starts the kernels of a step one after the other. Where they are small, as those of the maps
are, their number decides how long a step takes. XLA's compiler for the CPU says how many there are.
The one for a GPU fuses others: compare the numbers with one another only.
"""

import re

import tensorflow as tf

# operations that only name an existing value
FREE = {"parameter", "constant", "tuple", "get-tuple-element", "bitcast"}
# the attribute that names the computation which an operation runs
RUNS = {"while": "body", "call": "to_apply", "conditional": "true_computation"}


def count(function: tf.types.experimental.PolymorphicFunction, *arguments: tf.Tensor) -> int:
    """Returns the kernels of ``function(*arguments)``, compiled by XLA; raises as `count_in`."""
    return count_in(function.experimental_get_compiler_ir(*arguments)(stage="optimized_hlo"))


def count_in(text: str) -> int:
    """Returns the kernels that an optimized HLO program starts.

    A kernel is an instruction that is none of `FREE`. A loop's body counts once per trip. Of
    `tf.cond` only the first function counts: in this project it is the usual one.

    Raises:
        ValueError: for a loop of unknown length, or `tf.switch_case`.
    """
    computations, entry = _parsed(text)

    def kernels(name: str) -> int:
        return sum(weight(*instruction) for instruction in computations[name])

    def weight(operation: str, rest: str) -> int:
        if operation not in RUNS:
            return operation not in FREE
        trips = re.search(r'"known_trip_count":\{"n":"(\d+)"', rest)
        if operation == "while" and not trips:
            raise ValueError(f"a loop of unknown length: while({rest}")
        body = re.search(rf"\b{RUNS[operation]}=%([^\s,]+)", rest)
        if not body:
            raise ValueError(f"without {RUNS[operation]}=, unknown: {operation}({rest}")
        return (int(trips[1]) if trips else 1) * kernels(body[1])

    return kernels(entry)


def _parsed(text: str) -> tuple[dict[str, list[tuple[str, str]]], str]:
    """Returns the instructions of each computation by its name, and the name of the first to run.

    A computation is a line ``%name (parameters) -> shape {``, its instructions, and a line ``}``.
    ``%name = shape operation(operands), attributes`` gives the operation, and all after it.
    """
    computations: dict[str, list[tuple[str, str]]] = {}
    entry = current = ""
    for line in text.splitlines():
        if head := re.match(r"(ENTRY )?%(\S+) \(.*\) -> .* \{$", line):
            current = head[2]
            computations[current] = []
            entry = current if head[1] else entry
        # the shape is one word, or a tuple in brackets, in which there are spaces and no "name("
        elif current and (found := re.match(r"\s+(?:ROOT )?%\S+ = .*? ([\w-]+)\((.*)$", line)):
            computations[current].append((found[1], found[2]))
    if not entry:
        raise ValueError("this is no HLO program: it has no ENTRY")
    return computations, entry
