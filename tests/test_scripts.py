"""The methods' train.py, most in this process, which is faster; test_signals starts it."""

import csv
import functools
import glob
import importlib.util
import json
import pathlib
import re

import keras
import numpy as np
import pytest

from common import datasets
from common.errors import UserError
from common.layers.orthogonal import OrthogonalLayer
from common.optimizers import step_decay
from common.orthogonal import identity
from common.training import evaluation, loop
from common.training.command_line import help_text, parse
from common.training.methods import known, method_of
from tests.conftest import ROOT, method_named, run

METHODS = sorted(known())
QUICK = {"opt_gs"}  # what make test trains
SMALL = ["--dataset=digits", "--widths=8,8,8,8", "--batch_size=32"]


def train(method: str, *flags: object) -> None:
    """Trains in this process, as train.py does after its imports."""
    settings = parse(known()[method], [str(flag) for flag in flags])
    loop.train(settings, method_of(settings))


def rows_of(log: pathlib.Path) -> list[dict[str, str]]:
    """Returns the rows of a run's metrics.csv."""
    with (log / "metrics.csv").open() as file:
        return list(csv.DictReader(file))


def episodes_of(name: str, length: int) -> list[str]:
    """Returns the flag for episodes of ``length`` iterations; nothing for a method without any."""
    return [f"--iterations_per_episode={length}"] if method_named(name).episode_length else []


ROTATING = ("opt_gs", "opt_hr", "opt_ls", "opt_cp", "opt_ogd", "sopt_gs")  # and nothing else


def has_gpu() -> bool:
    return bool(glob.glob("/dev/nvidia*"))


@pytest.mark.parametrize(
    "method", [pytest.param(m, marks=[pytest.mark.slow] * (m not in QUICK)) for m in METHODS]
)
def test_trains_on_digits(tmp_path, capsys, monkeypatch, method):
    """The original's lines and files, and the numbers in them agree with one another."""
    monkeypatch.setattr(evaluation, "TEST_BATCH", 100)  # a test is of several batches
    log = tmp_path / "log"
    flags = [*SMALL, "--iterations=30", "--log_every=10", "--eval_every=20", f"--log_dir={log}"]
    train(method, *flags)
    out, err = capsys.readouterr()
    output = out.splitlines()
    assert output[0] == "digits from scikit-learn: 1,437 training and 360 test images of 10 classes"
    number = r"-?\d+\.\d{4}"
    train_lines = (log / "log_train_00.txt").read_text().splitlines()
    test_lines = (log / "log_test_00.txt").read_text().splitlines()
    form = rf"====(episode_\d+====)?iter_\d+: fit={number}, reg={number}, acc={number}"
    assert all(re.fullmatch(form, line) for line in train_lines)
    form = rf"\+\+\+\+(iter_\d+|episode_\d+(====iter_\d+)?): test acc={number}"
    assert all(re.fullmatch(form, line) for line in test_lines)
    assert set(train_lines + test_lines) <= set(output)

    rows = rows_of(log)
    assert [f"{float(row['fit']):.4f}" for row in rows if row["fit"]] == [
        re.search("fit=([^,]+)", s)[1] for s in train_lines
    ]
    tests = [float(row["test_acc"]) for row in rows if row["test_acc"]]
    assert [f"{value:.4f}" for value in tests] == [line.split("=")[-1] for line in test_lines]
    assert f"test accuracy: {100 * tests[-1]:.2f} %" in output
    assert f"learning curves: {log / 'curves.png'}" in output
    assert (log / "curves.png").read_bytes().startswith(b"\x89PNG")
    assert rows[-1]["iteration"] == "29"
    assert "30/30" in err  # the progress bar

    digits = datasets.load("digits", tmp_path)
    assert (log / "classes.txt").read_text().split() == list(digits.class_names)
    for name in ("model.keras", "folded.keras"):
        model = keras.saving.load_model(log / name)
        classes = model.predict(digits.test_images, verbose=0).argmax(-1)
        accuracy = np.mean(classes == digits.test_labels)
        # another batch size rounds otherwise
        assert accuracy == pytest.approx(tests[-1], abs=1.5 / 360)
    facts = json.loads((log / "run.json").read_text())
    assert facts["settings"]["method"] == method
    assert facts["settings"]["widths"] == [8, 8, 8, 8]
    assert facts["test_accuracy"] == tests[-1]
    assert {"versions", "git_commit", "device", "seconds"} <= set(facts)
    if importlib.util.find_spec("tensorboard"):
        assert list((log / "tensorboard" / "00").glob("events.*"))
    layers = keras.saving.load_model(log / "model.keras").layers
    rotated = [layer for layer in layers if isinstance(layer, OrthogonalLayer)]
    tested = [row for row in rows if row["test_acc"] or row["iteration"] == "0"]
    assert len(tested) == len(tests) + 1  # the start too
    names = [name for name in rows[0] if name.startswith("energy/")]
    assert len(names) == 7
    for name in names:
        energies = np.array([float(row[name]) for row in tested])
        assert (energies > 0).all()
        if method in ROTATING:
            assert np.abs(energies / energies[0] - 1).max() < 1e-4
    drifts = [float(value) for name, value in tested[-1].items() if name.startswith("drift/")]
    assert len(drifts) == len(rotated)
    assert len(rotated) in (0, 7)
    if rotated and all(layer.orthogonalize is not identity for layer in rotated):
        assert max(drifts) < 10 * 128 * np.finfo("float32").eps


