"""How rows are drawn: colours that the colour-blind tell apart, and lines and marks that need no colour."""

# Okabe and Ito's without their yellow, which is pale on white; then darker and lighter ones between them
COLORS = ["#000000", "#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#332288"]
COLORS += ["#999933", "#882255", "#888888", "#5C3A1E"]
LINES = ["-", "--", "-.", ":"]
MARKERS = ["o", "s", "^", "D", "v", "P", "X", "*", "<", "p", ">", "h", "d"]


def style(index: int) -> dict[str, str]:
    """Returns colour, line and marker number ``index`` as matplotlib's plot takes them.

    Up to 12 differ in colour, up to 52 in line or marker.
    """
    return {
        "color": COLORS[index % len(COLORS)],
        "ls": LINES[index % len(LINES)],
        "marker": MARKERS[index % len(MARKERS)],
    }
