"""Checkpoints: runs that are killed, stopped or out of disk go on bit for bit, and no damaged file
is taken for a sound one.
"""

import collections
import contextlib
import csv
import errno
import functools
import hashlib
import itertools
import json
import os
import pathlib
import pickle
import random
import re
import resource
import shutil
import signal
import subprocess
import sys
import time
import types
import zipfile
from collections.abc import Callable, Iterable, Iterator

import keras
import numpy as np
import pytest

from common.errors import UserError
from common.training.checkpoints import Checkpoints, Progress
from common.training.files import locked
from common.training.interruption import SIGNALS, Interruption
from common.training.run_folder import RunFolder
from tests.test_hostile import peak
from tests.test_scripts import METHODS, ROOT, SMALL, episodes_of

FLAGS = [*SMALL, "--iterations=30", "--log_every=1", "--eval_every=5", "--checkpoint_every=3"]
LOGS = ("log_train_00.txt", "log_test_00.txt", "metrics.csv")


# Runs


@pytest.fixture(scope="module")
def begin() -> Iterator[Callable[..., subprocess.Popen]]:
    """Starts a method's train.py and leaves it running; what still runs at the end is killed."""
    processes = []

    def start(method: str, log: pathlib.Path, *flags: str) -> subprocess.Popen:
        # kills are to fall into several episodes
        command = [
            sys.executable,
            "train.py",
            *FLAGS,
            *episodes_of(method, 7),
            f"--log_dir={log}",
            *flags,
        ]
        environment = os.environ | {
            "CUDA_VISIBLE_DEVICES": "-1",
            "https_proxy": "http://127.0.0.1:9",
        }
        pipe = subprocess.PIPE
        processes.append(
            subprocess.Popen(
                command, cwd=ROOT / method, env=environment, stdout=pipe, stderr=pipe, text=True
            )
        )
        return processes[-1]

    yield start
    for process in processes:
        if process.poll() is None:
            process.kill()
            process.communicate()


@pytest.fixture(scope="module")
def whole(begin, tmp_path_factory) -> Callable[[], tuple[pathlib.Path, str]]:
    """Begins a run of opt_gs that nothing disturbs; calling it waits for the end and returns the
    run's folder and output.
    """
    log = tmp_path_factory.mktemp("whole") / "log"
    process = begin("opt_gs", log)
    return functools.cache(lambda: (log, succeed(process).stdout))


def end(process: subprocess.Popen) -> subprocess.CompletedProcess:
    """Waits for a process; of its stderr only what is ours is returned, neither TensorFlow's lines
    nor the progress bar.
    """
    out, err = process.communicate(timeout=300)
    noise = r"WARNING: All log messages|[IWE]0000 |\w+: +\d+%\||\s*$"
    err = "\n".join(line for line in err.splitlines() if not re.match(noise, line))
    return subprocess.CompletedProcess(process.args, process.returncode, out, err)


def succeed(process: subprocess.Popen) -> subprocess.CompletedProcess:
    result = end(process)
    assert (result.returncode, result.stderr) == (0, "")
    return result


def complain(process: subprocess.Popen, *words: object) -> None:
    """Asserts that a process ends with exit code 2 and one line, in which the words are."""
    result = end(process)
    assert result.returncode == 2, result.stderr
    assert len(result.stderr.splitlines()) == 1, result.stderr
    assert all(str(word) in result.stderr for word in words), result.stderr


def wait_for(happens: Callable[[], object], process: subprocess.Popen | None = None) -> None:
    """Returns once something has happened, while ``process`` runs."""
    deadline = time.monotonic() + 300
    while not happens():
        assert process is None or process.poll() is None, end(process).stderr
        assert time.monotonic() < deadline
        time.sleep(0.01)


def lines(log: pathlib.Path) -> int:
    """Returns how many training lines there are; a run that is resumed cuts them back before it
    adds any.
    """
    path = log / LOGS[0]
    return path.read_text().count("acc=") if path.exists() else 0


def disturb(
    process: subprocess.Popen,
    number: int,
    log: pathlib.Path,
    after: int,
    chance: random.Random,
    *others: int,
) -> subprocess.CompletedProcess:
    """Sends a running process a signal at a random moment, once its log has ``after`` lines and a
    few more; then ``others``, 20 milliseconds apart.
    """
    after += chance.randint(0, 5)
    wait_for(lambda: lines(log) >= after, process)
    time.sleep(chance.uniform(0, 0.3))  # so that it falls anywhere in a step
    assert process.poll() is None
    process.send_signal(number)
    for other in others:
        time.sleep(0.02)
        process.send_signal(other)
    result = end(process)
    assert result.returncode == (-number if number == signal.SIGKILL else 128 + number), (
        result.stderr
    )
    return result


