"""What the scripts show of TensorFlow's start-up: warnings and errors, and no note about a GPU that
is not there.
"""

import os
import pathlib
import re
import subprocess
import sys

import pytest

from common.training.startup import NOTES, has_nvidia_gpu
from tests.test_scripts import ROOT, SMALL

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


def run(
    *words: object, cwd: pathlib.Path = ROOT, **environment: str
) -> subprocess.CompletedProcess:
    """Runs Python with ``environment`` in place of what the tests or the user set of TensorFlow."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("TF_", "CUDA_"))}
    command = [sys.executable, *map(str, words)]
    environment = kept | environment
    return subprocess.run(
        command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=300
    )


@pytest.fixture
def speaking(tmp_path):
    """Returns a function that runs ``code``, where TensorFlow is a module that prints `SAID` when
    it is imported, and `SAID` and `REAL` when it is asked for devices.
    """
    (tmp_path / "keras.py").touch()
    (tmp_path / "tensorflow.py").write_text(
        f"""
import os, types
def list_physical_devices():
    os.write(2, {SAID.encode()!r})
    os.write(2, {REAL.encode()!r})
os.write(2, {SAID.encode()!r})
config = types.SimpleNamespace(list_physical_devices=list_physical_devices)
"""
    )

    def run_code(code: str, **environment: str) -> subprocess.CompletedProcess:
        head = "import os, sys\nfrom common.training import startup\n"
        return run("-c", head + code, PYTHONPATH=f"{tmp_path}:{ROOT}", **environment)

    return run_code


@pytest.mark.skipif(has_nvidia_gpu(), reason="with a GPU nothing is left out")
def test_a_run_on_a_cpu_says_nothing_that_is_not_ours(tmp_path):
    words = [*SMALL, "--iterations=4", f"--log_dir={tmp_path / 'log'}"]
    result = run("train.py", *words, cwd=ROOT / "opt_gs")
    assert result.returncode == 0, result.stderr
    lines = [line for line in re.split(r"[\r\n]+", result.stderr) if line.strip()]
    assert lines
    assert all(re.match(r"opt_gs: +\d+%\|", line) for line in lines), result.stderr


def test_warnings_and_errors_are_shown(speaking):
    """Of the start-up all that is no note about the missing GPU, in order, and everything after
    it.
    """
    code = "startup.has_nvidia_gpu = lambda: False\nstartup.import_tensorflow()\n"
    result = speaking(code + f"os.write(2, {SAID.encode()!r})")
    assert (result.returncode, result.stderr) == (0, REAL + SAID)


def test_the_last_words_of_a_crash_are_shown(speaking):
    code = "with startup._without_notes():\n    os.write(2, b'F0000 no AVX')\n    os.abort()"
    result = speaking(code)
    assert result.returncode < 0
    assert result.stderr == "F0000 no AVX"


def test_all_is_shown_with_a_gpu_or_on_request(speaking):
    on_request = speaking("startup.import_tensorflow()", TF_CPP_MIN_LOG_LEVEL="0")
    with_a_gpu = speaking("startup.has_nvidia_gpu = lambda: True\nstartup.import_tensorflow()")
    assert on_request.stderr == with_a_gpu.stderr == SAID


def test_only_notes_are_hidden_and_the_users_own_level_is_kept(speaking):
    code = "startup.import_tensorflow(); print(os.environ['TF_CPP_MIN_LOG_LEVEL'])"
    assert speaking(code).stdout == "1\n"  # TensorFlow's own: INFO is hidden, WARNING is not
    assert speaking(code, TF_CPP_MIN_LOG_LEVEL="2").stdout == "2\n"


def test_every_note_is_one_that_tensorflow_prints():
    assert all(note in SAID for note in NOTES)


@pytest.mark.parametrize(
    ("path", "content", "found"),
    [
        ("dev/nvidia0", "", True),
        ("dev/dxg", "", True),
        ("sys/bus/pci/devices/0000:00:05.0/vendor", "0x10de\n", True),  # a card without a driver
        ("sys/bus/pci/devices/0000:00:05.0/vendor", "0x8086\n", False),
        ("dev/null", "", False),
    ],
)
def test_what_a_gpu_is_known_by(tmp_path, path, content, found):
    (tmp_path / path).parent.mkdir(parents=True)
    (tmp_path / path).write_text(content)
    assert has_nvidia_gpu(f"{tmp_path}/") == found
