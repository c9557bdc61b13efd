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

from tests import made_up_runs

ROOT = pathlib.Path(__file__).resolve().parents[1]
SMALL = ["--dataset=digits", "--iterations=60", "--widths=8,8,8,8", "--batch_size=32"]


def command(out: pathlib.Path, *words: str) -> list[str]:
    return [sys.executable, "compare.py", *SMALL, f"--out={out}", *words]


def run(out: pathlib.Path, *words: str) -> subprocess.CompletedProcess:
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": "-1"}
    return subprocess.run(
        command(out, *words), cwd=ROOT, env=environment, capture_output=True, text=True, timeout=900
    )


def results(out: pathlib.Path) -> list[dict[str, str]]:
    with (out / "results.csv").open() as file:
        return list(csv.DictReader(file))


def errors(out: pathlib.Path) -> list[tuple[str, ...]]:
    """Returns what does not depend on the machine's pace."""
    return [
        tuple(row[k] for k in ("method", "seed", "status", "best_error", "last_error", "energy"))
        for row in results(out)
    ]


def assert_written(out: pathlib.Path, titles: list[str]) -> None:
    lines = (out / "table.md").read_text().splitlines()
    assert lines[0].startswith(
        "| method | best error % | last error % | ms per step | x baseline | memory GiB |"
    )
    assert [line.split("|")[1].strip() for line in lines[2 : 2 + len(titles)]] == titles
    for name in ("curves.png", "energy.png"):
        assert (out / name).read_bytes().startswith(b"\x89PNG")
    page = (out / "report.html").read_text()
    assert page.count('src="data:image/png;base64,') == 2
    assert "http" not in re.sub(r"base64,[^\"]*", "", page)  # nothing is fetched
    for title in titles:
        assert f"<td>{title}</td>" in page


@pytest.mark.slow
def test_all_methods_with_seeds_and_what_a_second_call_does(tmp_path):
    result = run(tmp_path / "out")
    assert result.returncode == 0, result.stderr
    titles = [
        "Baseline",
        "UPT",
        "MHE",
        "OPT (GS)",
        "OPT (HR)",
        "OPT (LS)",
        "OPT (CP)",
        "OPT (OGD)",
        "OPT (OR)",
        "S-OPT (GS)",
    ]
    assert_written(tmp_path / "out", titles)
    rows = {row["method"]: row for row in results(tmp_path / "out")}
    assert {row["status"] for row in rows.values()} == {"finished"}
    for method in ("opt_gs", "opt_hr", "opt_ls", "opt_cp", "sopt_gs"):
        assert float(rows[method]["energy"]) == pytest.approx(1, abs=1e-4)
        assert float(rows[method]["drift"]) < 10 * 128 * 2**-23
    assert abs(float(rows["baseline"]["energy"]) - 1) > 1e-3
    assert rows["baseline"]["drift"] == ""

    again = run(tmp_path / "out")
    assert "10 of 10 runs are finished already" in again.stdout
    other = run(tmp_path / "out", "--batch_size=16")
    assert other.returncode == 1
    assert "--batch_size=32, not 16" in other.stderr


@pytest.mark.slow
def test_rows_with_settings(tmp_path):
    words = [
        "--methods=opt_gs,opt_gs:rotation_stddev=0.2,upt:learn_neurons,opt_gs:rotation_stddev=0.20",
        "--iterations=20",
    ]
    result = run(tmp_path / "out", *words)
    assert result.returncode == 0, result.stderr
    titles = ["UPT, learn_neurons", "OPT (GS)", "OPT (GS), rotation_stddev 0.2"]
    assert_written(tmp_path / "out", titles)
    runs = tmp_path / "out" / "runs"
    folders = ["opt_gs_rotation_stddev=0.2_seed1", "opt_gs_seed1", "upt_learn_neurons=true_seed1"]
    assert sorted(path.name for path in runs.iterdir()) == folders
    own = [json.loads((runs / name / "run.json").read_text())["settings"] for name in folders]
    assert [facts.get("rotation_stddev") for facts in own[:2]] == [0.2, 1.0]
    assert own[2]["learn_neurons"] is True
    assert "3 of 3 runs are finished already" in run(tmp_path / "out", *words).stdout


