"""Several devices and several processes train as one."""

import json
import os
import pathlib
import re
import signal
import socket
import subprocess
import sys

import pytest

from common.errors import UserError
from common.training import devices
from common.training.methods import known
from tests.conftest import ROOT, run, wait_for

# one process can have two logical CPUs, if it asks before it uses any
TWO_REPLICAS = """
import csv, dataclasses, importlib, pathlib, sys
import keras, numpy as np, tensorflow as tf
cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
keras.config.set_floatx("float64")
from common import private
from common.layers import batched
from common.training import devices, loop
from common.training.run_folder import RunFolder
from common.training.command_line import setting
from common.training.methods import method_of

name, folder, *runs = sys.argv[1:]
class Exact(importlib.import_module(f"{name}.settings").Settings):
    precision: str = setting("float64", "", choices=("float64",))
Exact.method = name
method = method_of(Exact())
if method.episode_length:
    method = dataclasses.replace(method, episode_length=3)
evaluated = []  # whether by XLA, of each call of a map
one_call = batched._rotated
batched._rotated = lambda *a: evaluated.append(private.is_compiled_by_xla()) or one_call(*a)
fits = []
for run in runs:
    distribute, jit = run.split(":")
    assert not any(evaluated)
    log = pathlib.Path(folder) / f"{distribute}_{jit}"
    log.mkdir()
    settings = Exact(
        dataset="digits", widths=(8, 8, 8, 8), iterations=7, batch_size=32, jit=jit, log_dir=log,
        log_every=1, eval_every=100, checkpoint_every=100, distribute=distribute,
    )
    strategy = devices.strategy_for(settings)
    with strategy.scope():
        model, optimizer = loop.run(settings, method, RunFolder(settings))
    with (log / "metrics.csv").open() as file:
        fits.append([float(row["fit"]) for row in csv.DictReader(file) if row["fit"]])
    assert strategy.num_replicas_in_sync == (2 if distribute == "mirrored" else 1)
    for variable in [*model.variables, *optimizer.variables]:
        if distribute == "mirrored":
            first, second = variable.value.values
            np.testing.assert_array_equal(first, second, variable.path)
assert any(evaluated) == (jit == "on" and bool(evaluated))  # of a method with maps
for other in fits[1:]:
    np.testing.assert_allclose(fits[0], other, rtol=1e-9)
"""


@pytest.mark.slow
@pytest.mark.parametrize("method", known())
def test_two_replicas_give_the_losses_of_one_device(method, tmp_path):
    """The same global batch, normalized as one: in float64, so that nothing but a mistake can show.
    All weights, OGD's state and S-OPT's rows among them, are equal on both replicas. XLA takes
    other algorithms for the maps, of which one method of each is tried."""
    runs = ["none:off", "mirrored:off"]
    if method in ("opt_cp", "opt_gs", "opt_ls"):
        runs.append("mirrored:on")
    result = run("-c", TWO_REPLICAS, method, tmp_path, *runs, TF_CPP_MIN_LOG_LEVEL="0")
    # TensorFlow says so if two branches of a condition in a map keep different dtypes
    assert "Type inference failed" not in result.stderr
    assert "invalid graph" not in result.stderr


def free_ports(count: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [s.getsockname()[1] for s in sockets]
    for s in sockets:
        s.close()
    return ports


def both(log_dir: pathlib.Path, *flags: str) -> list[subprocess.Popen]:
    """Starts two workers, whose output goes into files next to ``log_dir``."""
    log_dir.parent.mkdir(exist_ok=True)
    words = ["--dataset=digits", "--widths=8,8,8,8", "--batch_size=32", "--log_every=1"]
    words += ["--eval_every=10", "--checkpoint_every=5", "--distribute=multi_worker"]
    command = [sys.executable, "train.py", *words, f"--log_dir={log_dir}", *flags]
    addresses, processes = [f"127.0.0.1:{port}" for port in free_ports(2)], []
    for index in range(2):
        config = {"cluster": {"worker": addresses}, "task": {"type": "worker", "index": index}}
        output = (log_dir.parent / f"worker_{index}.txt").open("w")
        options = {"cwd": ROOT / "opt_gs", "stdout": output, "stderr": subprocess.STDOUT}
        options["env"] = os.environ | {"TF_CONFIG": json.dumps(config)}
        processes.append(subprocess.Popen(command, **options))
    return processes


@pytest.mark.slow
def test_two_processes_train_and_survive_a_restart(tmp_path):
    """Killed in the middle and started again, they log what workers that were not killed log."""
    logs = []
    for kill in (False, True):
        log = tmp_path / str(kill) / "log"
        flags = ["--iterations=30"]
        running = both(log, *flags)
        if kill:
            wait_for((log / "checkpoints" / "checkpoint_00000010.npz").exists, *running)
            for process in running:
                process.kill()
            assert [process.wait() for process in running] == [-signal.SIGKILL] * 2
            running = both(log, *flags, "--resume")
        output = [log.parent / f"worker_{i}.txt" for i in range(2)]
        codes = [process.wait(timeout=200) for process in running]
        assert codes == [0, 0], output[0].read_text() + output[1].read_text()
        if kill:
            done = [re.search(r"going on after (\d+) iter", path.read_text()) for path in output]
            done = [int(match[1]) for match in done]
            assert 0 < done[0] == done[1] < 30
        assert not (log / "log_train_01.txt").exists()  # one of the two writes
        logs.append([(log / f"log_{kind}_00.txt").read_text() for kind in ("train", "test")])
    assert logs[0] == logs[1]
    assert len(logs[0][0].splitlines()) == 29
    fits = [float(fit) for fit in re.findall("fit=([^,]+)", logs[0][0])]
    assert fits[-1] < fits[0]


@pytest.mark.slow
def test_a_worker_that_is_lost_ends_the_others_with_a_message(tmp_path):
    log = tmp_path / "run" / "log"
    running = both(log, "--iterations=3000")
    wait_for((log / "checkpoints" / "checkpoint_00000005.npz").exists, *running)
    running[1].kill()
    running[1].wait()
    assert running[0].wait(timeout=120) == 2
    last = (log.parent / "worker_0.txt").read_text().splitlines()[-1]
    assert "a worker is gone" in last
    assert "--resume" in last


TASK = {"type": "worker", "index": 0}
BAD_CONFIGS = [
    None,
    "[]",
    "{",
    json.dumps({"cluster": {"worker": ["localhost:1"]}}),
    json.dumps({"cluster": {"worker": ["localhost:1"]}, "task": TASK | {"index": 1}}),
    json.dumps({"cluster": {"worker": ["localhost"]}, "task": TASK}),
    json.dumps({"cluster": {"worker": ["localhost:1"], "ps": ["localhost:2"]}, "task": TASK}),
    json.dumps({"cluster": {"worker": ["localhost:99999"]}, "task": TASK}),
]


@pytest.mark.parametrize("config", BAD_CONFIGS)
def test_a_bad_cluster_is_refused_with_an_example(config, monkeypatch):
    monkeypatch.delenv("TF_CONFIG", raising=False)
    if config is not None:
        monkeypatch.setenv("TF_CONFIG", config)
    with pytest.raises(UserError, match="TF_CONFIG, such as"):
        devices._cluster()
