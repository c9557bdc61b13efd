"""The methods' train.py as a user starts them: in their folder, in a process of their own."""

import csv
import importlib
import importlib.util
import json
import os
import pathlib
import re
import signal
import subprocess
import sys
import time

import keras
import numpy as np
import pytest

from common import datasets
from common.layers.orthogonal import OrthogonalLayer
from common.optimizers import OGD
from common.orthogonal import identity
from common.training.method import Method
from common.training.methods import known
from tests import archives

ROOT = pathlib.Path(__file__).resolve().parents[1]
METHODS = sorted(known())
# what make test trains: an optimizer and a schedule of episodes of their own among them
QUICK = {"baseline", "opt_gs", "opt_ogd", "sopt_gs"}
SMALL = ["--dataset=digits", "--widths=8,8,8,8", "--batch_size=32"]


def start(
    method: str, *arguments: str, timeout: float = 300, **environment: str
) -> subprocess.CompletedProcess:
    """Runs ``python train.py`` in the method's folder and returns its output and exit code."""
    command = [sys.executable, "train.py", *map(str, arguments)]
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": "-1", **environment}
    return subprocess.run(
        command, cwd=ROOT / method, env=environment, capture_output=True, text=True, timeout=timeout
    )


def method_of(name: str) -> Method:
    """Returns the method in the folder ``name``, as it is without flags."""
    return importlib.import_module(f"{name}.architecture").METHOD


def episodes_of(name: str, length: int) -> list[str]:
    """Returns the flag for episodes of ``length`` iterations; nothing for a method without any."""
    return [f"--iterations_per_episode={length}"] if method_of(name).episode_length else []


def energy_may_move(method: Method, rotated: list[OrthogonalLayer]) -> float | None:
    """Returns by what share the energy of the neurons in ``rotated`` may move, None where it is
    free.

    A map keeps it to float32. Without one, rotations stay orthogonal only if the optimizer turns
    them, which OGD does up to its truncation.
    """
    if not rotated or any(layer.learn_neurons for layer in rotated):
        return None
    if all(layer.orthogonalize is not identity for layer in rotated):
        return 1e-4
    optimizer = method.make_optimizer(0.1, lambda rate, factor=0.1: rate)
    return 0.05 if isinstance(optimizer, OGD) else None


def assert_one_line_error(result: subprocess.CompletedProcess, *words: str) -> None:
    """Asserts exit code 2 and one line of ours on stderr, whatever TensorFlow's C++ code says
    besides.
    """
    lines = [
        line
        for line in result.stderr.splitlines()
        if not re.match(r"WARNING: All log messages|[IWE]0000 ", line)
    ]
    assert result.returncode == 2, result.stderr
    assert len(lines) == 1, result.stderr
    assert "Traceback" not in result.stdout
    for word in words:
        assert word in lines[0]


def test_methods_are_found():
    assert set(METHODS) > QUICK


