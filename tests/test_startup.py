"""What the programs show while TensorFlow starts: warnings and errors, and no notes."""

import os
import subprocess
import sys

from tests.conftest import ROOT
from tests.test_scripts import has_gpu

# as TensorFlow 2.21 prints them
SAID = """\
WARNING: All log messages before absl::InitializeLog() is called are written to STDERR
I0000 00:00:1795554150.768963   29053 port.cc:153] oneDNN custom operations are on. You may see
I0000 00:00:1795554150.769322   29053 cudart_stub.cc:31] Could not find cuda drivers on your \
machine, GPU will not be used.
E0000 00:00:1795554152.503411   29053 cuda_platform.cc:52] failed call to cuInit: INTERNAL: CUDA
"""
REAL = """\
I0000 00:00:1795554150.769322   29053 another.cc:31] a note
W0000 00:00:1795554150.769322   29053 gpu_device.cc:31] Cannot dlopen some GPU libraries
E0000 00:00:1795554150.769322   29053 cuda_platform.cc:60] another error
"""
CODE = """
import os
from common.training import startup
try:
    startup.import_tensorflow()
finally:
    os.write(2, b"after\\n")
"""


def test_notes_alone_are_hidden(tmp_path):
    """TensorFlow is here a module that prints notes, warnings and errors, and may then fail."""
    (tmp_path / "keras.py").write_text("from unittest.mock import Mock\nconfig = Mock()")
    for fails, level, shown in (
        (False, {}, SAID + REAL if has_gpu() else REAL),
        (False, {"TF_CPP_MIN_LOG_LEVEL": "0"}, SAID + REAL),  # the user asks for all
        (True, {}, SAID + REAL if has_gpu() else REAL),
    ):
        module = f"import os, types\nos.write(2, {(SAID + REAL).encode()!r})\n"
        module += "1 / 0\n" if fails else ""
        module += "config = types.SimpleNamespace(list_physical_devices=list)"
        (tmp_path / "tensorflow.py").write_text(module)
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("TF_", "CUDA_"))}
        kept |= {"PYTHONPATH": f"{tmp_path}:{ROOT}"} | level
        words = [sys.executable, "-c", CODE]
        result = subprocess.run(words, env=kept, capture_output=True, text=True)
        assert result.stderr.startswith(shown + "after\n")
        assert ("ZeroDivisionError" in result.stderr) == fails == bool(result.returncode)
