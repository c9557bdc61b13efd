"""The programs' code: settings, the training loop, and the files that a run writes."""

import sys

# A terminal's encoding may lack a character, such as ± under LC_ALL=C; print then shows an escape.
# A notebook's streams have no encoding
for stream in (sys.stdout, sys.stderr):
    if hasattr(stream, "reconfigure"):
        stream.reconfigure(errors="backslashreplace")