def kill(
    process: subprocess.Popen, log: pathlib.Path, after: int, chance: random.Random
) -> subprocess.CompletedProcess:
    """Kills a process at a random moment.

    Garbage is added to its logs, as if more had been logged since the checkpoint.
    """
    result = disturb(process, signal.SIGKILL, log, after, chance)
    for name in LOGS:
        with (log / name).open("a") as file:
            file.write("lost\n1,2")
    return result


def went_on_after(result: subprocess.CompletedProcess) -> int:
    """Returns after how many iterations a run went on, which must lie strictly inside it."""
    done = int(re.search(r"going on after (\d+) iterations", result.stdout)[1])
    assert 0 < done < 30
    return done


def survive(
    begin, log: pathlib.Path, method: str, *flags: str, kills: int, earliest: int = 4
) -> list[int]:
    """Kills and resumes a run so many times, lets it end, and returns after how many iterations
    each part went on.
    """
    chance, parts = random.Random(method), []  # noqa: S311
    process = begin(method, log, *flags)
    for _ in range(kills):
        parts.append(kill(process, log, max(earliest, lines(log) + 1), chance))
        process = begin(method, log, *flags, "--resume")
    return [went_on_after(result) for result in [*parts[1:], succeed(process)]]


def obey(method: str, number: int, said: str) -> None:
    """Runs the command that the last line of a run that was told to end asks for, as it stands
    there.
    """
    said = re.fullmatch(
        rf"{signal.Signals(number).name} after (\d+) iterations; "
        r"to go on: (\S*python\S* .+ --resume)",
        said,
    )
    path = f"{pathlib.Path(sys.executable).parent}:{os.environ['PATH']}"
    environment = os.environ | {"CUDA_VISIBLE_DEVICES": "-1", "PATH": path}
    command = ["/bin/sh", "-c", said[2]]
    result = subprocess.run(
        command, cwd=ROOT / method, env=environment, capture_output=True, text=True, timeout=300
    )
    assert result.returncode == 0, result.stderr
    assert went_on_after(result) == int(said[1])


def outcome(log: pathlib.Path) -> dict[str, object]:
    """Returns what two runs must have alike: a hash of each array of the last checkpoint, the logs,
    metrics.csv without times.
    """
    with np.load(log / "checkpoints" / "checkpoint_00000030.npz") as file:
        progress = json.loads(file["facts.json"])["progress"]
        arrays = {name: file[name] for name in file.files if name != "facts.json"}
    assert len(arrays) > 20
    assert not list(log.rglob("*.tmp"))
    with (log / "metrics.csv").open(newline="") as file:
        rows = [
            {name: value for name, value in row.items() if name != "seconds"}
            for row in csv.DictReader(file)
        ]
    texts = {path.name: path.read_text() for path in log.glob("log_*")}
    assert set(texts) == set(LOGS[:2])  # one run number, however often it was resumed
    hashes = {
        name: (array.dtype, array.shape, hashlib.sha256(array).hexdigest())
        for name, array in arrays.items()
    }
    names = ("iteration", "test_accuracy", "best_accuracy")
    return {
        "hashes": hashes,
        "rows": rows,
        "texts": texts,
        "progress": [progress[name] for name in names],
    }


def files(folder: pathlib.Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


@pytest.mark.slow
def test_two_at_once_then_killed_then_terminated(begin, whole, tmp_path):
    """Of two runs in one folder one is refused. The other, killed, resumed and told to end, ends as
    one left in peace.

    Resumed at once, since the lock is let go however a process ends; and by the very command that
    SIGTERM's answer names.
    """
    log, chance = tmp_path / "a folder" / "log", random.Random(0)  # noqa: S311
    pair = [begin("opt_gs", log) for _ in range(2)]
    wait_for(lambda: any(process.poll() is not None for process in pair))
    second, first = sorted(pair, key=lambda process: process.poll() is None)
    complain(second, f"another run is writing into --log_dir={log}; ")
    kill(first, log, 4, chance)
    result = disturb(begin("opt_gs", log, "--resume"), signal.SIGTERM, log, lines(log) + 1, chance)
    went_on_after(result)
    obey("opt_gs", signal.SIGTERM, result.stderr)
    assert outcome(log) == outcome(whole()[0])


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS)
def test_killed_twice(begin, tmp_path, method):
    """A run that is killed, resumed, killed again and resumed ends with the same bits as one that
    was not.
    """
    undisturbed = begin(method, tmp_path / "whole")
    parts = survive(begin, tmp_path / "log", method, kills=2)
    print(f"{method}: killed twice, went on after {parts}")
    succeed(undisturbed)
    assert outcome(tmp_path / "log") == outcome(tmp_path / "whole")


