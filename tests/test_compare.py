"""compare.py as a user starts it, interrupts it and starts it again."""

import csv
import json
import os
import pathlib
import re
import signal
import subprocess
import sys
import time

import pytest

import compare
from common.training.command_line import run_program
from comparison.settings import Comparison
from tests import made_up_runs
from tests.conftest import ROOT, run, wait_for

SMALL = ["--dataset=digits", "--iterations=60", "--widths=8,8,8,8", "--batch_size=32"]
OPTIONS = {"cwd": ROOT}


def command(out: pathlib.Path, *words: str) -> list[str]:
    return ["compare.py", *SMALL, f"--out={out}", *words]


def results(out: pathlib.Path) -> dict[tuple[str, str], dict[str, str]]:
    with (out / "results.csv").open() as file:
        return {(row["method"], row["seed"]): row for row in csv.DictReader(file)}


def assert_written(out: pathlib.Path, titles: list[str]) -> None:
    lines = (out / "table.md").read_text().splitlines()
    assert lines[0].startswith(
        "| method | last error % | renewed error % | ms per step | x baseline | memory GiB |"
    )
    assert [line.split("|")[1].strip() for line in lines[2 : 2 + len(titles)]] == titles
    for name in ("curves.png", "energy.png"):
        assert (out / name).read_bytes().startswith(b"\x89PNG")


def begin(out: pathlib.Path, *words: str) -> subprocess.Popen:
    pipes = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE, "text": True}
    line = [sys.executable, *command(out, *words)]
    return subprocess.Popen(line, start_new_session=True, **OPTIONS, **pipes)


@pytest.mark.slow
def test_killed_in_the_middle_and_called_again(tmp_path):
    words = ["--methods=baseline,opt_gs:rotation_stddev=0.2", "--seeds=1,2"]
    cut, runs = tmp_path / "cut", tmp_path / "cut" / "runs"
    process = begin(cut, *words)
    wait_for((runs / "baseline_seed2" / "run.json").exists, process)  # the last file of its start
    process.kill()
    process.wait()
    time.sleep(1)
    # its run died with it
    for entry in pathlib.Path("/proc").glob("[0-9]*/cmdline"):
        try:
            assert str(runs).encode() not in entry.read_bytes()
        except OSError:  # a process that has ended since, or another's
            continue
    assert len(list(runs.glob("*/run.json"))) == 2
    assert "1 of 4 runs are finished already" in run(*command(cut, *words, "--jobs=2")).stdout
    assert_written(cut, ["Baseline", "OPT (GS), rotation_stddev 0.2"])
    assert re.search(r"stddev 0.2 \| \d+\.\d\d ± \d+\.\d\d \|", (cut / "table.md").read_text())
    found = results(cut)
    rotated, plain = found["opt_gs:rotation_stddev=0.2", "1"], found["baseline", "2"]
    assert float(rotated["energy_change"]) < 1e-2
    assert float(rotated["drift"]) < 10 * 128 * 2**-23
    assert float(plain["energy_change"]) > 1e-1
    assert plain["drift"] == ""
    facts = json.loads((runs / "opt_gs_rotation_stddev=0.2_seed1" / "run.json").read_text())
    assert facts["settings"]["rotation_stddev"] == 0.2
    run(*command(tmp_path / "uncut", "--methods=baseline", "--seeds=2"))
    uncut = results(tmp_path / "uncut")["baseline", "2"]
    # they do not depend on the machine's pace
    for name in ("status", "last_error", "renewed_error", "energy_change"):
        assert plain[name] == uncut[name]


@pytest.mark.slow
def test_a_signal_loses_no_iteration(tmp_path):
    """Nor does Ctrl-C, which goes to a process group, or a warning that a wrapper repeats."""
    words = ["--methods=baseline", "--iterations=500"]
    folder, stop = tmp_path / "runs" / "baseline_seed1", 20
    for number, send in ((signal.SIGINT, os.killpg), (signal.SIGUSR1, os.kill)):
        process, least = begin(tmp_path, *words), stop + 40
        wait_for(lambda least=least: iterations_logged(folder) >= least, process)
        done = iterations_logged(folder)
        for _ in range(1 if send is os.killpg else 2):
            send(process.pid, number)
            time.sleep(0.02)
        _, errors = process.communicate(timeout=120)
        assert "Traceback" not in errors
        assert "the same command goes on" in errors
        assert process.returncode == 128 + number
        said = re.findall(r"after (\d+) iterations; to go on", (folder / "output.txt").read_text())
        stop = int(said[-1])
        assert (folder / "checkpoints" / f"checkpoint_{stop:08}.npz").is_file()
        assert done <= stop < 500
    run(*command(tmp_path, *words))
    assert json.loads((folder / "run.json").read_text())["resumed_after"] == stop
    assert iterations_logged(folder) == 500


