"""What tables and flags know of the method without importing TensorFlow."""

TITLE = "UPT"
ROW = 20  # its place in tables: the paper's order
DEFAULTS = {}  # flags that default otherwise here
