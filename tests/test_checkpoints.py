"""Checkpoints: no damaged file is taken for a valid one; and the logs next to them."""

import errno
import functools
import itertools
import json
import os
import pathlib
import pickle
import random
import re
import shutil
import signal
import types
import zipfile
from collections.abc import Callable, Iterator

import keras
import numpy as np
import pytest

from common.errors import UserError
from common.training import loop
from common.training.checkpoints import Checkpoints, Progress
from common.training.methods import method_of
from common.training.run_folder import RunFolder
from tests.test_hostile import peak
from tests.test_kills import content
from tests.test_run import settings


def test_a_folder_that_cannot_be_written_is_refused_before_data_is_read(tmp_path):
    """The data set is not there either, which would be said first if it were looked for first."""
    (tmp_path / "file").write_text("mine")
    for folder in (tmp_path / "file" / "log", tmp_path / "file", pathlib.Path("/proc/self/x/y")):
        asked = settings(tmp_path, dataset="cifar100", data_dir=tmp_path / "none", log_dir=folder)
        with pytest.raises(UserError, match=f"^--log_dir={folder} cannot be written: "):
            loop.train(asked, method_of(asked))
    assert not (tmp_path / "none").exists()


SETTINGS = {"method": "opt_ogd", "widths": (8, 8, 8, 8), "rotation_lr": 0.02}
START = np.array([[0.5, -1.5], [2.5, np.pi], [1e-30, 1e30]], "f4"), np.array(0, "i4")
STEP = np.float32(1 / 3), 1


def small(folder: pathlib.Path, **others: object) -> Checkpoints:
    """Returns the checkpoints, of a kilobyte, of a run of two small variables."""
    variables = [keras.Variable(array, dtype=array.dtype.name) for array in START]
    return Checkpoints(folder, variables, SETTINGS | others)


def weights(iteration: int) -> list[np.ndarray]:
    return [start + iteration * step for start, step in zip(START, STEP, strict=True)]


def train(checkpoints: Checkpoints, iteration: int) -> Progress:
    """Sets the variables to what they are after so many iterations, and returns how far that is."""
    for variable, array in zip(checkpoints.variables, weights(iteration), strict=True):
        variable.assign(array)
    return reached(iteration)


def reached(iteration: int) -> Progress:
    sizes = {"number": 0, "train": 50 * iteration, "test": 10 * iteration}
    return Progress(iteration, 0.5 * iteration, iteration / 100, sizes)


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
    """Restores exactly, and returns after how many iterations: 3 if ``path`` is damaged, else 6."""
    train(checkpoints, 0)
    progress = checkpoints.restore()
    assert progress == reached(progress.iteration)
    assert are(checkpoints, progress.iteration)
    line = rf"warning: {path} is damaged \(.+\); trying the one before it\n"
    assert re.fullmatch(line if progress.iteration == 3 else "", capsys.readouterr().err)
    return progress.iteration


def test_truncations(saved, tmp_path, capsys):
    """The checkpoint before is taken; where there is none, a message says so."""
    checkpoints, path = saved
    alone, size = small(tmp_path / "alone"), path.stat().st_size
    alone.folder.mkdir()
    os.link(path, alone.folder / path.name)
    for length in reversed(range(0, size, 11)):
        os.truncate(path, length)
        assert restored(checkpoints, path, capsys) == 3
    with pytest.raises(UserError, match=r"\A--resume: there is no valid checkpoint in .+\Z"):
        alone.restore()
    assert capsys.readouterr().err.startswith(f"warning: {alone.folder / path.name} is damaged (")
    assert are(alone, 0)


def test_flips_of_random_bits(saved, capsys):
    """Of the zip's headers too, which no sum covers."""
    checkpoints, path = saved
    whole, chance, found = path.read_bytes(), random.Random(0), []  # noqa: S311
    for at, bit in [(chance.randrange(len(whole)), chance.randrange(8)) for _ in range(300)]:
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 1 << bit]) + whole[at + 1 :])
        found.append(restored(checkpoints, path, capsys))
    assert found.count(3) > found.count(6)