@pytest.mark.slow
def test_resumed_between_two_episodes(begin, tmp_path):
    """S-OPT merges what an episode learned and draws new rows also where that is the first that a
    resumed run does.
    """
    flags = ["--iterations_per_episode=6", "--checkpoint_every=6", "--eval_every=100"]
    undisturbed = begin("sopt_gs", tmp_path / "whole", *flags)
    parts = survive(begin, tmp_path / "log", "sopt_gs", *flags, kills=1, earliest=7)
    assert parts[0] % 6 == 0
    succeed(undisturbed)
    assert outcome(tmp_path / "log") == outcome(tmp_path / "whole")


@pytest.mark.slow
def test_learned_neurons_and_a_warm_up_survive(begin, tmp_path):
    """What --learn_neurons adds to the state is in the checkpoint, and the warm-up goes on where it
    was.
    """
    flags = ["--learn_neurons", "--warmup_iterations=25", "--orthogonalize=cayley"]
    undisturbed = begin("sopt_gs", tmp_path / "whole", *flags)
    survive(begin, tmp_path / "log", "sopt_gs", *flags, kills=1)
    succeed(undisturbed)
    assert outcome(tmp_path / "log") == outcome(tmp_path / "whole")


@pytest.mark.slow
@pytest.mark.parametrize("method", ["opt_ogd", "sopt_gs"])
def test_blocks_survive(begin, tmp_path, method):
    """Also the smaller last one, as 72 rows leave it."""
    undisturbed = begin(method, tmp_path / "whole", "--block_size=16")
    survive(begin, tmp_path / "log", method, "--block_size=16", kills=1)
    succeed(undisturbed)
    assert outcome(tmp_path / "log") == outcome(tmp_path / "whole")
    model = keras.saving.load_model(tmp_path / "log" / "model.keras")
    layer = model.get_layer("conv1_1" if method == "opt_ogd" else "conv1_0")
    assert {v.shape[-1] for v in layer.rotations} == ({16, 8} if method == "opt_ogd" else {16, 11})


@pytest.mark.slow
def test_the_scale_of_the_loss_survives(begin, tmp_path):
    """In float16 a run goes on bit for bit, the rotations' optimizer within the one that scales."""
    flags = ["--precision=mixed_float16"]
    undisturbed = begin("opt_ogd", tmp_path / "whole", *flags)
    survive(begin, tmp_path / "log", "opt_ogd", *flags, kills=1)
    succeed(undisturbed)
    assert outcome(tmp_path / "log") == outcome(tmp_path / "whole")


@pytest.mark.slow
@pytest.mark.parametrize(
    "numbers", [["SIGINT"], ["SIGHUP", "SIGTERM"], ["SIGUSR1", "SIGUSR1", "SIGUSR2"]]
)
def test_interrupted(begin, whole, tmp_path, numbers):
    """By one signal, and by one that is repeated before the state can have been saved."""
    first, *others = [signal.Signals[name] for name in numbers]
    chance = random.Random(1)  # noqa: S311
    result = disturb(begin("opt_gs", tmp_path), first, tmp_path, 4, chance, *others)
    obey("opt_gs", first, result.stderr)
    assert outcome(tmp_path) == outcome(whole()[0])


@pytest.mark.parametrize("first", SIGNALS)
def test_a_repeated_signal_ends_nothing_for_a_second(first):
    before, got, asked = {n: signal.getsignal(n) for n in SIGNALS}, [], SIGNALS[first == SIGNALS[0]]
    try:
        for number in SIGNALS:
            signal.signal(number, lambda number, _: got.append(number))
        with Interruption():
            pass
        signal.raise_signal(first)  # nothing was noted: as before
        assert got == [first]
        signal.signal(asked, signal.SIG_IGN)  # as SIGHUP under nohup
        with Interruption() as interruption:
            signal.raise_signal(asked)
            assert interruption.signal is None
            signal.raise_signal(first)
            for number in SIGNALS:
                signal.raise_signal(number)
            assert interruption.signal == first
        signal.raise_signal(first)  # the process is ending
        assert got == [first]
        interruption.since -= 1.1
        signal.raise_signal(first)
        assert got == [first, first]
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@pytest.mark.slow
def test_other_settings_by_script(begin, whole, tmp_path):
    log = shutil.copytree(whole()[0], tmp_path / "log")
    before = files(log)
    complain(
        begin("opt_gs", log, "--seed=1", "--resume"),
        "--resume: ",
        "of seed 0, and this run of seed 1",
    )
    complain(
        begin("opt_hr", log, "--resume"),
        "--resume: ",
        "of method opt_gs, and this run of method opt_hr",
    )
    complain(
        begin("opt_gs", log, "--block_size=16", "--resume"),
        "--resume: ",
        "of block_size 0, and this run of block_size 16",
    )
    assert files(log) == before


