"""Rows of a comparison: a method, with settings where it is given any."""

import dataclasses
from collections.abc import Iterable

from common.errors import UserError
from common.training import command_line
from common.training.methods import known
from common.training.settings import Settings

# of the settings that all methods have, a row may set these; the others are the same for all rows
SHARED = {"base_lr", "weight_decay", "precision"}


@dataclasses.dataclass(frozen=True)
class Row:
    """A line of the table: the class of a method's settings, and names and values of those set."""

    kind: type[Settings]
    flags: tuple[tuple[str, str], ...] = ()  # sorted by name

    @property
    def name(self) -> str:
        """Returns it as in ``--methods``, such as ``opt_gs:rotation_stddev=0.2``."""
        return ":".join([self.kind.method, *(f"{name}={value}" for name, value in self.flags)])

    @property
    def title(self) -> str:
        """Returns its name in tables and images, such as ``OPT (GS), rotation_stddev 0.2``."""
        words = [name if value == "true" else f"{name} {value}" for name, value in self.flags]
        return ", ".join([self.kind.title, *words])


def parse(texts: Iterable[str]) -> list[Row]:
    """Returns the rows of texts such as ``opt_gs:rotation_stddev=0.2``, in the order of tables.

    Raises:
        UserError: for an unknown method, and for settings that a row cannot have.
    """
    methods = known()
    rows = dict.fromkeys(_row(text, methods) for text in texts)
    return sorted(rows, key=lambda row: list(methods).index(row.kind.method))


def settable(kind: type[Settings]) -> list[str]:
    """Returns the names of the settings that a row of a method may have."""
    fixed = set(Settings.__dataclass_fields__) - SHARED
    return [name for name in kind.__dataclass_fields__ if name not in fixed]


def _row(text: str, methods: dict[str, type[Settings]]) -> Row:
    method, *words = text.split(":")
    if method not in methods:
        raise UserError(f"--methods: {method!r} is no method; there are {', '.join(methods)}")
    kind, names = methods[method], sorted(word.partition("=")[0] for word in words)
    if set(names) - set(settable(kind)) or len(set(names)) < len(names):
        able = ", ".join(settable(kind))
        raise UserError(f"--methods: {text}: a row of {method} can have {able}, once")
    words = [f"--{word}" if "=" in word else f"--{word}=true" for word in words]
    try:
        settings = command_line.parse(kind, words)
    except UserError as error:
        raise UserError(f"--methods: {text}: {error}") from error
    # the values as they were read: 0.2 for 0.20 and 2e-1
    values = [command_line.as_text(getattr(settings, name)).removesuffix(".0") for name in names]
    return Row(kind, tuple(zip(names, values, strict=True)))
