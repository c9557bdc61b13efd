"""What tables and flags know of the method without importing TensorFlow."""

TITLE = "Baseline"
ROW = 10  # its place in tables: the paper's order
DEFAULTS = {}  # flags that default otherwise here
