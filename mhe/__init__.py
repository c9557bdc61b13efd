"""The method's facts, for tables and flags, without importing TensorFlow."""

TITLE = "MHE"
ROW = 30  # its place in tables: the paper's order
DEFAULTS: dict[str, object] = {}  # flags with another default here
