"""Command lines: each field of an options class is a flag, with its default, checks and help."""

import dataclasses
import math
import pathlib
import sys
import types
import typing
from collections.abc import Callable, Sequence
from typing import Any, ClassVar, TypeVar

from absl import flags

from ..errors import UserError
from .texts import shown


@dataclasses.dataclass(frozen=True)
class _About:
    help: str
    choices: Sequence[str] = ()
    least: float = -math.inf
    most: float = math.inf
    above: float = -math.inf
    positional: bool = False

    def problem(self, value: Any) -> str | None:
        """Returns what is wrong with a value, or with one of a tuple's values."""
        if self.choices and value not in (None, *self.choices):
            return f"must be one of {', '.join(self.choices)}"
        if isinstance(value, str | pathlib.Path | None):
            return None
        rules = {
            "must be finite": math.isfinite(value),
            f"must be {self.least} or more": value >= self.least,
            f"must be at most {self.most}": value <= self.most,
            f"must be over {self.above}": value > self.above,
        }
        return next((rule for rule, holds in rules.items() if not holds), None)


def setting(default: Any, help: str, **checks: Any) -> Any:
    """Returns a field of an `Options` class, which is a flag of the same name.

    The field's type is str, int, float, bool, pathlib.Path, a tuple of one of these such as
    ``tuple[int, ...]`` (values separated by commas), or one of all these ``| None``. A subclass may
    give a field another default without a call of this function: ``iterations: int = 300_000``.
    ``checks`` are ``choices``; ``least``, ``most`` and ``above``, bounds of each number; and
    ``positional=True`` for a tuple that takes the words that are not flags.
    """
    return dataclasses.field(default=default, metadata={"about": _About(help, **checks)})


@typing.dataclass_transform(frozen_default=True)
class Options:
    """A program's options; subclasses become frozen dataclasses, and their fields are `setting`s.

    Raises:
        UserError: for a value that its field does not take, or values that do not fit together.
    """

    abouts: ClassVar[dict[str, _About]] = {}  # help and checks of each field
    __dataclass_fields__: ClassVar[dict[str, dataclasses.Field]]

    def __init_subclass__(cls) -> None:
        fields = {n: f for n, f in vars(cls).items() if isinstance(f, dataclasses.Field)}
        cls.abouts = cls.abouts | {name: field.metadata["about"] for name, field in fields.items()}
        dataclasses.dataclass(frozen=True)(cls)

    def __post_init__(self) -> None:
        for name, about in self.abouts.items():
            value = getattr(self, name)
            if value == () and getattr(type(self), name) != ():
                raise UserError(f"--{name} is empty")
            for one in value if isinstance(value, tuple) else (value,):
                if problem := about.problem(one):
                    raise UserError(f"--{name}={as_text(value)}: {problem}")
        self.check()

    def complete(self, **values: Any) -> None:
        """Sets the options that are None to ``values``."""
        for name, value in values.items():
            if getattr(self, name) is None:
                object.__setattr__(self, name, value)

    def check(self) -> None:
        """Raises UserError for values that do not fit together; for subclasses."""


Kind = TypeVar("Kind", bound=Options)


def parse(kind: type[Kind], words: Sequence[str]) -> Kind:
    """Returns the options that ``words`` set, such as ``["--seed=1", "--resume"]``.

    Raises:
        UserError: for a word that is not one of the flags, and as `Options` does.
    """
    hints, values = typing.get_type_hints(kind), flags.FlagValues()
    place = next((name for name, about in kind.abouts.items() if about.positional), None)
    values.set_gnu_getopt(True)  # flags may follow other words
    for name in kind.abouts.keys() - {place}:
        define = flags.DEFINE_boolean if hints[name] is bool else flags.DEFINE_string
        define(name, None, "", values)
    try:
        others = values([sys.argv[0], *words])[1:]
    # ValueError: a flagfile that is not text; RecursionError: absl's search for a long name
    except (flags.Error, ValueError, RecursionError) as error:
        raise UserError(str(error)) from error
    present = {name: values[name].value for name in values if values[name].present}
    given = {name: _read(hints[name], value, f"--{name}: ") for name, value in present.items()}
    if place:
        hint = typing.get_args(hints[place])[0]
        given[place] = tuple(_read(hint, word, f"{word!r}: ") for word in others)
    if others and not place:
        raise UserError(f"{others[0]!r} is not a flag; flags start with --")
    return kind(**given)


def run_program(kind: type[Kind], main: Callable[[Kind], None], name: str) -> None:
    """Calls ``main`` with the options of the command line, or prints the flags after ``--help``.

    A `UserError` or OSError is one line on stderr with ``name``, and exit code 2; Ctrl-C is 130.
    """
    words = sys.argv[1:]
    if {"--help", "-help", "-h", "--helpshort"} & set(words):
        print(help_text(kind, sys.modules["__main__"].__doc__ or ""))
        return
    try:
        main(parse(kind, words))
    except (UserError, OSError) as error:
        print(f"{name}: {shown(' '.join(str(error).split()))}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("\ninterrupted", file=sys.stderr)
        sys.exit(130)


def help_text(kind: type[Options], about: str) -> str:
    """Returns the text of ``--help``: ``about`` and the flags."""
    lines = [about.strip(), "", "Flags:"]
    for name, flag in kind.abouts.items():
        choices = f"<{'|'.join(flag.choices)}>: " if flag.choices else ""
        default = getattr(kind, name)
        end = "" if default in (None, (), "") else f" (default: {as_text(default)})"
        lines += [f"  {'' if flag.positional else '--'}{name}", f"      {choices}{flag.help}{end}"]
    return "\n".join(lines)


def as_text(value: object) -> str:
    """Returns a value in the form in which a command line has it."""
    if isinstance(value, tuple | list):
        return ",".join(map(as_text, value))
    return str(value).lower() if isinstance(value, bool) else str(value)


def _read(hint: Any, value: Any, flag: str = "") -> Any:
    """Returns the value of the type ``hint`` that a flag's text stands for."""
    if isinstance(hint, types.UnionType):
        (hint,) = set(typing.get_args(hint)) - {types.NoneType}
    if typing.get_origin(hint) is tuple:
        words = filter(None, map(str.strip, value.split(",")))
        return tuple(_read(typing.get_args(hint)[0], word, flag) for word in words)
    try:
        if hint is not pathlib.Path:
            return hint(value)
        if not value:
            raise ValueError("is empty")
        value.encode()  # TensorFlow takes no name that is not UTF-8
        path = pathlib.Path(value).expanduser()
        path.exists()  # raises an OSError if the name is too long
        return path
    except (ValueError, RuntimeError, OSError) as error:
        raise UserError(f"{flag}{getattr(error, 'strerror', None) or error}") from error
