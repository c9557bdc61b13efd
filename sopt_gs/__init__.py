"""What tables and flags know of the method without importing TensorFlow."""

TITLE = "S-OPT (GS)"
ROW = 100  # its place in tables: the paper's order
DEFAULTS = {"iterations": 300_000, "eval_every": 750}  # flags that default otherwise here