@pytest.mark.slow
def test_resumed_after_the_end(begin, whole, tmp_path):
    """A run that is over ends at once with the same accuracy, and changes nothing."""
    log = shutil.copytree(whole()[0], tmp_path / "log")
    before = files(log)
    accuracy = re.search(r"test accuracy: .*", whole()[1])[0]
    assert accuracy in succeed(begin("opt_gs", log, "--resume")).stdout
    after = files(log)
    for name in (*LOGS, *(name for name in before if name.startswith("checkpoints/"))):
        assert before.pop(name) == after.pop(name)
    assert {name.split("/")[0] for name in after} == {name.split("/")[0] for name in before}


@pytest.mark.slow
def test_nothing_to_resume(begin, whole, tmp_path):
    """Neither an empty folder nor a log that has been cut since the checkpoint is gone on with."""
    complain(
        begin("opt_gs", tmp_path / "empty", "--resume"),
        "--resume: there is no checkpoint in ",
        tmp_path / "empty",
    )
    log = shutil.copytree(whole()[0], tmp_path / "log")
    os.truncate(log / LOGS[0], 100)
    before = files(log)
    complain(
        begin("opt_gs", log, "--resume"), log / LOGS[0], "is shorter than it was at the checkpoint"
    )
    assert files(log) == before


@pytest.mark.slow
def test_a_loss_that_is_not_finite(begin, tmp_path):
    words = [
        "the loss is nan at iteration 1",
        "rate of 1e+30",
        tmp_path / "checkpoints" / "checkpoint_00000001.npz",
    ]
    complain(begin("opt_gs", tmp_path, "--base_lr=1e30", "--checkpoint_every=1"), *words)


# Disks


@pytest.fixture
def mount(tmp_path) -> Iterator[Callable[[str], pathlib.Path]]:
    """Mounts a tmpfs with the options given, for as long as the test lasts."""
    with contextlib.ExitStack() as stack:

        def start(options: str) -> pathlib.Path:
            folder = tmp_path / "mounted"
            folder.mkdir()
            command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)]
            result = (
                subprocess.run(command, capture_output=True, text=True)
                if shutil.which("mount")
                else None
            )
            if not result or result.returncode:
                reason = result.stderr.strip() if result else "no mount"
                pytest.skip(f"no tmpfs can be mounted here: {reason}")
            stack.callback(subprocess.run, ["umount", "--lazy", str(folder)], check=True)
            return folder

        yield start


def assert_sound(log: pathlib.Path) -> None:
    """Asserts that there are checkpoints, that all are sound, and that nothing half written is
    beside them.
    """
    found = list((log / "checkpoints").iterdir())
    assert found
    for path in found:
        assert path.suffix == ".npz"
        with np.load(path) as file:
            assert all(np.isfinite(file[name]).all() for name in file.files if name != "facts.json")


@pytest.mark.slow
def test_a_full_disk(begin, mount):
    """A disk that has room for two checkpoints and not for three: the run stops with a line, and
    the two stay sound.
    """
    folder = mount("size=4k")
    complain(begin("opt_gs", folder / "log"), "cannot be written: No space left on device")
    shutil.rmtree(folder / "log")
    command = ["mount", "-o", "remount,size=1m", str(folder)]
    subprocess.run(command, check=True)
    log = folder / "log"
    complain(
        begin("opt_gs", log),
        log / "checkpoints",
        "No space left on device; the last good checkpoint is ",
        "_00000006.npz",
    )
    assert_sound(log)


@pytest.mark.slow
def test_a_folder_that_is_deleted_during_a_run(begin, tmp_path):
    log = tmp_path / "log"
    process = begin("opt_gs", log)
    wait_for(lambda: lines(log) > 3, process)
    shutil.rmtree(log, ignore_errors=True)
    said = end(process).stderr.splitlines()
    assert process.returncode == 2
    assert said.pop().startswith("opt_gs/train.py: ")
    assert all(line.startswith("warning: curves.png cannot be drawn") for line in said)