@pytest.mark.slow
def test_killed_in_the_middle_and_called_again(tmp_path):
    words = ["--methods=baseline,opt_gs,opt_ogd", "--seeds=1,2"]
    process = subprocess.Popen(
        command(tmp_path / "cut", *words),
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    runs = tmp_path / "cut" / "runs"
    deadline = time.monotonic() + 300
    while not list(runs.glob("baseline_seed2/run.json")):  # the last file of its start
        assert time.monotonic() < deadline
        assert process.poll() is None
        time.sleep(0.1)
    process.send_signal(signal.SIGKILL)
    process.wait()
    time.sleep(1)
    # its run died with it
    for entry in pathlib.Path("/proc").glob("[0-9]*/cmdline"):
        try:
            assert str(runs) not in entry.read_text()
        except (FileNotFoundError, ProcessLookupError):  # a process that has ended since
            continue
    assert len(list(runs.glob("*/run.json"))) == 2
    second = run(tmp_path / "cut", *words)
    assert second.returncode == 0, second.stderr
    assert "1 of 6 runs are finished already" in second.stdout
    whole = run(tmp_path / "whole", *words)
    assert whole.returncode == 0, whole.stderr
    assert errors(tmp_path / "cut") == errors(tmp_path / "whole")
    table = (tmp_path / "cut" / "table.md").read_text()
    assert_written(tmp_path / "cut", ["Baseline", "OPT (GS)", "OPT (OGD)"])
    assert re.search(r"OPT \(GS\) \| \d+\.\d\d ± \d+\.\d\d \|", table)


@pytest.mark.slow
def test_a_signal_loses_no_iteration(tmp_path):
    """Ctrl-C, which the terminal sends to a whole process group, and a batch system's warning that
    a wrapper repeats: the run's checkpoint has all that it did.
    """
    words = ["--methods=baseline", "--iterations=500"]
    folder = tmp_path / "out" / "runs" / "baseline_seed1"

    def interrupted(number: int, send, iteration: int) -> int:
        """Starts the comparison, sends the signal after an iteration, and returns how many the
        checkpoint has.
        """
        options = {
            "cwd": ROOT,
            "env": {**os.environ, "CUDA_VISIBLE_DEVICES": "-1"},
            "start_new_session": True,
        }
        pipes = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE, "text": True}
        process = subprocess.Popen(command(tmp_path / "out", *words), **options, **pipes)
        deadline = time.monotonic() + 300
        while not (done := iterations_logged(folder)) or done < iteration:
            assert time.monotonic() < deadline
            assert process.poll() is None
            time.sleep(0.05)
        send(process.pid, number)
        _, errors = process.communicate(timeout=120)
        assert "Traceback" not in errors
        assert "the same command goes on" in errors
        assert process.returncode == 128 + number
        said = re.findall(r"after (\d+) iterations; to go on", (folder / "output.txt").read_text())
        assert said, "the run was killed before it had saved its state"
        saved = int(said[-1])
        assert (folder / "checkpoints" / f"checkpoint_{saved:08}.npz").is_file()
        assert saved >= done
        return saved

    def twice(process: int, number: int) -> None:
        os.kill(process, number)
        time.sleep(0.02)
        os.kill(process, number)

    first = interrupted(signal.SIGINT, os.killpg, 60)
    second = interrupted(signal.SIGUSR1, twice, first + 40)
    assert first < second < 500
    last = run(tmp_path / "out", *words)
    assert last.returncode == 0, last.stderr
    assert json.loads((folder / "run.json").read_text())["resumed_after"] == second
    assert iterations_logged(folder) == 500


def iterations_logged(folder: pathlib.Path) -> int:
    """Returns how many iterations the run's metrics.csv has; its last line may be half written."""
    path = folder / "metrics.csv"
    lines = path.read_text().splitlines(keepends=True)[1:] if path.is_file() else []
    whole = [line for line in lines if line.endswith("\n")]
    return 1 + max((int(line.split(",")[0]) for line in whole), default=-1)