class Evil:
    """Makes a file where it is unpickled."""

    def __init__(self, path: pathlib.Path):
        self.path = path

    def __reduce__(self):
        return pathlib.Path.touch, (self.path,)


def hostile(path: pathlib.Path, evil: Evil) -> Iterator[tuple[str, Callable[[], object]]]:
    """Yields files that are not checkpoints: in words, and a function that writes the file."""
    whole = path.read_bytes()
    with np.load(path) as file:
        valid = {name: file[name] for name in file.files}
    facts, array, pickled = str(valid["facts"]), valid["0000"], np.array([evil], object)

    def write(changed: dict[str, object], method: int = zipfile.ZIP_STORED, times: int = 1) -> None:
        with zipfile.ZipFile(path, "w", method, compresslevel=1) as archive:
            for name, content in (valid | changed).items():
                if content is not None:
                    with archive.open(f"{name}.npy", "w") as member:
                        if isinstance(content, bytes):
                            for _ in range(times):
                                member.write(content)
                        else:
                            np.save(member, content)

    def npy(descr: str, shape: str) -> bytes:
        header = f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}}}\n".encode()
        return b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header + array.tobytes()

    progress = json.loads(facts)["progress"] | {"more": 1}
    texts = ["", "{", "[" * 100_000, facts + "}", "[]", "null", "{}"]
    texts += [json.dumps(json.loads(facts) | {"progress": wrong}) for wrong in (None, progress)]
    for wrong in (*texts, None, pickled, array, pickle.dumps(evil)):
        yield f"facts {str(wrong)[-150:]}", functools.partial(write, {"facts": wrong})
    arrays = [array.T, array.ravel(), array[:0], None, pickled, array.astype("f8")]
    arrays += [np.array("text"), pickle.dumps(evil), array.view("i4"), array.view("f4,f4")]
    for name, other in itertools.product(("0000", "0001"), arrays):
        yield f"{name} {other}", functools.partial(write, {name: other})
    headers = [("'<f4'", shape) for shape in ("(3, -2)", f"({2**40},)", f"({2**32}, {2**32})", "3")]
    headers += [(descr, "(3, 2)") for descr in ("'|O'", "'<f99'", "[]", "'<f4'" * 3000)]
    for descr, shape in headers:
        yield f"{descr[:50]} {shape}", functools.partial(write, {"0000": npy(descr, shape)})
    bomb = npy("'<f4'", f"({2**26},)") + bytes(2**22)
    yield "256 MB", functools.partial(write, {"0000": bomb}, zipfile.ZIP_DEFLATED, 64)
    contents = [b"", b"PK\x05\x06" + bytes(18), bytes(4096), pickle.dumps(evil)]
    contents += [npy("'<f4'", "(3, 2)"), b"junk" + whole[9:]]
    for wrong in contents:
        yield f"the bytes {wrong[:20]}", functools.partial(path.write_bytes, wrong)
    yield "a folder", path.mkdir
    yield "a link to itself", functools.partial(path.symlink_to, path)
    yield "a pipe, which nobody writes into", functools.partial(os.mkfifo, path)


def test_hostile_files(saved, tmp_path, capsys):
    """Pickles, bombs, giant shapes, wrong facts and weights are named as damaged, no more."""
    checkpoints, path = saved
    cases, taken, start = list(hostile(path, Evil(tmp_path / "ran"))), [], peak(anew=True)
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
    assert not taken, "\n".join([f"{len(taken)} are not answered as damaged:", *taken])
    assert peak() - start < 64 * 2**20