@pytest.mark.slow
def test_a_limit_to_the_size_of_files(begin, tmp_path):
    """After the first checkpoint no file may grow to its size any more."""
    process = begin("opt_gs", tmp_path)
    wait_for((tmp_path / "checkpoints" / "checkpoint_00000003.npz").exists, process)
    resource.prlimit(
        process.pid, resource.RLIMIT_FSIZE, (200_000, resource.getrlimit(resource.RLIMIT_FSIZE)[1])
    )
    complain(process, tmp_path / "checkpoints", "File too large; the last good checkpoint is ")
    assert_sound(tmp_path)


def not_writable(tmp_path: pathlib.Path) -> list[pathlib.Path]:
    (tmp_path / "file").write_text("mine")
    return [
        tmp_path / "file" / "log",
        tmp_path / "file",
        pathlib.Path("/proc/x"),
        pathlib.Path("/proc/self/x/y"),
    ]


def test_folders_that_cannot_be_written(tmp_path):
    for folder in not_writable(tmp_path):
        with (
            pytest.raises(UserError, match=f"^--log_dir={folder} cannot be written: "),
            locked(folder),
        ):
            pass


@pytest.mark.slow
def test_a_folder_is_refused_before_data_is_read(begin, tmp_path, mount):
    """The data set is one that is not there either, which would be said first if it were looked for
    first.
    """
    flags = ["--dataset=cifar100", f"--data_dir={tmp_path / 'none'}"]
    folders = [*not_writable(tmp_path)[::2], mount("size=1m,ro")]
    for folder, process in [(folder, begin("opt_gs", folder, *flags)) for folder in folders]:
        complain(process, f"--log_dir={folder} cannot be written: ")
    assert not (tmp_path / "none").exists()


# One process

SETTINGS = {"method": "opt_ogd", "widths": (8, 8, 8, 8), "rotation_lr": 0.02}
START, STEP = (
    (np.array([[0.5, -1.5], [2.5, np.pi], [1e-30, 1e30]], "f4"), np.array(0, "i4")),
    (np.float32(1 / 3), 1),
)


def small(folder: pathlib.Path, **others: object) -> Checkpoints:
    """Returns the checkpoints, of a kilobyte, of a run of two small variables."""
    return Checkpoints(
        folder,
        [keras.Variable(array, dtype=array.dtype.name) for array in START],
        SETTINGS | others,
    )


def weights(iteration: int) -> list[np.ndarray]:
    return [start + iteration * step for start, step in zip(START, STEP, strict=True)]


def train(checkpoints: Checkpoints, iteration: int) -> Progress:
    """Sets the variables to what they are after so many iterations, and returns how far that is."""
    for variable, array in zip(checkpoints.variables, weights(iteration), strict=True):
        variable.assign(array)
    return reached(iteration)


def reached(iteration: int) -> Progress:
    sizes = {
        "number": 0,
        "train": 50 * iteration,
        "test": 10 * iteration,
        "metrics": 99 * iteration,
    }
    return Progress(iteration, 0.5 * iteration, iteration / 100, iteration / 50, sizes)


def are(checkpoints: Checkpoints, iteration: int) -> bool:
    """Returns whether the variables are, to the bit, what they are after so many iterations."""
    pairs = zip(checkpoints.variables, weights(iteration), strict=True)
    return all(variable.numpy().tobytes() == array.tobytes() for variable, array in pairs)


@pytest.fixture
def saved(tmp_path) -> tuple[Checkpoints, pathlib.Path]:
    """Returns checkpoints after 3 and 6 iterations, and the path of the second."""
    checkpoints = small(tmp_path / "checkpoints")
    checkpoints.save(train(checkpoints, 3))
    return checkpoints, checkpoints.save(train(checkpoints, 6))


def restored(checkpoints: Checkpoints, path: pathlib.Path, capsys) -> int:
    """Restores, and returns after how many iterations that was: 6, or 3 where ``path`` is named as
    damaged, and only there.

    All must be exactly as it was when that checkpoint was saved.
    """
    train(checkpoints, 0)
    progress = checkpoints.restore()
    assert progress == reached(progress.iteration)
    assert are(checkpoints, progress.iteration)
    line = rf"warning: {path} is damaged \(.+\); trying the one before it\n"
    assert re.fullmatch(line if progress.iteration == 3 else "", capsys.readouterr().err)
    return progress.iteration


def test_every_truncation(saved, tmp_path, capsys):
    """A checkpoint cut to any length is named as damaged and the one before is taken; where there
    is none, that is said.
    """
    checkpoints, path = saved
    alone, size = small(tmp_path / "alone"), path.stat().st_size
    alone.folder.mkdir()
    os.link(path, alone.folder / path.name)
    for length in reversed(range(size)):
        os.truncate(path, length)
        assert restored(checkpoints, path, capsys) == 3
        with pytest.raises(UserError, match=r"\A--resume: there is no sound checkpoint in .+\Z"):
            alone.restore()
        assert capsys.readouterr().err.startswith(
            f"warning: {alone.folder / path.name} is damaged ("
        )
    assert are(alone, 0)
    print(f"{size} truncations: all named")


