"""What tables and flags know of the method without importing TensorFlow."""

TITLE = "MHE"
ROW = 30  # its place in tables: the paper's order
DEFAULTS = {}  # flags that default otherwise here