def test_other_settings(tmp_path):
    """A checkpoint of other settings is refused, and what differs is named, with both values."""
    checkpoints = small(tmp_path, data="with the sum 0", rotated_fraction=None)
    path = checkpoints.save(train(checkpoints, 3))
    for name, given, words in (
        ("method", "opt_hr", ("opt_ogd", "opt_hr")),
        ("widths", (8, 8, 8, 9), ("8,8,8,8", "8,8,8,9")),
        ("rotation_lr", 0.05, ("0.02", "0.05")),
        ("data", "with the sum 1", ("with the sum 0", "with the sum 1")),
        ("rotated_fraction", 0.5, ("None", "0.5")),
    ):
        with pytest.raises(UserError) as raised:
            small(tmp_path, **checkpoints.settings | {name: given}).restore()
        other = f"is of {name} {words[0]}, and this run of {name} {words[1]}"
        assert str(raised.value) == f"--resume: {path} {other}"
    assert small(tmp_path, **checkpoints.settings).restore() == reached(3)


def test_the_last_two_are_kept(tmp_path):
    checkpoints = small(tmp_path)
    for iteration in range(3, 31, 3):
        checkpoints.save(train(checkpoints, iteration))
        due = [f"checkpoint_{i:08}.npz" for i in (iteration - 3, iteration) if i]
        assert sorted(path.name for path in tmp_path.iterdir()) == due


def test_what_cannot_be_read_does_not_take_the_place_of_what_can(saved):
    """What is saved after damaged ones of later iterations stays."""
    checkpoints, path = saved
    for name in ("checkpoint_00000027.npz", "checkpoint_00000030.npz"):
        (path.parent / name).write_bytes(b"damaged")
    (path.parent / "checkpoint_00000001.npz").mkdir()
    checkpoints.restore()
    assert str(path) in checkpoints.how_to_go_on()
    assert checkpoints.save(train(checkpoints, 9)).exists()
    assert checkpoints.restore().iteration == 9


@pytest.mark.parametrize("name", ["os.replace", "os.fsync", "numpy.lib.format.write_array"])
def test_a_write_that_fails(saved, monkeypatch, name):
    """Earlier files stay, no half-written one is left, and the message names the last good."""
    checkpoints, path = saved
    before = content(path.parent)

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
    assert content(path.parent) == before


def test_weights_that_are_not_finite_are_not_saved(saved):
    checkpoints, path = saved
    before = content(path.parent)
    for at, value in itertools.product(np.ndindex(3, 2), (np.nan, np.inf, -np.inf)):
        wrong = weights(9)[0]
        wrong[at] = value
        checkpoints.variables[0].assign(wrong)
        message = "^after iteration 8 a weight is not finite; "
        with pytest.raises(UserError, match=f"{message}the last good checkpoint is {path}, "):
            checkpoints.save(reached(9))
    assert content(path.parent) == before


ROW = {"fit": 1.0, "reg": 2.0, "acc": 0.5, "seconds": 1.0}


def logs(folder: pathlib.Path, resume: bool = False) -> RunFolder:
    """Returns the folder of a run without weights, its logs open."""
    run = RunFolder(types.SimpleNamespace(log_dir=folder, resume=resume, result_settings=dict))
    run.open("title", [], "of nothing", {})
    return run


def test_logs_that_are_too_short_are_refused(tmp_path):
    report = logs(tmp_path)
    report.log("iter_1", iteration=1, **ROW)
    report.save(Progress(2))
    report.__exit__()
    path = tmp_path / "metrics.csv"
    path.write_text("iteration\n")
    with pytest.raises(UserError, match=f"^{path} is shorter than it was at the checkpoint$"):
        logs(tmp_path, resume=True)


def test_a_deleted_folder_ends_a_run_in_one_line(tmp_path):
    (tmp_path / "log").mkdir()
    report = logs(tmp_path / "log")
    shutil.rmtree(tmp_path / "log")
    with pytest.raises(UserError, match=r"--log_dir=\S+ cannot be written: No such file"):
        report.save(Progress(2))


def test_tensorboard_that_cannot_be_written(tmp_path):
    """Its errors are TensorFlow's and no OSError; they too end a run in one line."""
    pytest.importorskip("tensorboard")
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "tensorboard").write_text("mine")
    with pytest.raises(UserError, match="tensorboard"):
        logs(tmp_path / "taken")