def flip(
    checkpoints: Checkpoints, path: pathlib.Path, capsys, flips: Iterable[tuple[int, int]]
) -> None:
    """Flips one bit at a time, ``(byte, bit)``: the file must be named as damaged, or restored
    exactly as it was.
    """
    whole, found = path.read_bytes(), collections.Counter()
    for at, bit in flips:
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 1 << bit]) + whole[at + 1 :])
        found[restored(checkpoints, path, capsys)] += 1
    print(f"{found.total()} flips: {found[3]} named, {found[6]} that change nothing")
    assert found[3] > found[6]


def test_flips_of_random_bits(saved, capsys):
    """Of the zip's headers too, which no sum covers: nothing wrong is ever restored without a
    word.
    """
    chance, size = random.Random(0), saved[1].stat().st_size  # noqa: S311
    flip(*saved, capsys, [(chance.randrange(size), chance.randrange(8)) for _ in range(800)])


@pytest.mark.slow
def test_flips_of_every_bit(saved, capsys):
    flip(*saved, capsys, itertools.product(range(saved[1].stat().st_size), range(8)))


class Evil:
    """Makes a file where it is unpickled."""

    def __init__(self, path: pathlib.Path):
        self.path = path

    def __reduce__(self):
        return pathlib.Path.touch, (self.path,)


def wrong_facts(facts: dict) -> Iterator[object]:
    """Yields what no checkpoint says of itself: text that is no JSON, JSON that lacks fields, and
    fields that are no numbers.
    """
    settings, progress = facts["settings"], facts["progress"]
    yield from ("", "{", "text", "[" * 100_000, "9" * 10_000, json.dumps(facts) + "}")
    yield from (
        [],
        None,
        7,
        {},
        {"settings": settings},
        {"progress": progress},
        [settings, progress],
    )
    yield from (facts | {"settings": wrong} for wrong in (None, 7, [], "text", [settings]))
    yield from (
        facts | {"progress": wrong}
        for wrong in (None, 7, [], {}, "text", [progress], progress | {"more": 1})
    )
    for name in progress:
        yield facts | {"progress": {key: value for key, value in progress.items() if key != name}}
        wrong = [
            -7,
            -7.5,
            "7",
            [],
            {},
            float("nan"),
            float("inf"),
            *([None] if name != "test_accuracy" else []),
        ]
        yield from (facts | {"progress": progress | {name: value}} for value in wrong)
    for name in progress["logs"]:
        logs = progress["logs"]
        yield facts | {
            "progress": progress
            | {"logs": {key: value for key, value in logs.items() if key != name}}
        }
        yield from (
            facts | {"progress": progress | {"logs": logs | {name: value}}}
            for value in (-7, "7", None, 7.5, [7])
        )


