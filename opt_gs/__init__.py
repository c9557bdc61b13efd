"""The method's facts, for tables and flags, without importing TensorFlow."""

TITLE = "OPT (GS)"
ROW = 40  # its place in tables: the paper's order
DEFAULTS: dict[str, object] = {}  # flags with another default here
