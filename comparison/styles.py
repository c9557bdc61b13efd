"""How rows are drawn: a colour, a line and a marker each."""

from collections.abc import Iterable

from common.training.methods import known
from comparison.rows import Row

# those of Okabe and Ito, which the colour-blind tell apart, without their yellow; and five more
COLORS = ["#000000", "#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00"]
COLORS += ["#5C3A1E", "#4B0082", "#CDBE70", "#555555", "#003F5C"]
LINES = ["-", "--", "-.", ":"]
MARKERS = ["o", "s", "^", "D", "v", "P", "X", "*", "<", "p", ">", "h", "d"]


def style(index: int) -> dict[str, str]:
    """Returns colour, line and marker number ``index``, as matplotlib's plot takes them.

    Of 26 styles no two have the same line and marker, or the same line and colour.
    """
    line = LINES[(index + index // len(COLORS)) % len(LINES)]
    marker = MARKERS[index % len(MARKERS)]
    color = COLORS[(index + 6 * (index // len(COLORS))) % len(COLORS)]  # the 13th is not black
    return {"color": color, "ls": line, "marker": marker}


def styles_of(rows: Iterable[Row]) -> dict[str, dict[str, str]]:
    """Returns each row's style by its name; a method without settings always looks the same."""
    rows, methods = list(rows), list(known())
    indices = {row.name: methods.index(row.kind.method) for row in rows if not row.flags}
    free = sorted(set(range(len(methods) + len(rows))) - set(indices.values()))
    indices |= dict(zip((row.name for row in rows if row.flags), free, strict=False))
    return {row.name: style(indices[row.name]) for row in rows}
