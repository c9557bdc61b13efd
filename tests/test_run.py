"""What a run says of itself: its times, its surroundings, its summary, its scalars."""

import importlib
import json
import os
import pathlib
import re
import subprocess
import types

import numpy as np
import pytest
import tensorflow as tf

from common.errors import UserError
from common.training import devices, environment, loop, startup
from opt_gs.settings import Settings
from tests.test_scripts import SMALL, rows_of, train

FLAGS = [*SMALL, "--iterations=12", "--log_every=2", "--eval_every=4", "--checkpoint_every=6"]


def settings(folder: pathlib.Path, **others: object) -> Settings:
    values = {"dataset": "digits", "widths": (4, 4, 4, 4), "iterations": 2, "batch_size": 16}
    values |= {"jit": "off", "log_dir": folder / "log"}
    values |= dict.fromkeys(("log_every", "eval_every", "checkpoint_every"), 1)
    return Settings(**values | others)


def scalars(folder: pathlib.Path) -> dict[str, list[tuple[int, float]]]:
    """Returns step and value of each scalar that TensorBoard shows."""
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    events = accumulator.EventAccumulator(str(folder), size_guidance={"tensors": 0})
    events.Reload()
    names = events.Tags()["tensors"]
    return {
        n: [(e.step, float(tf.make_ndarray(e.tensor_proto))) for e in events.Tensors(n)]
        for n in names
    }


@pytest.mark.slow
def test_times_summary_and_scalars_through_a_resumed_run(tmp_path, capsys, monkeypatch):
    """A run that is over keeps its run.json; TensorBoard has the rows of metrics.csv."""
    flags = [*FLAGS, f"--log_dir={tmp_path}"]
    train("opt_gs", *flags)
    form = r"^time: ([\d.]+) s: ([\d.]+) s to the end of the first step, then ([\d.]+) ms per step$"
    line = re.search(form, capsys.readouterr().out, re.MULTILINE)
    facts = json.loads((tmp_path / "run.json").read_text())
    for name, text in zip(("seconds", "first_step_s", "step_ms"), line.groups(), strict=True):
        assert facts[name] == pytest.approx(float(text), abs=0.06)
    # neither the models' saving nor the tests are in it
    assert facts["first_step_s"] + 11e-3 * facts["step_ms"] < facts["seconds"] - 0.3

    kept = {path: path.read_bytes() for path in tmp_path.glob("checkpoints/*")}
    kept |= {path: path.read_bytes() for path in tmp_path.glob("log_*")}
    train("opt_gs", *flags, "--resume")
    assert all(path.read_bytes() == content for path, content in kept.items())
    capsys.readouterr()
    after = json.loads((tmp_path / "run.json").read_text())
    assert after.pop("resumed_after") == 12
    assert after == facts

    # back to the first checkpoint: what came after it is done again
    (tmp_path / "checkpoints" / "checkpoint_00000012.npz").unlink()
    with monkeypatch.context() as patch:
        patch.setattr(loop, "progress_bar", lambda *_: 1 / 0)  # stopped before it has trained
        with pytest.raises(ZeroDivisionError):
            train("opt_gs", *flags, "--resume")
    assert "test_accuracy" not in json.loads((tmp_path / "run.json").read_text())
    (tmp_path / "model.keras").write_bytes(b"of before")
    train("opt_gs", *flags, "--resume")
    printed = capsys.readouterr().out
    assert "going on after 6 iterations" in printed
    assert (tmp_path / "model.keras").read_bytes() != b"of before"
    rows = [row for row in rows_of(tmp_path) if row["seconds"]]
    seconds = [float(row["seconds"]) for row in rows]
    assert seconds == sorted(seconds)
    found = scalars(tmp_path / "tensorboard" / "00")
    assert {name.split("/")[0] for name in found} == {"train", "test", "energy", "drift"}
    names = {"train/fit": "fit", "test/acc": "test_acc", "energy/conv2_0": "energy/conv2_0"}
    for name, column in names.items():
        expected = [(int(row["iteration"]), np.float32(row[column])) for row in rows if row[column]]
        assert set(found[name]) == set(expected)  # what was done again is there twice


def test_the_commit_and_the_cores_are_those_of_this_copy_and_process(tmp_path, monkeypatch):
    """A copy of the code inside another repository has no commit, nor that of GIT_DIR."""
    monkeypatch.delenv("GIT_DIR", raising=False)
    git = ["git", "-C", str(tmp_path), "-c", "user.name=a", "-c", "user.email=a@b"]
    git += ["-c", "commit.gpgsign=false"]
    for words in (["init", "-q"], ["commit", "-q", "--allow-empty", "-m", "x"]):
        subprocess.run([*git, *words], check=True)
    own = subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True, text=True, check=True)
    monkeypatch.setattr(environment, "ROOT", tmp_path)
    assert environment.environment()["git_commit"] == own.stdout[:12]
    (tmp_path / "copy").mkdir()
    monkeypatch.setattr(environment, "ROOT", tmp_path / "copy")
    monkeypatch.setenv("GIT_DIR", str(tmp_path / ".git"))
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 2, 5}, raising=False)
    monkeypatch.setattr(startup, "CORES", startup.CORES)  # puts it back after the test
    monkeypatch.setattr(environment, "CORES", importlib.reload(startup).CORES)
    found = environment.environment()
    assert found["git_commit"] is None
    assert found["device"].startswith("CPU, 3 cores, ")


@pytest.mark.parametrize(
    ("asked", "images", "replicas", "used"),
    [
        (None, 1000, 1, 128),
        (None, 60, 8, 56),
        (16, 60, 2, 16),
        (61, 60, 1, "larger than the training set, 60 images"),
        (16, 60, 3, "cannot be shared by 3 devices"),
    ],
)
def test_the_batch_size_is_the_one_asked_for_or_what_fits(
    monkeypatch, capsys, asked, images, replicas, used
):
    strategy = types.SimpleNamespace(num_replicas_in_sync=replicas)
    monkeypatch.setattr(tf.distribute, "get_strategy", lambda: strategy)
    if isinstance(used, str):
        with pytest.raises(UserError, match=used):
            loop._batch_size(asked, images)
    else:
        assert loop._batch_size(asked, images) == used
        note = f"note: --batch_size={used}, not 128: there are {images} training images"
        assert (note in capsys.readouterr().out) == (not asked and used != 128)


@pytest.mark.parametrize(
    ("distribute", "gpu_no", "visible"),
    [("none", None, "gpu0"), ("none", 1, "gpu1"), ("mirrored", None, ["gpu0", "gpu1"])],
)
def test_which_gpus_are_used(monkeypatch, tmp_path, distribute, gpu_no, visible):
    """All of a machine, as --distribute promises, but the one that is asked for."""
    gpus, set_to = {"GPU": ["gpu0", "gpu1"]}, []
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind: gpus.get(kind, []))
    monkeypatch.setattr(tf.config.experimental, "set_memory_growth", lambda *_: None)
    monkeypatch.setattr(tf.config, "set_visible_devices", lambda gpu, _: set_to.append(gpu))
    logical = lambda kind: [types.SimpleNamespace(name=gpu) for gpu in gpus.get(kind, [])]  # noqa: E731
    monkeypatch.setattr(tf.config, "list_logical_devices", logical)
    monkeypatch.setattr(tf.distribute, "MirroredStrategy", set_to.append)
    devices.strategy_for(settings(tmp_path, distribute=distribute, gpu_no=gpu_no))
    assert set_to == [visible]
