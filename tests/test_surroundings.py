"""A run depends neither on settings of other programs nor on the file system; it starts quietly."""

import errno
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys

import keras
import tensorflow as tf

from common.training import run_folder
from common.training.command_line import parse
from common.training.methods import known
from tests.conftest import ROOT, run
from tests.test_checkpoints import ROW, logs
from tests.test_scripts import SMALL, has_gpu

# train.py on a file system that has no locks and cannot sync a folder
ODD_FILE_SYSTEM = """
import errno, fcntl, os, runpy, stat, sys
def fail(number):
    raise OSError(number, os.strerror(number))
fsync = os.fsync
def sync(file):
    return fail(errno.EINVAL) if stat.S_ISDIR(os.fstat(file).st_mode) else fsync(file)
fcntl.flock, os.fsync = lambda *_: fail(errno.ENOLCK), sync
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def test_a_run_in_odd_surroundings(tmp_path):
    """On such a file system, with settings that each would end the run."""
    (tmp_path / "keras.json").write_text('{"backend": "no", "image_data_format": "channels_first"}')
    (tmp_path / "config").mkdir()
    (tmp_path / "config/matplotlibrc").write_text("text.usetex: True\n")
    environment = {
        "MPLCONFIGDIR": str(tmp_path / "config"),
        "KERAS_HOME": str(tmp_path),
        "KERAS_BACKEND": "torch",
        "MPLBACKEND": "module://matplotlib_inline.backend_inline",  # of a notebook
        "PYTHONSAFEPATH": "1",
        "LC_ALL": "C",
        "PYTHONUTF8": "0",
        "PYTHONCOERCECLOCALE": "0",
        "PYTHONPATH": "",
    }
    script, log = ROOT / "opt_gs" / "train.py", tmp_path / "log"
    flags = [*SMALL, "--iterations=4", "--log_every=2", "--eval_every=4", f"--log_dir={log}"]
    code = f"import sys; sys.argv = {[str(script), *flags]}\n{ODD_FILE_SYSTEM}"
    result = run("-c", code, cwd=tmp_path, **environment)
    said = [line for line in re.split(r"[\r\n]+", result.stderr) if line.startswith("warning")]
    reason = os.strerror(errno.ENOLCK)
    other = "do not start another run there before this one ends"
    assert said == [f"warning: {log} cannot be locked ({reason}); {other}"]
    assert (log / "curves.png").stat().st_size > 10_000
    assert list(log.glob("checkpoints/checkpoint_*.npz"))
    assert "test_accuracy" in json.loads((log / "run.json").read_text())
    assert keras.saving.load_model(log / "folded.keras").input_shape == (None, 32, 32, 3)


def test_an_image_that_cannot_be_drawn_is_one_warning(tmp_path, monkeypatch, capsys):
    def fail(*_):
        raise RuntimeError("latex could\nnot be found")

    monkeypatch.setattr(run_folder, "draw", fail)
    run = logs(tmp_path)
    for iteration in (1, 2):
        run.test("iter", **ROW | {"iteration": iteration, "test_acc": 0.5})
    said = "warning: curves.png cannot be drawn: latex could not be found\n"
    assert capsys.readouterr().err == said
    assert (tmp_path / "log_test_00.txt").read_text().count("\n") == 2


def test_logs_without_tensorboard(tmp_path, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    monkeypatch.delattr(tf.summary, "scalar")  # it raises where TensorBoard is missing
    logs(tmp_path).log("iter_1", iteration=1, **ROW)
    assert not (tmp_path / "tensorboard").exists()


def test_make_quickstart_in_a_folder_with_a_space(tmp_path):
    """Its Python is a script here, which writes where it was started and with what."""
    folder = tmp_path / "a folder"
    (folder / "opt_gs").mkdir(parents=True)
    (folder / ".venv" / "bin").mkdir(parents=True)
    for name in ("Makefile", "requirements.txt"):
        shutil.copy(ROOT / name, folder)
    python = folder / ".venv" / "bin" / "python"
    python.write_text('#!/bin/sh\necho "$PWD $*"\n')
    python.chmod(0o755)
    command = ["make", "-s", "quickstart", "PYTHON=true"]
    result = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    *where, _, words = result.stdout.splitlines()[-1].partition(" train.py ")
    assert where == [f"{folder}/opt_gs"]
    assert parse(known()["opt_gs"], words.split()).dataset == "digits"


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
