"""What tables and flags know of the method without importing TensorFlow."""

TITLE = "OPT (CP)"
ROW = 70  # its place in tables: the paper's order
DEFAULTS = {"widths": "32,64,128,128"}  # flags that default otherwise here
