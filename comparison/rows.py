"""Rows of a comparison: a method, with settings where it is given any."""

import dataclasses
import re

from common.training.methods import known
from common.training.settings import Settings

# what a row may set of the flags that all methods share; the others are alike for all rows
SHARED = ("base_lr", "precision")
_FOR_ALL = {field.name for field in dataclasses.fields(Settings)} - {*SHARED}
# flags of compare.py that --preset=NAME sets, and the rows that it adds to those of --methods
PRESETS: dict[str, dict] = {
    "sopt": {"added": [f"sopt_gs:rotated_fraction={part}" for part in (0.125, 0.25, 0.5, 1)]},
    "few": {
        "train_images": 5000,
        "widths": "32,32,32,32",
        "iterations": 7500,
        "methods": [
            *("baseline", "baseline:base_lr=0.05", "baseline:base_lr=0.2"),
            *("baseline:weight_decay=0.001", "baseline:weight_decay=0.0025", "upt", "mhe"),
            *("opt_gs", "opt_ogd", "opt_or", "sopt_gs"),
            *(f"{name}:rotation_stddev=0.2" for name in ("opt_gs", "opt_hr", "opt_ls", "opt_cp")),
        ],
    },
}
_LONGEST = 150  # characters of a row's name: file names end at 255


@dataclasses.dataclass(frozen=True)
class Row:
    """A line of the table: a method with its settings.

    Attributes:
        kind: the class of the method's settings.
        flags: name and value of each of its settings, sorted by name.
    """

    kind: type[Settings]
    flags: tuple[tuple[str, str], ...] = ()

    @property
    def method(self) -> str:
        return self.kind.method

    @property
    def name(self) -> str:
        """Returns it as it stands in ``--methods``, such as ``opt_gs:rotation_stddev=0.2``."""
        return ":".join([self.method, *(f"{name}={value}" for name, value in self.flags)])

    @property
    def folder(self) -> str:
        """Returns the part of its runs' folders that is its own."""
        return self.name.replace(":", "_")

    @property
    def title(self) -> str:
        """Returns its name in tables and images, such as ``OPT (GS), rotation_stddev 0.2``."""
        words = [name if value == "true" else f"{name} {value}" for name, value in self.flags]
        return ", ".join([self.kind.title, *words])


def parse(texts: list[str]) -> list[Row]:
    """Returns the rows that ``texts`` name, in the order of tables; those of one method in theirs.

    Args:
        texts: such as ``opt_gs`` and ``opt_gs:rotation_stddev=0.2``. A flag without ``=`` is true.
            Rows that say the same are one.

    Raises:
        ValueError: for what is no method, and for flags that no row may set.
    """
    methods = known()
    rows = {row.name: row for row in (_row(text, methods) for text in texts)}
    return sorted(rows.values(), key=lambda row: list(methods).index(row.method))


def _row(text: str, methods: dict[str, type[Settings]]) -> Row:
    method, *words = text.split(":")
    if method not in methods:
        raise ValueError(f"{method!r} is no method; there are {', '.join(methods)}")
    if len(text) > _LONGEST:
        raise ValueError(f"{text[:40]}... is too long for a folder's name")
    flags = {}
    for word in words:
        # what can stand in a folder's name
        match = re.fullmatch(r"([A-Za-z]\w*)(?:=([\w.+-]+))?", word, re.ASCII)
        if not match:
            raise ValueError(f"{word!r} of {method} is not FLAG=VALUE, in letters, digits and _.+-")
        name, value = match[1], match[2] or "true"
        if _is_for_all(name):
            raise ValueError(f"--{name} is alike for all rows: {method} cannot have its own")
        if name in flags:
            raise ValueError(f"{method} has {name} twice")
        flags[name] = plain(value)
    return Row(methods[method], tuple(sorted(flags.items())))


def _is_for_all(name: str) -> bool:
    return bool({name, name.removeprefix("no")} & _FOR_ALL)  # --noresume


def plain(value: str) -> str:
    """Returns one way of writing for all that mean the same, such as 0.2 for 0.20 and 2e-1."""
    if value.lower() in ("true", "false"):
        return value.lower()
    if not re.fullmatch(r"[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?", value, re.ASCII | re.IGNORECASE):
        return value
    return str(int(value)) if value.isdecimal() else repr(float(value)).removesuffix(".0")
