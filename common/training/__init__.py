"""What the scripts train with: flags, settings, the loop, and the files that a run writes."""

import io
import sys

# Every script comes through here. What a terminal's encoding lacks, such as ± under LC_ALL=C, is
# printed as an escape; without this, print raises an error
for stream in (sys.stdout, sys.stderr):
    if isinstance(stream, io.TextIOWrapper):  # a notebook's are not
        stream.reconfigure(errors="backslashreplace")
