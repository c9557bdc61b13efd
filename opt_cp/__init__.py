"""The method's facts, for tables and flags, without importing TensorFlow."""

TITLE = "OPT (CP)"
ROW = 70  # its place in tables: the paper's order
DEFAULTS: dict[str, object] = {"widths": "32,64,128,128"}  # flags with another default here
