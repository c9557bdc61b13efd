"""The benchmarks on small networks and matrices, and the tables that they write."""

import contextlib
import csv
import io
import itertools
import math
import pathlib
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf

from benchmarks import maps, original, steps
from common.errors import UserError
from common.training.command_line import parse
from common.training.steps import make_step
from tests.conftest import ROOT, method_named

EPSILON = 2.0**-23


def run(program, folder: pathlib.Path, *words: str) -> tuple[list[dict[str, str]], str]:
    """Runs ``program``; returns the rows of its CSV, and what it printed."""
    out, printed = folder / "out.csv", io.StringIO()
    with contextlib.redirect_stdout(printed):
        program.main(parse(program.Settings, [*words, f"--out={out}"]))
    with out.open() as file:
        return list(csv.DictReader(file)), printed.getvalue()


def assert_positive(row: dict[str, str], *columns: str) -> None:
    for column in columns:
        assert math.isfinite(float(row[column])), row
        assert float(row[column]) > 0, row


def test_maps(tmp_path):
    rows, text = run(maps, tmp_path, "--sizes=27", "--rounds=3", "--jit_up_to=0")
    for batch in ("1", "5"):
        own = {row["implementation"]: row for row in rows if row["batch"] == batch}
        assert set(own) == {"tf.matmul", *maps.IMPLEMENTATIONS}
        assert own["tf.matmul"]["multiple"] == "1.0"
        for name in maps.IMPLEMENTATIONS:
            row = own[name]
            assert (row["n"], row["jit"]) == ("27", "off")
            assert_positive(row, "ms", "multiple", "orthogonality", "deviation")
            assert float(row["orthogonality"]) < 10 * 27 * EPSILON
            # a map of another matrix, or of another sign, is off by 1
            assert float(row["deviation"]) < 1e-4
    assert "| implementation | n = 27 | 5 of 27 | error, n = 27 |\n" in text
    assert "\n| **cayley product** | " in text
    assert "tensorflow 2." in text


TIMES = {"baseline": 100.0, "opt_gs": 150.0, "opt_cp": 200.0, "opt_gs:block_size=64": 125.0}


def measured(case: steps.Case) -> dict[str, float]:
    """Returns figures in place of a measurement's."""
    memory = 0.8 if case.name == "baseline" else 1.0
    ours = {} if case.peer else {"memory_gib": memory, "first_step_s": 2.0}
    kernels = {"kernels": 1234} if case.kernels else {}
    step_ms = TIMES.get(case.name, 160.0)
    return {"step_ms": step_ms} | ours | kernels


def test_steps_writes_a_table(tmp_path, monkeypatch):
    monkeypatch.setattr(steps, "in_a_process", measured)
    rows, text = run(steps, tmp_path, "--methods=opt_gs,opt_cp,opt_gs:block_size=64")
    columns = "method widths batch jit precision step_ms ratio first_step_s memory_gib memory_ratio"
    assert list(rows[0]) == [*columns.split(), "images_per_s"]
    assert {(row["method"], row["widths"], float(row["ratio"])) for row in rows} == {
        ("opt_gs", "64/64/64/64", 1.5),
        ("opt_cp", "32/64/128/128", 2.0),
        ("opt_gs:block_size=64", "64/64/64/64", 1.25),
    }
    assert "\n| OPT (CP) | 32/64/128/128 | 200 | 2.00 | 2.0 | 1.00 | 1.25 | 640 |\n" in text
    assert "\n| OPT (GS), block_size 64 | 64/64/64/64 | 125 |" in text
    assert "; --batch=128; --jit=off; --precision=float32; median of 10 steps.\n" in text