def test_where_the_rates_drop():
    usual, stochastic = (0.4, 2 / 3, 13 / 15), (0.4, 0.65, 0.85)
    for name in METHODS:
        expected = stochastic if name == "sopt_gs" else usual
        assert method_named(name).drops == pytest.approx(expected)
    decay = functools.partial(step_decay, iterations=75)
    rates = method_named("opt_ogd").make_optimizer(0.1, decay).rotation_learning_rate
    assert float(rates(30)) == pytest.approx(0.02 / 5)


@pytest.mark.slow
@pytest.mark.parametrize("method", ["upt", "opt_ogd", "opt_gs", "sopt_gs"])
def test_learned_neurons_warm_up_and_folding(tmp_path, method):
    """Energies move; the rate in metrics.csv grows linearly, through the episodes of S-OPT."""
    words = ["--iterations=24", "--log_every=1", "--eval_every=8", "--warmup_iterations=20"]
    words += ["--learn_neurons", *episodes_of(method, 8)]
    train(method, *SMALL, *words, f"--log_dir={tmp_path}")
    rows = rows_of(tmp_path)
    rates = {int(row["iteration"]): float(row["learning_rate"]) for row in rows if row["fit"]}
    drops = [round(24 * f) for f in method_named(method).drops]
    for i, rate in rates.items():
        expected = 0.1 * min(1, (i + 1) / 20) * 0.1 ** sum(i >= d for d in drops)
        assert rate == pytest.approx(expected, rel=1e-5)
    energies = [float(row["energy/conv2_0"]) for row in rows if row["energy/conv2_0"]]
    assert abs(energies[-1] / energies[0] - 1) > 1e-5
    model, folded = (
        keras.saving.load_model(tmp_path / f"{name}.keras") for name in ("model", "folded")
    )
    assert {"fix", "rotation"} <= {v.name for v in model.trainable_variables}
    images = datasets.load("digits", tmp_path).test_images[:64]
    scores = model.predict(images, verbose=0)
    np.testing.assert_allclose(
        folded.predict(images, verbose=0), scores, atol=1e-4 * np.abs(scores).max()
    )


def test_help_shows_our_flags_first_and_exits_0():
    for kind in known().values():
        flags = re.findall(r"^  --(\w+)$", help_text(kind, "docs"), re.MULTILINE)
        assert flags[:3] == ["dataset", "data_dir", "backbone"]
        assert {*("base_lr", "batch_size", "gpu_no", "iterations", "widths")} <= set(flags)
    result = run("train.py", "--help", cwd=ROOT / "opt_gs")
    assert result.stderr == ""
    assert "python train.py" in result.stdout


def test_flags_read_twice():
    """A notebook may run two methods; no flag of one is left to the other."""
    one = parse(known()["opt_cp"], ["--noresume", "--seed", "3", "--widths= 1,2, 3,4"])
    assert (one.seed, one.widths, one.resume) == (3, (1, 2, 3, 4), False)
    other = parse(known()["opt_cp"], ["--backbone=resnet20", "--data_dir=~"])
    assert (other.seed, other.widths, other.data_dir) == (0, None, pathlib.Path.home())
    assert parse(known()["sopt_gs"], []).reset_bn is True
    with pytest.raises(UserError, match="--seed=-1"):
        known()["upt"](seed=-1)  # an object made in Python is checked too
    with pytest.raises(UserError, match="dataset"):
        parse(known()["upt"], ["--dataset=folder"])
    with pytest.raises(UserError, match="--warmup_iterations is larger than --iterations"):
        parse(known()["upt"], ["--iterations=300", "--warmup_iterations=400"])


def test_what_does_not_fit_the_data_or_the_machine(tmp_path):
    folders = f"--data_dir={tmp_path}", f"--log_dir={tmp_path / 'log'}"
    for flag, reason in (("--batch_size=1438", ".*1437"), ("--gpu_no=3", "")):
        with pytest.raises(UserError, match=flag + reason):
            train("opt_gs", "--dataset=digits", *folders, flag)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("method", ["baseline", pytest.param("opt_cp", marks=pytest.mark.slow)])
def test_a_loss_that_is_not_finite_stops_the_run(tmp_path, method):
    flags = [*SMALL, "--base_lr=1e30", "--iterations=40", "--log_every=1", f"--log_dir={tmp_path}"]
    with pytest.raises(UserError, match=r"^(the loss is \S+ at|iteration \d+ failed)"):
        train(method, *flags)