@pytest.mark.parametrize(
    "method", [m if m in QUICK else pytest.param(m, marks=pytest.mark.slow) for m in METHODS]
)
def test_trains_on_digits(tmp_path, method):
    """Thirty iterations leave the original's lines and files, and the numbers in them agree with
    one another.
    """
    log = tmp_path / "log"
    result = start(
        method, *SMALL, "--iterations=30", "--log_every=10", "--eval_every=20", f"--log_dir={log}"
    )
    assert result.returncode == 0, result.stderr
    output = result.stdout.splitlines()
    assert output[0] == "digits from scikit-learn: 1,437 training and 360 test images of 10 classes"
    number = r"-?\d+\.\d{4}"
    train_lines = (log / "log_train_00.txt").read_text().splitlines()
    test_lines = (log / "log_test_00.txt").read_text().splitlines()
    for line in train_lines:
        assert re.fullmatch(
            rf"====(episode_\d+====)?iter_\d+: fit={number}, reg={number}, acc={number}", line
        )
    for line in test_lines:
        assert re.fullmatch(
            rf"\+\+\+\+(iter_\d+|episode_\d+(====iter_\d+)?): test acc={number}", line
        )
    assert set(train_lines + test_lines) <= set(output)

    with (log / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [f"{float(row['fit']):.4f}" for row in rows if row["fit"]] == [
        re.search("fit=([^,]+)", s)[1] for s in train_lines
    ]
    tests = [float(row["test_acc"]) for row in rows if row["test_acc"]]
    assert [f"{value:.4f}" for value in tests] == [line.split("=")[-1] for line in test_lines]
    assert f"test accuracy: {100 * tests[-1]:.2f} %" in output
    assert f"learning curves: {log / 'curves.png'}" in output
    assert (log / "curves.png").read_bytes().startswith(b"\x89PNG")
    assert 0.5 * 30 < float(rows[-1]["iteration"]) < 30
    assert "30/30" in result.stderr  # the progress bar

    digits = datasets.load("digits", tmp_path)
    assert (log / "classes.txt").read_text().split() == list(digits.class_names)
    for name in ("model.keras", "folded.keras"):
        model = keras.saving.load_model(log / name)
        accuracy = np.mean(
            model.predict(digits.test_images, verbose=0).argmax(-1) == digits.test_labels
        )
        assert accuracy == pytest.approx(
            tests[-1], abs=1.5 / 360
        )  # another batch size rounds otherwise
    facts = json.loads((log / "run.json").read_text())
    assert facts["settings"]["method"] == method
    assert facts["settings"]["widths"] == [8, 8, 8, 8]
    assert facts["test_accuracy"] == tests[-1]
    assert {"versions", "git_commit", "device", "seconds"} <= set(facts)
    if importlib.util.find_spec("tensorboard"):
        assert list((log / "tensorboard" / "00").glob("events.*"))
    # the energy of OPT's neurons stays; drift is that of the maps, of OGD's truncation, of OR's
    # penalty
    layers = keras.saving.load_model(log / "model.keras").layers
    rotated = [layer for layer in layers if isinstance(layer, OrthogonalLayer)]
    share = energy_may_move(method_of(method), rotated)
    tested = [row for row in rows if row["test_acc"] or row["iteration"] == "0"]
    assert len(tested) == len(tests) + 1  # the start too
    for name in [name for name in rows[0] if name.startswith("energy/")]:
        energies = np.array([float(row[name]) for row in tested])
        assert (energies > 0).all()
        if share is not None:
            assert np.abs(energies / energies[0] - 1).max() < share
    drifts = [float(value) for name, value in tested[-1].items() if name.startswith("drift/")]
    assert len(drifts) == len(rotated)
    assert len(rotated) in (0, 7)
    if rotated and all(layer.orthogonalize is not identity for layer in rotated):
        assert max(drifts) < 10 * 128 * np.finfo("float32").eps


# of the paper's methods: what the rules above must come to
KEPT = {"baseline": None, "upt": None, "mhe": None, "opt_or": None, "opt_ogd": 0.05}
KEPT |= dict.fromkeys(["opt_gs", "opt_hr", "opt_ls", "opt_cp", "sopt_gs"], 1e-4)


def test_whose_energy_stays():
    """By the paper: that of all who turn their neurons, but for UPT and OPT (OR)."""
    for name, share in KEPT.items():
        model = method_of(name).build_model(widths=(4, 4, 4, 4))
        rotated = [layer for layer in model.layers if isinstance(layer, OrthogonalLayer)]
        assert energy_may_move(method_of(name), rotated) == share
        assert len(rotated) == (0 if name in ("baseline", "mhe") else 7)
    build_model = importlib.import_module("opt_gs.architecture").build_model
    learned = build_model(learn_neurons=True, widths=(4, 4, 4, 4)).get_layer("conv2_0")
    assert energy_may_move(method_of("opt_gs"), [learned]) is None


def test_where_the_rates_drop():
    usual, stochastic = (0.4, 2 / 3, 13 / 15), (0.4, 0.65, 0.85)
    for name in KEPT:
        expected = stochastic if name == "sopt_gs" else usual
        assert method_of(name).drops == pytest.approx(expected)


LEARNING = ["upt", "opt_ogd", "opt_gs", "sopt_gs"]


@pytest.mark.parametrize(
    "method", [pytest.param(m, marks=pytest.mark.slow) if m != "sopt_gs" else m for m in LEARNING]
)
def test_learned_neurons_warm_up_and_folding(tmp_path, method):
    """The neurons move, so energies do; the folded model still computes what the trained one does.

    The rate that metrics.csv holds grows linearly, through the episodes of S-OPT.
    """
    words = [
        "--iterations=24",
        "--log_every=1",
        "--eval_every=8",
        "--warmup_iterations=20",
        "--learn_neurons",
    ]
    words += episodes_of(method, 8)
    result = start(method, *SMALL, *words, f"--log_dir={tmp_path}")
    assert result.returncode == 0, result.stderr
    with (tmp_path / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    rates = {int(row["iteration"]): float(row["learning_rate"]) for row in rows if row["fit"]}
    drops = [round(24 * f) for f in method_of(method).drops]
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


def test_the_scale_of_the_rotations_changes_nothing_else(tmp_path):
    """With one seed R is drawn as before, times the factor: maps that do not see it start the same
    network.
    """
    fits, energies = [], []
    for words in ([], ["--rotation_stddev=0.2"]):
        log = tmp_path / str(len(fits))
        assert (
            start(
                "opt_gs", *SMALL, "--iterations=6", "--log_every=1", f"--log_dir={log}", *words
            ).returncode
            == 0
        )
        with (log / "metrics.csv").open() as file:
            rows = list(csv.DictReader(file))
        fits.append([float(row["fit"]) for row in rows if row["fit"]])
        energies.append(float(rows[0]["energy/conv2_0"]))
    # the energy at the start is that of the same neurons, whatever R is
    assert energies[0] == pytest.approx(energies[1], rel=1e-5)
    # iteration 0 is not logged; by iteration 1 the smaller R has turned 25 times as far
    assert fits[0][0] != fits[1][0]


def test_the_same_seed_gives_the_same_log_and_nothing_is_overwritten(tmp_path):
    arguments = [
        *SMALL,
        "--iterations=12",
        "--log_every=1",
        "--eval_every=5",
        f"--log_dir={tmp_path}",
    ]
    for words in (
        ["--seed=1"],
        ["--seed=1", "--deterministic"],
        ["--seed=2"],
    ):  # on a CPU, operations are deterministic anyway
        assert start("opt_gs", *arguments, *words).returncode == 0
    logs = [(tmp_path / f"log_train_{i:02d}.txt").read_text() for i in range(3)]
    assert len(logs[0].splitlines()) == 11
    assert logs[0] == logs[1] != logs[2]
    for name in (
        "metrics{}.csv",
        "curves{}.png",
        "model{}.keras",
        "folded{}.keras",
        "classes{}.txt",
    ):
        assert all((tmp_path / name.format(number)).is_file() for number in ("_00", "_01", ""))


@pytest.mark.slow
def test_jit_gives_the_same_losses(tmp_path):
    """XLA rounds otherwise: the first losses agree to float32, and training keeps them near.

    A pool or a ReLU that decides a tie otherwise gives another gradient, however small the
    rounding. The digits are full of ties: patches of one grey. So the images are random ones, and
    the rate is 0.001, at which a tie moves the loss by some 1e-5.
    """
    archives.write_folder(tmp_path, archives.files(train=64, test=20))
    words = [f"--data_dir={tmp_path}", "--widths=8,8,8,8", "--batch_size=32", "--base_lr=0.001"]
    words += ["--iterations=6", "--log_every=1"]
    fits = []
    for jit in ("on", "off"):
        log = tmp_path / jit
        result = start("opt_gs", *words, f"--jit={jit}", f"--log_dir={log}")
        assert result.returncode == 0, result.stderr
        with (log / "metrics.csv").open() as file:
            fits.append([float(row["fit"]) for row in csv.DictReader(file) if row["fit"]])
    np.testing.assert_allclose(fits[0], fits[1], rtol=1e-3)


@pytest.mark.parametrize("method", METHODS)
def test_help_shows_our_flags_first_and_exits_0(method):
    result = start(method, "--help")
    assert result.returncode == 0
    assert result.stderr == ""
    flags = re.findall(r"^  --(\w+)$", result.stdout, re.MULTILINE)
    assert flags[:3] == ["dataset", "data_dir", "backbone"]
    assert {
        "base_lr",
        "batch_size",
        "gpu_no",
        "iterations",
        "widths",
        "seed",
        "jit",
        "log_dir",
    } <= set(flags)
    assert "python train.py" in result.stdout


BAD_FLAGS = [
    ["--batch_size=0"],
    ["--batch_size=-3"],
    ["--batch_size=many"],
    ["--warmup_iterations=-1"],
    ["--warmup_iterations=1.5"],
    ["--rotation_stddev=0"],
    ["--rotation_stddev=nan"],
    ["--base_lr=-0.1"],
    ["--base_lr=nan"],
    ["--base_lr=inf"],
    ["--base_lr=fast"],
    ["--widths=64,64,64"],
    ["--widths=16,32,64,64", "--backbone=resnet20"],
    ["--widths=32,16,64", "--backbone=resnet32"],
    ["--widths=64,64,64,0"],
    ["--widths=64,64,64,-1"],
    ["--widths=a,b,c,d"],
    ["--widths="],
    ["--iterations=0"],
    ["--iterations=1.5"],
    ["--dataset=imagenet"],
    ["--dataset=folder"],
    ["--image_size=64"],
    ["--backbone=vgg"],
    ["--jit=maybe"],
    ["--precision=float16"],
    ["--seed=-1"],
    ["--log_every=0"],
    ["--eval_every=0"],
    ["--gpu_no=-1"],
    ["--no_such_flag"],
    ["--baselr=0.1"],
    ["stray"],
]


@pytest.mark.parametrize("arguments", BAD_FLAGS, ids=" ".join)
def test_bad_flags(tmp_path, arguments):
    result = start(
        "opt_gs",
        *arguments,
        f"--log_dir={tmp_path / 'log'}",
        *([] if "dataset" in arguments[0] else ["--dataset=digits"]),
    )
    assert_one_line_error(result, "opt_gs/train.py: ", arguments[0].split("=")[0].lstrip("-"))
    assert list(tmp_path.iterdir()) == []


def test_what_does_not_fit_the_data_or_the_machine(tmp_path):
    log = f"--log_dir={tmp_path / 'log'}"
    assert_one_line_error(
        start("opt_gs", "--dataset=digits", "--batch_size=1438", log), "batch_size=1438", "1437"
    )
    assert_one_line_error(start("opt_gs", "--dataset=digits", "--gpu_no=3", log), "--gpu_no=3")
    assert list(tmp_path.iterdir()) == []


def test_data_that_is_damaged_or_not_there(tmp_path):
    log, data = tmp_path / "log", tmp_path / "data"
    flags = [f"--data_dir={data}", f"--log_dir={log}"]
    offline = {"https_proxy": "http://127.0.0.1:9"}
    assert_one_line_error(start("opt_gs", *flags, timeout=20, **offline), "--dataset=digits")
    archive = archives.write_archive(data, archives.files())
    archive.write_bytes(archive.read_bytes()[:1000])
    before = sorted(data.rglob("*"))
    assert_one_line_error(start("opt_gs", *flags), "cifar-100-python.tar.gz")
    assert sorted(data.rglob("*")) == before
    assert not log.exists()


def test_a_log_dir_that_is_a_file(tmp_path):
    path = tmp_path / "log"
    path.write_text("mine")
    assert_one_line_error(start("opt_gs", *SMALL, f"--log_dir={path}"), "--log_dir=", "log")
    assert path.read_text() == "mine"


def test_trains_on_a_cifar100_folder_given_by_data_dir(tmp_path):
    archives.write_folder(tmp_path, archives.files(train=64, test=20))
    flags = [
        "--widths=4,4,4,4",
        "--batch_size=32",
        "--iterations=4",
        f"--data_dir={tmp_path}",
        f"--log_dir={tmp_path / 'log'}",
    ]
    result = start("opt_gs", *flags)
    assert result.returncode == 0, result.stderr
    assert result.stdout.startswith(
        f"CIFAR-100 from {tmp_path / 'cifar-100-python'}: 64 training and 20 test images"
    )


@pytest.mark.parametrize("method", ["opt_gs", pytest.param("opt_cp", marks=pytest.mark.slow)])
def test_a_loss_that_is_not_finite_stops_the_run(tmp_path, method):
    flags = [*SMALL, "--base_lr=1e30", "--iterations=40", "--log_every=1", f"--log_dir={tmp_path}"]
    assert "iteration" in start(method, *flags).stderr.splitlines()[-1]
    assert start(method, *flags).returncode == 2


def test_a_home_that_is_nobodys(tmp_path):
    assert_one_line_error(
        start("opt_gs", "--data_dir=~no_such_user/data", f"--log_dir={tmp_path / 'log'}"),
        "--data_dir",
    )


@pytest.mark.slow
@pytest.mark.skipif(
    "OPT_CIFAR100_DIR" not in os.environ, reason="OPT_CIFAR100_DIR names no folder with CIFAR-100"
)
def test_learns_real_cifar100(tmp_path):
    """The original's widths and schedule, whose first rate holds for 30,000 iterations: its log has
    a loss of 3.98 at iteration 100, where guessing has log 100 = 4.6. The mean of 21 batches
    scatters by 0.03."""
    words = [
        f"--data_dir={os.environ['OPT_CIFAR100_DIR']}",
        "--log_every=1",
        f"--log_dir={tmp_path / 'log'}",
    ]
    log, end = tmp_path / "log" / "log_train_00.txt", time.monotonic() + 900
    with (tmp_path / "output.txt").open("w") as output:
        command = [sys.executable, "train.py", *words]
        process = subprocess.Popen(
            command, cwd=ROOT / "opt_gs", stdout=output, stderr=subprocess.STDOUT
        )
        while (
            process.poll() is None
            and time.monotonic() < end
            and not (log.exists() and "iter_120:" in log.read_text())
        ):
            time.sleep(0.5)
        process.terminate()
    assert process.wait(timeout=60) == 128 + signal.SIGTERM, (tmp_path / "output.txt").read_text()
    fits = {
        int(i): float(fit) for i, fit in re.findall(r"iter_(\d+): fit=([^,]+)", log.read_text())
    }
    assert np.mean([fits[i] for i in range(100, 121)]) < 4.2