def hostile(path: pathlib.Path, evil: Evil) -> Iterator[tuple[str, Callable[[], object]]]:
    """Yields what lies under a checkpoint's name though it is none: in words, and a function that
    lays it there.
    """
    whole = path.read_bytes()
    with np.load(path) as file:
        sound = {name if "." in name else f"{name}.npy": file[name] for name in file.files}
    array, pickled = sound["0000.npy"], np.array([evil], object)

    def write(changed: dict[str, object], method: int = zipfile.ZIP_STORED, times: int = 1) -> None:
        with zipfile.ZipFile(path, "w", method, compresslevel=1) as archive:
            for name, content in (sound | changed).items():
                if content is not None:
                    with archive.open(name, "w") as member:
                        for _ in range(times if name in changed else 1):
                            member.write(content) if isinstance(content, bytes) else np.save(
                                member, content
                            )

    def npy(descr: str, shape: str) -> bytes:
        header = f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}}}\n".encode()
        return b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header + array.tobytes()

    for facts in wrong_facts(json.loads(sound["facts.json"])):
        text = facts if isinstance(facts, str) else json.dumps(facts)
        yield f"facts {text[-150:]}", functools.partial(write, {"facts.json": text.encode()})
    for facts in (
        None,
        pickled,
        array,
        pickle.dumps(evil),
        b"\xff" + sound["facts.json"],
        sound["facts.json"] + b"\0",
    ):
        yield f"facts {facts}", functools.partial(write, {"facts.json": facts})
    wrong = [
        array.T,
        array.ravel(),
        array[None],
        array[:2],
        array[:0],
        None,
        pickled,
        np.array("text"),
        array.astype("f8"),
    ]
    wrong += [
        array.astype(">f4"),
        *(array.view(dtype) for dtype in ("i4", "S4", "c8", "f4,f4")),
        pickle.dumps(evil),
    ]
    for name, other in itertools.product(("0000.npy", "0001.npy"), wrong):
        yield f"{name} {other}", functools.partial(write, {name: other})
    for shape in (
        "(3, -2)",
        f"({2**40},)",
        f"({2**32}, {2**32})",
        f"({2**40}, 0)",
        "3",
        "('3', 2)",
        "()",
        "evil",
        "[" * 9999,
    ):
        yield f"shape {shape[:50]}", functools.partial(write, {"0000.npy": npy("'<f4'", shape)})
    for descr in ("'|O'", "'<f99'", "[]", "None", "'<f4'" * 3000):
        yield f"dtype {descr[:50]}", functools.partial(write, {"0000.npy": npy(descr, "(3, 2)")})
    for method in (zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2):
        bomb = npy("'<f4'", f"({2**26},)") + bytes(2**22)
        yield f"256 MB by method {method}", functools.partial(write, {"0000.npy": bomb}, method, 64)
        yield (
            f"256 MB of facts by method {method}",
            functools.partial(write, {"facts.json": b" " * 2**22}, method, 64),
        )
        yield f"sound, but packed by method {method}", functools.partial(write, {}, method)
    contents = [
        b"",
        b"PK",
        b"PK\x03\x04",
        b"PK\x05\x06" + bytes(18),
        bytes(4096),
        b"text\n" * 99,
        pickle.dumps(evil),
    ]
    contents += [
        npy("'<f4'", "(3, 2)"),
        npy("'<f4'", "(3, 2)") + whole[:-9],
        b"junk" + whole[9:],
        whole[::-1],
        whole[:-500] * 2,
    ]
    yield from (
        (f"the bytes {content[:20]}", functools.partial(path.write_bytes, content))
        for content in contents
    )
    yield "a folder", path.mkdir
    yield "a link to nothing", functools.partial(path.symlink_to, path.parent / "none")
    yield "a link to itself", functools.partial(path.symlink_to, path)
    yield "a pipe, which nobody writes into", functools.partial(os.mkfifo, path)


def test_hostile_files(saved, tmp_path, capsys):
    """Pickles, bombs, giant shapes, wrong facts and wrong weights under a checkpoint's name are
    named as damaged, no more.
    """
    checkpoints, path = saved
    cases, taken, start = list(hostile(path, Evil(tmp_path / "ran"))), [], peak()
    before = signal.signal(signal.SIGALRM, lambda *_: pytest.fail("it waits for ever"))
    for words, lay in cases:
        path.rmdir() if path.is_dir() else path.unlink(missing_ok=True)
        lay()
        signal.alarm(10)
        try:
            assert restored(checkpoints, path, capsys) == 3
        except (Exception, pytest.fail.Exception) as error:
            taken.append(f"{words}: {str(error).splitlines()[0]}")
        signal.alarm(0)
        assert not (tmp_path / "ran").exists()
    signal.signal(signal.SIGALRM, before)
    print(f"{len(cases)} hostile files")
    assert not taken, "\n".join([f"{len(taken)} are not answered as damaged:", *taken])
    assert peak() - start < 64 * 2**20


OTHERS = {
    "method": ("opt_gs", "opt_hr"),
    "dataset": ("digits", "cifar10"),
    "backbone": ("cnn6", "cnn9"),
    "seed": (0, 1),
}
OTHERS |= {
    "widths": ([8, 8, 8, 8], [8, 8, 8, 9]),
    "iterations": (30, 31),
    "base_lr": (0.1, 0.2),
    "rotation_lr": (0.02, 0.05),
}
OTHERS |= {
    "data": ("of digits with the sum 0", "of digits with the sum 1"),
    "rotated_fraction": (None, 0.5),
}


def test_other_settings(tmp_path):
    """A checkpoint of a run with other settings is refused, and what differs is named, with both
    values.
    """
    there = {name: value for name, (value, _) in OTHERS.items()}
    checkpoints = small(tmp_path, **there)
    path = checkpoints.save(train(checkpoints, 3))
    for name, (was, given) in [*OTHERS.items(), ("widths", ([8, 8, 8, 8], None))]:
        words = [
            ",".join(map(str, value)) if isinstance(value, list) else value
            for value in (was, given)
        ]
        with pytest.raises(UserError) as raised:
            small(tmp_path, **there | {name: given}).restore()
        assert (
            str(raised.value)
            == f"--resume: {path} is of {name} {words[0]}, and this run of {name} {words[1]}"
        )
    assert small(tmp_path, **there).restore() == reached(3)