def test_steps_in_several_ways(tmp_path, monkeypatch):
    """Each way has its rows; kernels are counted of the rows alone, not of the plain steps."""
    seen = []
    monkeypatch.setattr(steps, "in_a_process", lambda case: seen.append(case) or measured(case))
    words = ["--methods=opt_gs", "--widths=8,8,8,8", "--jit=on,off", "--kernels", "--batch=32"]
    rows, text = run(steps, tmp_path, *words, "--precision=float32,mixed_bfloat16")
    ways = [(row["jit"], row["precision"]) for row in rows]
    assert ways == list(itertools.product(("on", "off"), ("float32", "mixed_bfloat16")))
    assert {row["kernels"] for row in rows} == {"1234"}
    assert {case.name for case in seen if case.kernels} == {"opt_gs"}
    assert {case.name for case in seen} == {"baseline", "opt_gs"}
    assert "| method | widths | XLA | precision | ms per step |" in text
    assert "\n| OPT (GS) | 8/8/8/8 | on | float32 | 150 | 1.50 | 2.0 | 1.00 | 1.25 | 213 |" in text
    # between two rows of one way the plain step is timed once
    assert [case.name for case in seen[:3]] == ["baseline", "opt_gs", "baseline"]
    assert len(seen) == 3 * len(rows)


def test_steps_notes_a_machine_that_is_not_idle(tmp_path, monkeypatch):
    times = iter([100.0, 150.0, 120.0])
    monkeypatch.setattr(steps, "in_a_process", lambda _: {"step_ms": next(times)})
    (row,), text = run(steps, tmp_path, "--methods=opt_gs")
    note = "not idle? the plain step took 100 ms before it and 120 ms after it"
    assert row["note"] == note
    assert f"| {note} |\n" in text


def test_steps_notes_measurements_that_failed(tmp_path, monkeypatch):
    def start(command: list[str], **_) -> subprocess.CompletedProcess:
        if '"opt_gs"' in command[-1]:
            return subprocess.CompletedProcess(command, -9, stderr="")
        return subprocess.CompletedProcess(command, 0, stdout='note\n{"step_ms": 10.0}\n')

    monkeypatch.setattr(steps.subprocess, "run", start)
    rows, text = run(steps, tmp_path, "--methods=baseline,opt_gs")
    notes = [(row["step_ms"], row["note"]) for row in rows]
    assert notes == [("10.0", ""), ("", "failed (-9): no output")]
    assert "\n| OPT (GS) | 64/64/64/64 |  |  |  | failed (-9): no output |\n" in text


@pytest.mark.slow
def test_steps_of_a_small_network(tmp_path):
    name = "sopt_gs:block_size=16:orthogonalize=cayley"
    words = ["--widths=8,8,8,8", "--steps=2", "--kernels", "--precision=mixed_float16"]
    (row,), _ = run(steps, tmp_path, *words, f"--methods={name}")
    assert row["method"] == name
    assert_positive(row, "step_ms", "ratio", "first_step_s", "memory_gib", "images_per_s")
    assert_positive(row, "kernels")


def test_peers_have_ratios_to_pytorchs_faster_plain_step(tmp_path, monkeypatch):
    peers = {"torch_plain_contiguous": "a", "torch_plain_channels_last": "b", "deel_lip": "c"}
    monkeypatch.setattr(steps, "peer_titles", lambda: peers)
    monkeypatch.setitem(TIMES, "torch_plain_contiguous", 400.0)
    monkeypatch.setitem(TIMES, "torch_plain_channels_last", 200.0)
    monkeypatch.setattr(steps, "in_a_process", measured)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    rows, _ = run(steps, tmp_path, "--peers")
    found = {row["method"]: (float(row["ratio"]), float(row["peer_ratio"])) for row in rows}
    assert found["opt_gs"] == (1.5, 0.75)
    assert found["deel_lip"] == (1.6, 0.8)
    assert found["torch_plain_contiguous"] == (4, 2)
    assert list(found) == ["baseline", "opt_gs", "opt_ls", "opt_cp", *peers]
    assert {row["widths"] for row in rows} == {"64/64/64/64"}


