"""A run that is killed at any file event ends with the files of one that was not.

Run as ``python -m tests.test_kills FOLDER MOST``. An audit hook sees each event before it happens,
and copies the run's folder if it has changed since the event before: a process killed there would
leave the same files. Then at most MOST copies, spread over all events, are run to their end. All
runs are in one process, which imports TensorFlow once.
"""

import csv
import json
import pathlib
import shutil
import sys
import zipfile

import numpy as np
import pytest

from tests.conftest import run
from tests.test_scripts import train

FLAGS = ["--dataset=digits", "--widths=4,4,4,4", "--batch_size=32", "--log_every=2"]
FLAGS += ["--iterations=8", "--eval_every=4", "--checkpoint_every=3"]
EVENTS = {"open", "os.rename", "os.remove", "os.mkdir", "os.truncate", "os.rmdir", "shutil.rmtree"}
TIMES = {"seconds", "first_step_s", "step_ms", "memory_gib", "resumed_after"}


def content(folder: pathlib.Path) -> dict[str, bytes]:
    """Returns the files' contents by name; TensorBoard's, written by a thread, are left out."""
    paths = [path for path in sorted(folder.rglob("*")) if "tensorboard" not in str(path)]
    return {str(path): path.read_bytes() if path.is_file() else b"" for path in paths}


class Copies:
    """Copies ``log`` to numbered folders in ``target``, before each event that finds it changed."""

    def __init__(self, log: pathlib.Path, target: pathlib.Path):
        self.log, self.target, self.names = log, target, []
        self.before, self.busy = None, False
        sys.addaudithook(self.look)

    def look(self, event: str, arguments: tuple) -> None:
        if self.busy or event not in EVENTS or str(self.log) not in " ".join(map(str, arguments)):
            return
        self.busy = True
        if self.log.is_dir() and (now := content(self.log)) != self.before:
            path = self.target / f"{len(self.names):03d}"
            shutil.copytree(self.log, path)
            self.before = now
            self.names.append((path, f"{event} {arguments[0]}"))
        self.busy = False


def outcome(log: pathlib.Path) -> dict[str, object]:
    """Returns what a run leaves, without times and its folder's name; of the last run's logs."""
    result: dict[str, object] = {}
    last = max(log.glob("log_train_*.txt")).stem[-2:]
    for kind in ("train", "test"):
        result[kind] = (log / f"log_{kind}_{last}.txt").read_text()
    with (log / "metrics.csv").open() as file:
        result["metrics"] = [row | {"seconds": None} for row in csv.DictReader(file)]
    facts = json.loads((log / "run.json").read_text())
    for name in ("resume", "log_dir"):
        facts["settings"].pop(name)
    result["facts"] = {name: value for name, value in facts.items() if name not in TIMES}
    result["classes"] = (log / "classes.txt").read_text()
    result["curves"] = (log / "curves.png").read_bytes()
    for name in ("model", "folded"):
        with zipfile.ZipFile(log / f"{name}.keras") as archive:
            # config.json has addresses of objects in it, which differ
            assert json.loads(archive.read("config.json"))["config"]["layers"]
            result[name] = archive.read("model.weights.h5")
    for path in sorted((log / "checkpoints").iterdir()):
        with np.load(path) as arrays:
            result[path.name] = {n: arrays[n].tobytes() for n in arrays if n != "facts"}
    result["unfinished"] = [path.name for path in log.rglob(".*")]
    return result


def main(folder: pathlib.Path, most: int) -> None:
    log = folder / "log"
    words = ["baseline", *FLAGS, f"--log_dir={log}"]
    copies = Copies(log, folder / "copies")
    train(*words)
    expected, count = outcome(log), len(copies.names)
    train(*words)  # a second run in the same folder, which keeps the first one's files
    copies.busy = True
    assert outcome(log)["metrics"] == expected["metrics"]
    wanted = {round(i) for i in np.linspace(0, len(copies.names) - 1, most)}
    for number in sorted(wanted):
        copy, event = copies.names[number]
        shutil.rmtree(log)
        shutil.copytree(copy, log)
        flags = ["--resume"] if any(log.glob("checkpoints/[!.]*.npz")) else []
        train(*words, *flags)
        found = outcome(log)
        differ = [name for name in expected if found.get(name) != expected[name]]
        assert found.keys() == expected.keys(), (number, event, found.keys())
        assert not differ, (number, event, differ)
        if number >= count:  # the first run's files all have its number, or none has
            kept = {path.name for path in log.glob("*_00*")} | {""}
            assert {"model_00.keras", "metrics_00.csv", "run_00.json"} <= kept, (event, kept)
        print(f"## {number} {' '.join(flags)} before {event}: the same", flush=True)


@pytest.mark.parametrize("most", [5, pytest.param(1000, marks=pytest.mark.slow)])
def test_the_next_start_finishes_a_killed_run(tmp_path, most):
    """At five of the file events, or at all of them; a second run in the same folder included."""
    count = run("-m", "tests.test_kills", tmp_path, most).stdout.count("\n## ")
    assert count == 5 if most == 5 else count > 50


if __name__ == "__main__":
    main(pathlib.Path(sys.argv[1]), int(sys.argv[2]))
