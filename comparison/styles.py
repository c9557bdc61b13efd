"""How rows are drawn: colours that the colour-blind tell apart; lines and marks beside colour."""

import itertools
from collections.abc import Iterable

from common.training.methods import known
from comparison.rows import Row

# Okabe and Ito's without their yellow, which is pale on white, and five more that are as far apart
COLORS = ["#000000", "#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00"]
COLORS += ["#5C3A1E", "#4B0082", "#CDBE70", "#555555", "#003F5C"]
LINES = ["-", "--", "-.", ":"]
MARKERS = ["o", "s", "^", "D", "v", "P", "X", "*", "<", "p", ">", "h", "d"]


def style(index: int) -> dict[str, str]:
    """Returns colour, line and marker number ``index``, as matplotlib's plot takes them.

    Each of the first 12 has a colour of its own, each of the first 13 a marker, and of 26 no two
    have the same line and marker. Two of the same colour have different lines.
    """
    return {
        "color": COLORS[index % len(COLORS)],
        "ls": LINES[(index + index // len(COLORS)) % len(LINES)],
        "marker": MARKERS[index % len(MARKERS)],
    }


def styles_of(rows: Iterable[Row]) -> dict[str, dict[str, str]]:
    """Returns the style of each row by its name.

    A method without settings looks the same wherever it is drawn; the others take what is free.
    """
    rows, methods = list(rows), list(known())
    indices = {row.name: methods.index(row.method) for row in rows if not row.flags}
    free = (index for index in itertools.count() if index not in set(indices.values()))
    indices |= {row.name: next(free) for row in rows if row.flags}
    return {row.name: style(indices[row.name]) for row in rows}