def iterations_logged(folder: pathlib.Path) -> int:
    """Returns how many iterations the run's metrics.csv has; its last line may be half written."""
    path = folder / "metrics.csv"
    lines = path.read_text().split("\n")[1:-1] if path.is_file() else []
    return 1 + max((int(line.split(",")[0]) for line in lines), default=-1)


def test_a_run_that_fails_in_an_ascii_locale(tmp_path):
    """From another folder; a folder in the place of its lock makes opt_gs fail."""
    words = ["--methods=baseline,opt_gs", "--iterations=60", "--seeds=1,2"]
    out = tmp_path / "out"
    for run_ in made_up_runs.comparison(out, "--dataset=digits", *words).runs:
        if run_.row.kind.method == "opt_gs":
            (run_.folder / "lock").mkdir(parents=True)
        else:
            made_up_runs.make_up(run_, [60.0, 40.0 + run_.seed], device="Gerät")
    ascii_only = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    environment = os.environ | ascii_only | {"PYTHONSAFEPATH": "1"}
    line = [sys.executable, str(ROOT / "compare.py"), "--widths=8,8,8,8", f"--out={out}", *words]
    line += ["--dataset=digits", "--jobs=2"]
    began, options = time.monotonic(), {"capture_output": True, "timeout": 300, "check": False}
    result = subprocess.run(line, cwd=tmp_path, env=environment, **options)
    assert result.returncode == 0, result.stderr
    # without a terminal: at the start, at the end, around each run's line, and every half minute
    assert result.stderr.count(b"all runs") <= 2 + 2 * 2 + (time.monotonic() - began) // 30
    assert b"over the first 12 iterations" in result.stdout
    assert rb"41.50 \xb1 0.71" in result.stdout
    rows = results(out)
    assert rows["baseline", "1"]["status"] == "finished"
    assert rows["opt_gs", "2"]["status"].startswith("failed (2): opt_gs/train.py: ")
    assert_written(out, ["Baseline", "OPT (GS) (2 of 2 failed)"])
    text = (out / "table.md").read_text("utf-8")
    assert "41.50 ± 0.71" in text
    assert "Gerät" in text


LONG = "9" * 5000
# GIVEN stands for a folder with files of other kinds
BAD = f"""
--methods=opt_xy | --methods= | --methods=../opt_gs | --seeds=one | --seeds= | --seeds=-1
--seeds=4294967296 | --iterations=0 | --batch_size=² | --preset=vgg
--preset=few --backbone=resnet20 | --jobs=0 | --jobs=-1 | --gpus=first
--widths=8,x,8,8 | --widths=, | --widths=1,2,3 | --warmup_iterations=-1 | --dataset=mnist
--no_such_flag | stray
--methods=baseline,opt_xy:rotation_stddev=0.2 | --methods=baseline,opt_gs:rotation_stddev=x
--methods=baseline,opt_gs:rotation_stdev=0.2 | --methods=baseline:rotation_stddev=0.2
--methods=opt_gs:rotation_stddev=../../x | --methods=opt_gs:rotation_stddev=0.2:rotation_stddev=0.3
--methods=opt_gs: | --methods=baseline:iterations=5
--methods=baseline:seed=3 | --methods=baseline:log_dir=here | --methods=baseline:warmup_iterations=3
--methods=baseline:noresume | --methods=baseline:help | --methods=baseline:flagfile=x
--out=GIVEN/file | --out=GIVEN/file/below | --out=GIVEN/occupied | --out=~no_such_user/out
--data_dir=~no_such_user/data | --steps=GIVEN/none | --steps=GIVEN/binary | --steps=README.md
--steps=GIVEN/steps.csv --widths=1,1,1,1
--iterations={LONG} | --seeds={LONG} | --widths={LONG} | --gpus={LONG} | --out={LONG}"""
LINES = [line.split() for line in re.split(r"\n| \| ", BAD.strip())]


@pytest.fixture(scope="module")
def given(tmp_path_factory):
    folder = tmp_path_factory.mktemp("given")
    (folder / "occupied").mkdir()
    for path in (folder / "file", folder / "occupied" / "runs"):
        path.write_text("mine")
    (folder / "binary").write_bytes(bytes(range(256)))
    slow = "method,widths,batch,precision,step_ms\nupt,1/1/1/1,128,float32,slow\n"
    (folder / "steps.csv").write_text(slow)
    return folder


@pytest.mark.parametrize("words", LINES, ids=lambda words: " ".join(words)[:60])
def test_bad_settings_are_refused(given, tmp_path, monkeypatch, capsys, words):
    words = [word.replace("GIVEN", str(given)) for word in words]
    words = ["--widths=8,8,8,8", f"--out={tmp_path / 'out'}", "--methods=baseline", *words]
    monkeypatch.setattr(sys, "argv", ["compare.py", *words])
    with pytest.raises(SystemExit) as ended:
        run_program(Comparison, compare.main, "compare.py")
    assert ended.value.code == 2
    assert len(capsys.readouterr().err.splitlines()) == 1
    assert not (tmp_path / "out").exists()