def test_the_last_two_and_the_best_are_kept(tmp_path):
    checkpoints = small(tmp_path)
    for iteration in range(3, 31, 3):
        checkpoints.save(train(checkpoints, iteration))
        if iteration in (6, 12, 18):
            checkpoints.save(train(checkpoints, iteration), "best")
        due = [f"checkpoint_{i:08}.npz" for i in (iteration - 3, iteration) if i]
        best = [f"best_{min(iteration // 6 * 6, 18):08}.npz"] if iteration > 3 else []
        assert sorted(path.name for path in tmp_path.iterdir()) == best + due


def test_what_cannot_be_read_does_not_take_the_place_of_what_can(saved):
    """Where both of the last are damaged, and something else has an old one's name, what is saved
    next stays.
    """
    checkpoints, path = saved
    for name in ("checkpoint_00000027.npz", "checkpoint_00000030.npz", "best_00000030.npz"):
        (path.parent / name).write_bytes(b"damaged")
    (path.parent / "checkpoint_00000001.npz").mkdir()
    checkpoints.restore()
    assert str(path) in checkpoints.how_to_go_on()
    for kind in ("checkpoint", "best"):
        assert checkpoints.save(train(checkpoints, 9), kind).exists()
    assert checkpoints.restore().iteration == 9


@pytest.mark.parametrize("name", ["os.replace", "os.fsync", "numpy.lib.format.write_array"])
def test_a_write_that_fails(saved, monkeypatch, name):
    """What is there stays, nothing half written is left, and the message names the last good
    one.
    """
    checkpoints, path = saved
    before = files(path.parent)

    def fail(target, *_, **__):
        if name == "numpy.lib.format.write_array":
            target.write(b"half of")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(name, fail)
    with pytest.raises(UserError) as raised:
        checkpoints.save(train(checkpoints, 9))
    monkeypatch.undo()
    here = path.parent / "checkpoint_00000009.npz"
    good = f"; the last good checkpoint is {path}, and --resume goes on from it"
    assert str(raised.value) == f"{here} cannot be written: No space left on device{good}"
    assert files(path.parent) == before


def test_weights_that_are_not_finite_are_not_saved(saved):
    checkpoints, path = saved
    before = files(path.parent)
    for at, value in itertools.product(np.ndindex(3, 2), (np.nan, np.inf, -np.inf)):
        wrong = weights(9)[0]
        wrong[at] = value
        checkpoints.variables[0].assign(wrong)
        with pytest.raises(
            UserError,
            match="^after iteration 8 a weight is not finite; "
            f"the last good checkpoint is {path}, ",
        ):
            checkpoints.save(reached(9))
    assert files(path.parent) == before


ROW = {"fit": 1.0, "reg": 2.0, "acc": 0.5, "seconds": 1.0}


def logs(folder: pathlib.Path, sizes: dict[str, int] | None = None) -> RunFolder:
    """Returns the folder of a run without checkpoints, its logs open."""
    run = RunFolder(types.SimpleNamespace(log_dir=folder))
    run.open_logs("title", sizes=sizes)
    return run


def test_logs_are_cut_back(tmp_path):
    """A report that goes on is what one in a single piece would be; one whose files are too short
    is refused.
    """
    report = logs(tmp_path)
    report.log("iter_1", iteration=1, **ROW)
    sizes = report.sizes()
    before = files(tmp_path)
    for number in range(2, 5):
        report.log(f"iter_{number}", iteration=number, **ROW)
        report.__exit__()
        report = logs(tmp_path, sizes)
        assert len(report.history) == 1
        assert {name: files(tmp_path)[name] for name in LOGS} == {
            name: before[name] for name in LOGS
        }
    report.__exit__()
    (tmp_path / "metrics.csv").write_text("iteration\n")
    with pytest.raises(
        UserError, match=f"^{tmp_path / 'metrics.csv'} is shorter than it was at the checkpoint$"
    ):
        logs(tmp_path, sizes)


def test_tensorboard_that_cannot_be_written(tmp_path):
    """Its errors are TensorFlow's and no OSError; they too end a run in one line."""
    pytest.importorskip("tensorboard")
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "tensorboard").write_text("mine")
    with pytest.raises(UserError, match="tensorboard"):
        logs(tmp_path / "taken")
    report = logs(tmp_path)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, before[1]))
    try:
        with pytest.raises(
            UserError, match=r"\A.*tensorboard.* cannot be written: File too large\Z"
        ):
            collections.deque((report.log("iter_1", iteration=1, **ROW) for _ in range(1000)), 0)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
