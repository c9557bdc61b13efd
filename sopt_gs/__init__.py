"""The method's facts, for tables and flags, without importing TensorFlow."""

TITLE = "S-OPT (GS)"
ROW = 100  # its place in tables: the paper's order
# flags with another default here
DEFAULTS: dict[str, object] = {"iterations": 300_000, "eval_every": 750}
