"""The programs' code: settings, the training loop, and the files that a run writes."""

import sys

# print shows an escape where a terminal lacks a character; a notebook's streams have no encoding
for stream in (sys.stdout, sys.stderr):
    if hasattr(stream, "reconfigure"):
        stream.reconfigure(errors="backslashreplace")
