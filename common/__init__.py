"""What every method shares: data, backbones, orthogonal maps and layers, loss, optimizers, the training loop."""

import os

# TensorFlow writes pages of device chatter to stderr while it is imported; errors still come through.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
