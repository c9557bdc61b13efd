"""A run that is stopped at any moment, and resumed, ends as one that was not disturbed."""

import pathlib
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator

import pytest

from common.training.interruption import SIGNALS, Interruption
from tests.conftest import ROOT, wait_for
from tests.test_kills import outcome
from tests.test_scripts import METHODS, SMALL, episodes_of, has_gpu, train

FLAGS = [*SMALL, "--iterations=30", "--log_every=1", "--eval_every=10", "--checkpoint_every=3"]


@pytest.fixture(scope="module")
def begin() -> Iterator[Callable[[pathlib.Path, str], subprocess.Popen]]:
    """Starts baseline/train.py and leaves it running; what still runs at the end is killed."""
    processes = []

    def start(log: pathlib.Path, *flags: str) -> subprocess.Popen:
        command = [sys.executable, "train.py", *FLAGS, f"--log_dir={log}", *flags]
        options = {"cwd": ROOT / "baseline", "text": True}
        options |= {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        processes.append(subprocess.Popen(command, **options))
        return processes[-1]

    yield start
    for process in processes:
        if process.poll() is None:
            process.kill()
            process.communicate()


def end(process: subprocess.Popen) -> subprocess.CompletedProcess:
    """Waits for a process; its stderr is returned without progress bars."""
    out, err = process.communicate(timeout=300)
    noise = r"baseline: +\d+%\|"  # and none of TensorFlow's notes, where there is no GPU
    noise += r"|WARNING: All log messages|[IWE]0000 " if has_gpu() else ""
    err = "\n".join(s for s in re.split(r"[\r\n]+", err) if s.strip() and not re.match(noise, s))
    return subprocess.CompletedProcess(process.args, process.returncode, out, err)


@pytest.fixture(scope="module")
def undisturbed(begin, tmp_path_factory) -> dict:
    """Returns the outcome of a run that gets no signal."""
    log = tmp_path_factory.mktemp("undisturbed") / "log"
    result = end(begin(log))
    assert (result.returncode, result.stderr) == (0, "")
    return outcome(log)


def lines(log: pathlib.Path) -> int:
    """Returns the number of training lines; a run that is resumed cuts them back first."""
    path = log / "log_train_00.txt"
    return path.read_text().count("acc=") if path.exists() else 0


def disturb(
    process: subprocess.Popen, log: pathlib.Path, after: int, *numbers: int
) -> subprocess.CompletedProcess:
    """Sends a process signals, the first of which ends it, when its log has ``after`` lines."""
    chance = random.Random(after)  # noqa: S311
    after += chance.randint(0, 5)
    wait_for(lambda: lines(log) >= after, process)
    time.sleep(chance.uniform(0, 0.3))  # so that it falls anywhere in a step
    for number in numbers:
        process.send_signal(number)
        time.sleep(0.02)
    result = end(process)
    code = -numbers[0] if numbers[0] == signal.SIGKILL else 128 + numbers[0]
    assert result.returncode == code, result.stderr
    return result


def went_on_after(result: subprocess.CompletedProcess) -> int:
    """Returns after how many iterations a run went on, which must lie strictly inside it."""
    done = int(re.search(r"going on after (\d+) iterations", result.stdout)[1])
    assert 0 < done < 30
    return done


def obey(number: int, said: str) -> None:
    """Runs the command that a run prints on its last line after a signal, as it is printed."""
    form = rf"{signal.Signals(number).name} after (\d+) iterations; to go on: (\S+ .+ --resume)"
    said = re.fullmatch(form, said)
    options = {"cwd": ROOT / "baseline", "capture_output": True, "text": True}
    result = subprocess.run(["/bin/sh", "-c", said[2]], **options, timeout=300)
    assert result.returncode == 0, result.stderr
    assert went_on_after(result) == int(said[1])


def test_interrupted_and_again_before_the_state_is_saved(begin, undisturbed, tmp_path):
    """In a pipe whose reader Ctrl-C ends too; and the command that is printed ends the run."""
    numbers = [signal.SIGINT, signal.SIGINT, signal.SIGUSR2]
    process = begin(tmp_path)
    process.stdout.close()
    result = disturb(process, tmp_path, 4, *numbers)
    obey(signal.SIGINT, result.stderr)
    assert outcome(tmp_path) == undisturbed


@pytest.mark.slow
def test_two_at_once_then_killed(begin, undisturbed, tmp_path):
    """One is refused; the lock of the other, which is killed, is released."""
    log = tmp_path / "a folder" / "log"
    pair = [begin(log) for _ in range(2)]
    wait_for(lambda: any(process.poll() is not None for process in pair))
    second, first = sorted(pair, key=lambda process: process.poll() is None)
    result = end(second)
    assert result.returncode == 2
    assert re.search(f"\\A.*another run is writing into --log_dir={log}; .*\\Z", result.stderr)
    assert "Traceback" not in result.stdout
    disturb(first, log, 4, signal.SIGKILL)
    result = end(begin(log, "--resume"))
    assert result.returncode == 0, result.stderr
    went_on_after(result)
    assert outcome(log) == undisturbed


VARIANTS = {  # flags that add to a run's state
    "neurons": ("sopt_gs", "--learn_neurons", "--warmup_iterations=25", "--orthogonalize=cayley"),
    "blocks": ("opt_ogd", "--block_size=16"),
    "blocks of rows": ("sopt_gs", "--block_size=16"),
    "XLA": ("opt_gs", "--jit=on", "--log_every=4"),  # several steps in one call
    "scaled loss": ("opt_ogd", "--precision=mixed_float16"),
    # S-OPT merges and draws rows also where that is the first that a resumed run does
    "episodes": ("sopt_gs", "--iterations_per_episode=5"),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", [*METHODS, *VARIANTS])
def test_resumed_from_the_middle(tmp_path, capsys, name):
    """A run that goes on after 15 iterations ends with the same bits as it did before."""
    method, *flags = VARIANTS.get(name, (name,))
    words = [*FLAGS, *episodes_of(method, 7), "--checkpoint_every=15", *flags]
    words += [f"--log_dir={tmp_path / 'log'}"]
    train(method, *words)
    shutil.copytree(tmp_path / "log", tmp_path / "before")
    for path in tmp_path.glob("log/checkpoints/*.npz"):
        if int(path.stem[-8:]) > 15:
            path.unlink()
    train(method, *words, "--resume")
    assert "going on after 15 iterations" in capsys.readouterr().out
    assert outcome(tmp_path / "log") == outcome(tmp_path / "before")


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