def test_one_run_that_fails_and_a_readme(tmp_path):
    """A folder where a file should be makes opt_gs fail; the table says so, the others stand."""
    out = tmp_path / "out"
    (out / "runs" / "opt_gs_seed1" / ".unfinished_run.json").mkdir(parents=True)
    readme = tmp_path / "notes.md"
    readme.write_text("before\n<!-- comparison: begin -->\nold\n<!-- comparison: end -->\nafter\n")
    paper = tmp_path / "paper.csv"
    paper.write_text("baseline,37.5\n")
    began = time.monotonic()
    result = run(
        out,
        "--methods=opt_gs,baseline",
        "--iterations=10",
        f"--readme={readme}",
        f"--paper={paper}",
        "--jobs=2",
    )
    assert result.returncode == 0, result.stderr
    # without a terminal: at the start, at the end, around each run's line, and every half minute
    assert result.stderr.count("all runs") <= 2 + 2 * 2 + (time.monotonic() - began) // 30
    assert "over the first 2 iterations" in result.stdout
    assert (
        json.loads((out / "runs" / "baseline_seed1" / "run.json").read_text())["settings"][
            "warmup_iterations"
        ]
        == 2
    )
    assert "a linear warm-up over the first 2" in (out / "table.md").read_text()
    rows = {row["method"]: row for row in results(out)}
    assert rows["baseline"]["status"] == "finished"
    assert rows["opt_gs"]["status"].startswith("failed (2): opt_gs/train.py: ")
    assert_written(out, ["Baseline", "OPT (GS) (1 of 1 failed)"])
    text = readme.read_text()
    assert text.startswith("before\n")
    assert text.endswith("after\n")
    assert "old" not in text
    assert "| Baseline | " in text
    assert "| 37.5 |" in text
    assert "](docs/energy.png)" in text
    assert (tmp_path / "docs" / "energy.png").is_file()


def test_files_are_utf8_and_nothing_breaks_in_an_ascii_locale(monkeypatch, tmp_path):
    """From another folder, and with Python told not to look for modules in the script's."""
    words = ["--methods=baseline,opt_ls", "--iterations=60", "--seeds=1,2"]
    readme = tmp_path / "notes.md"
    readme.write_text("Löwdin\n<!-- comparison: begin -->\n<!-- comparison: end -->\n", "utf-8")
    args = made_up_runs.arguments(monkeypatch, tmp_path / "out", *words)
    for run_ in args.runs:
        made_up_runs.make_up(run_, [60.0, 40.0 + int(run_.seed)], device="Gerät")
    environment = os.environ | {
        **{"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "PYTHONSAFEPATH": "1"}
    }
    result = subprocess.run(
        [sys.executable, str(ROOT / "compare.py"), *sys.argv[1:], f"--readme={readme}"],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        timeout=300,
    )
    assert result.returncode == 0, result.stderr
    assert rb"41.50 \xb1 0.71" in result.stdout
    for path in (readme, *(tmp_path / "out" / name for name in ("table.md", "report.html"))):
        assert "41.50 ± 0.71" in path.read_text("utf-8")
        assert "Gerät" in path.read_text("utf-8")
    assert readme.read_text("utf-8").startswith("Löwdin\n")


BAD = [
    ["--methods=opt_xy"],
    ["--methods="],
    ["--seeds=one"],
    ["--iterations=0"],
    ["--budget=2"],
    ["--budget=0.5"],  # beside --iterations, which SMALL has
    ["--preset=vgg"],
    ["--preset=cnn6", "--backbone=cnn9"],
    ["--jobs=0"],
    ["--widths=8,x,8,8"],
    ["--steps=README.md"],
    ["--warmup_iterations=-1"],
    ["--data_note=two\nlines"],
    ["--methods=baseline,opt_xy:rotation_stddev=0.2"],
    ["--methods=baseline,opt_gs:rotation_stddev=x"],
    ["--methods=baseline,opt_gs:rotation_stdev=0.2"],
    ["--methods=baseline:rotation_stddev=0.2"],  # of another method
    ["--methods=opt_gs:rotation_stddev=../../x"],
    ["--methods=opt_gs:rotation_stddev=0.2:rotation_stddev=0.3"],
    ["--methods=opt_gs:"],
    [f"--methods=opt_gs:rotation_stddev={'1' * 300}"],
    # what is alike for all rows, or not of a run's course
    ["--methods=baseline:iterations=5"],
    ["--methods=baseline:seed=3"],
    ["--methods=baseline:log_dir=here"],
    ["--methods=baseline:warmup_iterations=3"],
    ["--methods=baseline:noresume"],
    ["--methods=baseline:help"],
    ["--methods=baseline:flagfile=x"],
    ["--methods=baseline:only_check_args"],
]


@pytest.mark.parametrize("words", BAD, ids=lambda words: " ".join(words)[:60])
def test_bad_command_lines(tmp_path, words):
    result = run(tmp_path / "out", *words)
    assert result.returncode == 2
    assert "Traceback" not in result.stderr
    assert len(result.stderr.splitlines()) == 1
    assert not (tmp_path / "out").exists()