def test_peers_that_are_not_installed_are_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "geotorch", None)
    monkeypatch.delitem(sys.modules, "benchmarks.peers", raising=False)
    with pytest.raises(UserError, match="lacks geotorch: pip install"):
        steps.peer_titles()


@pytest.mark.slow
def test_the_peers_train():
    """Each that is installed: the loss of a batch falls when it is trained on alone."""
    peers = pytest.importorskip("benchmarks.peers")
    images, labels = steps.random_batch(4)
    for name, (_, make) in peers.PEERS.items():
        if name != "deel_lip":
            step = make((4, 4, 4, 4), images, labels)
            losses = [float(step()) for _ in range(8)]
            assert min(losses) < losses[0], name


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kernel", "method"),
    [("plain", "baseline"), ("qr", "opt_gs"), ("solve", "opt_cp"), ("svd", "opt_ls")],
)
def test_pytorch_has_the_same_network_and_step(kernel, method):
    """From the same weights, the losses are those of our step, up to float32's rounding."""
    peers = pytest.importorskip("benchmarks.peers")
    import torch

    ours = method_named(method)
    model = ours.build_model(widths=(4, 4, 4, 4))
    theirs = peers.network(kernel, "channels_last", (4, 4, 4, 4))
    convolutions = [layer for layer in model.layers if isinstance(layer, keras.layers.Conv2D)]
    there = [layer for layer in theirs if isinstance(layer, torch.nn.Conv2d)]
    with torch.no_grad():
        for layer, other in zip(convolutions, there, strict=True):
            if hasattr(layer, "rotation"):
                rotated = other.parametrizations.weight
                rotated.original.copy_(torch.tensor(layer.rotation.numpy()))
                rotated[0].neurons.copy_(torch.tensor(layer.fix.numpy().T))
            else:
                other.weight.copy_(torch.tensor(layer.kernel.numpy().transpose(3, 2, 0, 1)))
    images, labels = steps.random_batch(4)
    step = peers.step_of(theirs, "channels_last", images, labels)
    update = tf.function(make_step(ours, model, ours.make_optimizer(0.1, lambda rate: rate)))
    for tolerance in (1e-5, 1e-3):  # the first update makes the difference larger
        fit = update(tf.constant(images), tf.constant(labels, tf.int32))["fit"]
        np.testing.assert_allclose(float(step()), float(fit), rtol=tolerance)


def test_original_compares_losses_of_a_run_that_is_there(tmp_path, capsys):
    folder = tmp_path / "opt_gs"
    folder.mkdir()
    fits = "".join(f"{i},{i / 100},1.5\n" for i in range(211))
    (folder / "metrics.csv").write_text(f"iteration,fit,seconds\n{fits}")
    original.main(original.Settings(runs=("opt_gs",), out=tmp_path))
    assert capsys.readouterr().out.splitlines()[:4] == [
        "| run | iteration | the original's loss | ours | mean of our 21 batches |",
        "|---|---|---|---|---|",
        "| OPT (GS) | 100 | 3.98 | 1.00 | 1.00 |",
        "| OPT (GS) | 200 | 3.79 | 2.00 | 2.00 |",
    ]
    (folder / "metrics.csv").write_text("iteration,fit,seconds\n1,2.5,1\n2,2")  # of a line half
    assert original.losses(folder) == {}


BAD = [
    ["steps", "--methods=opt_gs:block_size=1"],
    ["steps", "--methods=opt_gs:precision=mixed_float16"],
    ["steps", "--widths=8,8,8"],
    ["steps", "--peers", "--jit=on"],
    ["maps", "--out=no/such/folder/maps.csv"],
    ["original", "--runs="],
]


@pytest.mark.parametrize("arguments", BAD, ids=" ".join)
def test_bad_arguments(monkeypatch, arguments):
    monkeypatch.chdir(ROOT)
    name, *words = arguments
    program = {"steps": steps, "maps": maps, "original": original}[name]
    with pytest.raises(UserError, match=words[0].split("=")[0]):
        program.main(parse(program.Settings, words))
