"""Runs that get a signal at any moment, and are resumed, end as one that was not disturbed."""

import csv
import functools
import hashlib
import json
import os
import pathlib
import random
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator

import numpy as np
import pytest

from common.training.interruption import SIGNALS, Interruption
from tests.test_scripts import METHODS, ROOT, SMALL, assert_one_line_error, episodes_of

FLAGS = [*SMALL, "--iterations=30", "--log_every=1", "--eval_every=5", "--checkpoint_every=3"]
LOGS = ("log_train_00.txt", "log_test_00.txt", "metrics.csv")


@pytest.fixture(scope="module")
def begin() -> Iterator[Callable[..., subprocess.Popen]]:
    """Starts a method's train.py and leaves it running; what still runs at the end is killed."""
    processes = []

    def start(method: str, log: pathlib.Path, *flags: str) -> subprocess.Popen:
        # kills are to fall into several episodes
        words = [*FLAGS, *episodes_of(method, 7), f"--log_dir={log}", *flags]
        environment = os.environ | {"CUDA_VISIBLE_DEVICES": "-1"}
        options = {"cwd": ROOT / method, "env": environment, "text": True}
        options |= {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        processes.append(subprocess.Popen([sys.executable, "train.py", *words], **options))
        return processes[-1]

    yield start
    for process in processes:
        if process.poll() is None:
            process.kill()
            process.communicate()


@pytest.fixture(scope="module")
def undisturbed(begin, tmp_path_factory) -> Callable[[], dict]:
    """Begins a run of opt_gs; calling it waits for the end and returns the run's outcome."""
    log = tmp_path_factory.mktemp("undisturbed") / "log"
    process = begin("opt_gs", log)
    return functools.cache(lambda: (succeed(process), outcome(log))[1])


def end(process: subprocess.Popen) -> subprocess.CompletedProcess:
    """Waits for a process; its stderr is returned without TensorFlow's lines and progress bars."""
    out, err = process.communicate(timeout=300)
    noise = r"WARNING: All log messages|[IWE]0000 |\w+: +\d+%\||\s*$"
    err = "\n".join(line for line in err.splitlines() if not re.match(noise, line))
    return subprocess.CompletedProcess(process.args, process.returncode, out, err)


def succeed(process: subprocess.Popen) -> subprocess.CompletedProcess:
    result = end(process)
    assert (result.returncode, result.stderr) == (0, "")
    return result


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
        progress = json.loads(str(file["facts"]))["progress"]
        arrays = {name: file[name] for name in file.files if name != "facts"}
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


@pytest.mark.slow
def test_two_at_once_then_killed_then_terminated(begin, undisturbed, tmp_path):
    """Of two runs in one folder one is refused. The other, killed, resumed and told to end, ends as
    one that was not disturbed.

    Resumed at once, since the lock is released however a process ends; and by the command that is
    printed after SIGTERM.
    """
    log, chance = tmp_path / "a folder" / "log", random.Random(0)  # noqa: S311
    pair = [begin("opt_gs", log) for _ in range(2)]
    wait_for(lambda: any(process.poll() is not None for process in pair))
    second, first = sorted(pair, key=lambda process: process.poll() is None)
    assert_one_line_error(end(second), f"another run is writing into --log_dir={log}; ")
    kill(first, log, 4, chance)
    result = disturb(begin("opt_gs", log, "--resume"), signal.SIGTERM, log, lines(log) + 1, chance)
    went_on_after(result)
    obey("opt_gs", signal.SIGTERM, result.stderr)
    assert outcome(log) == undisturbed()


@pytest.mark.slow
def test_interrupted_and_again_before_the_state_is_saved(begin, undisturbed, tmp_path):
    chance, others = random.Random(1), [signal.SIGINT, signal.SIGUSR2]  # noqa: S311
    result = disturb(begin("opt_gs", tmp_path), signal.SIGINT, tmp_path, 4, chance, *others)
    obey("opt_gs", signal.SIGINT, result.stderr)
    assert outcome(tmp_path) == undisturbed()


VARIANTS = {  # flags that add to a run's state
    "neurons": ("sopt_gs", "--learn_neurons", "--warmup_iterations=25", "--orthogonalize=cayley"),
    "blocks": ("opt_ogd", "--block_size=16"),
    "blocks of rows": ("sopt_gs", "--block_size=16"),
    "scaled loss": ("opt_ogd", "--precision=mixed_float16"),
    # S-OPT merges and draws rows also where that is the first that a resumed run does
    "episodes": ("sopt_gs", "--iterations_per_episode=6", "--checkpoint_every=6"),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", [*METHODS, *VARIANTS])
def test_killed_twice(begin, tmp_path, name):
    """A run that is killed, resumed, killed again and resumed ends with the same bits as one that
    was not.
    """
    method, *flags = VARIANTS.get(name, (name,))
    other = begin(method, tmp_path / "whole", *flags)
    parts = survive(begin, tmp_path / "log", method, *flags, kills=1 if flags else 2)
    print(f"{name}: killed, continued after {parts}")
    succeed(other)
    assert outcome(tmp_path / "log") == outcome(tmp_path / "whole")


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
