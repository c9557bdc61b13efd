"""What tables and flags know of the method without importing TensorFlow."""

TITLE = "OPT (OR)"
ROW = 90  # its place in tables: the paper's order
DEFAULTS = {}  # flags that default otherwise here
