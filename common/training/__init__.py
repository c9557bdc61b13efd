"""What the scripts train with: flags, settings, the loop, and the files that a run writes."""

import os

# TensorFlow writes pages of notes about devices to stderr while it is imported; errors are still
# shown. This is set for the scripts alone: in an application the library changes no logging.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
