"""What the scripts train with: flags and settings, the loop, and what a run leaves in its folder."""

import os

# TensorFlow writes pages of device chatter to stderr while it is imported; errors still come
# through. Set for scripts alone: in an application the library changes no logging.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
