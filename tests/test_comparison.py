"""The parts of a comparison, on made-up run folders: rows, runs, the table and its words."""

import csv
import json
import math
import os
import re
import subprocess
import sys
import time
import types

import pytest

from common.errors import UserError
from comparison import images, output, table
from comparison.execution import execute
from comparison.rows import parse
from comparison.runs import with_other_seeds
from tests.made_up_runs import comparison, make_up


def cells(text: str) -> dict[str, list[str]]:
    """Returns the cells of a Markdown table by their row's first."""
    lines = [line.strip("|").split("|") for line in text.splitlines() if line[:1] == "|"]
    return {first.strip(): [cell.strip() for cell in others] for first, *others in lines[2:]}


@pytest.fixture
def undrawn(monkeypatch):
    """Leaves the images empty, which is faster."""
    monkeypatch.setattr(images, "draw", lambda path, *_, **__: path.touch())


# Rows and settings


def test_rows_have_names_and_titles():
    texts = ["sopt_gs:rotated_fraction=0.50:orthogonalize=cayley", "opt_gs", "upt:learn_neurons"]
    texts += ["baseline", "opt_gs:rotation_stddev=1e-1", "opt_gs:rotation_stddev=.10"]
    texts += ["sopt_gs:orthogonalize=cayley:rotated_fraction=0.5"]
    cayley = "sopt_gs:orthogonalize=cayley:rotated_fraction=0.5"
    assert [(row.name, row.title) for row in parse(texts)] == [
        ("baseline", "Baseline"),
        ("upt:learn_neurons=true", "UPT, learn_neurons"),
        ("opt_gs", "OPT (GS)"),
        ("opt_gs:rotation_stddev=0.1", "OPT (GS), rotation_stddev 0.1"),
        (cayley, "S-OPT (GS), orthogonalize cayley, rotated_fraction 0.5"),
    ]


def test_presets_are_defaults_of_other_flags(tmp_path):
    sweep = comparison(tmp_path / "out", "--preset=sopt")
    names = [f"sopt_gs:rotated_fraction={fraction}" for fraction in ("0.125", "0.25", "0.5", "1")]
    assert [run.row.name for run in sweep.runs] == names
    assert {run.iterations for run in sweep.runs} == {300_000}

    few = comparison(tmp_path / "out", "--preset=few", "--widths=32,32,32,32")
    shared = {"--train_images=5000", "--iterations=7500", "--warmup_iterations=400"}
    for run in few.runs:
        assert {*shared, "--widths=32,32,32,32", "--seed=1"} <= set(run.command)
    words = ["--methods=upt", "--train_images=0", "--iterations=60", "--warmup_iterations=3"]
    (run,) = comparison(tmp_path / "out", "--preset=few", *words, "--seeds=2").runs
    assert (run.name, run.settings.widths) == ("upt_seed2", (8, 8, 8, 8))
    assert {"--train_images=0", *words[2:]} <= set(run.command)
    assert comparison(tmp_path, "--preset=resnet20", "--widths=8,8,8").backbone == "resnet20"
    assert not (tmp_path / "out").exists()


def test_warmup_of_shortened_runs(tmp_path):
    cases = {"": 0, "--iterations=75000": 0, "--iterations=2000": 400, "--iterations=60": 12}
    for words, warmup in (cases | {"--iterations=60 --warmup_iterations=50": 50}).items():
        settings = comparison(tmp_path, "--methods=baseline,sopt_gs", *words.split())
        # also of longer runs
        assert {run.settings.warmup_iterations for run in settings.runs} == {warmup}, words


# Runs


def test_a_finished_run_has_the_settings_of_its_row(tmp_path):
    words = ["--methods=opt_gs:rotation_stddev=0.2,baseline:base_lr=0.05", "--iterations=60"]
    plain, scaled = comparison(tmp_path, *words).runs
    assert scaled.folder == tmp_path / "runs" / "opt_gs_rotation_stddev=0.2_seed1"
    assert not scaled.is_finished()
    for run in (plain, scaled):
        make_up(run, [50.0])
    path = plain.folder / "run.json"
    path.write_text(path.read_text().replace('"image_size": 32, ', ""))
    assert "image_size" not in path.read_text()  # as of a run that is older than the setting
    assert plain.is_finished()
    path = scaled.folder / "run.json"
    path.write_text(path.read_text().replace('"rotation_stddev": 0.2', '"rotation_stddev": 0.3'))
    with pytest.raises(UserError, match=r"--rotation_stddev=0.3, not 0.2; take another --out"):
        scaled.is_finished()


def test_finished_runs_with_other_seeds_are_included(tmp_path, undrawn):
    words = ["--methods=baseline,upt,opt_gs", "--iterations=60", "--data_note=re-split"]
    # the mean of all of baseline's seeds is smaller than that of opt_gs
    errors = {"baseline_seed1": 60.0, "baseline_seed2": 60.0, "baseline_seed4000000000": 30.0}
    errors |= {"upt_seed1": 52.4, "opt_gs_seed1": 51.0, "opt_gs_seed2": 52.0}
    for run in comparison(tmp_path, *words, "--seeds=1,2,4000000000").runs:
        if run.name in errors:
            make_up(run, [errors[run.name]])
    settings = comparison(tmp_path, *words)
    assert [run.name for run in settings.runs] == ["baseline_seed1", "upt_seed1", "opt_gs_seed1"]
    runs = with_other_seeds(settings.runs)
    assert [run.name for run in runs] == list(errors)
    assert all(run.is_finished() for run in runs)
    output.write(runs, settings)
    text = (tmp_path / "table.md").read_text()
    assert cells(text)["OPT (GS)"][1] == "**51.50 ± 0.71**"
    assert "60 iterations, seeds 1, 2, 4000000000 (UPT: 60 iterations, seed 1; OPT (GS): " in text
    assert "error with seed 1, which all rows have: OPT (GS) with 51.00 %." in text
    assert "does not tell it from Baseline; UPT." in text  # 0.9 is less than sqrt(2) * 0.71


def test_a_comparison_of_few_images_has_the_batch_size_that_fits(tmp_path):
    """The default is that of its finished runs."""
    data = "folder from here: 60 training and 20 test images of 3 classes"
    words = [tmp_path, "--methods=baseline"]
    (run,) = comparison(*words, "--batch_size=60").runs  # as train.py notes it
    make_up(run, [50.0], data=data)
    settings = comparison(*words)
    assert settings.runs[0].is_finished()
    about = output.describe(table.summarize(settings.runs), settings)
    assert about[1].endswith("no warm-up, batch 60")
    (asked,) = comparison(*words, "--batch_size=128").runs
    with pytest.raises(UserError, match="--batch_size=60, not 128"):
        asked.is_finished()


# it does nothing but notice a SIGTERM
PATIENT = """
import pathlib, signal, sys, time
def save(*_):
    time.sleep(1)
    pathlib.Path(sys.argv[1], "saved").touch()
    sys.exit(143)
signal.signal(signal.SIGTERM, save)
pathlib.Path(sys.argv[1], "ready").touch()
time.sleep(60)
"""


def test_an_error_lets_the_other_runs_save(tmp_path, monkeypatch):
    runs = comparison(tmp_path, "--methods=baseline,opt_gs", "--iterations=60").runs
    runs[0].command = [sys.executable, "-c", PATIENT, str(runs[0].folder)]

    def start(gpu: int | None) -> None:
        deadline = time.monotonic() + 30
        while not (runs[0].folder / "ready").exists() and time.monotonic() < deadline:
            time.sleep(0.05)
        raise OSError("no room")

    monkeypatch.setattr(runs[1], "start", start)
    with pytest.raises(OSError, match="no room"):
        execute(runs, jobs=2, gpus=[])
    assert (runs[0].folder / "saved").exists()
    assert runs[0].process.returncode == 143


def test_runs_are_spread_over_gpus(tmp_path, monkeypatch):
    def start(command: list[str], **_) -> types.SimpleNamespace:
        started.append(command[-1])
        return types.SimpleNamespace(poll=lambda: 1, returncode=1)

    started: list[str] = []
    monkeypatch.setattr(subprocess, "Popen", start)
    execute(comparison(tmp_path, "--methods=baseline,upt,mhe").runs, jobs=1, gpus=[0, 1])
    assert started == ["--gpu_no=0", "--gpu_no=1", "--gpu_no=0"]


# Damaged and hostile files

HOSTILE = "<img src=x onerror=alert(1)>\x1b[2J\n;=cmd|[a](javascript:b)`c`"


def facts(**changes):
    """Returns a function that changes the text of run.json; ... leaves a key out."""

    def change(text: bytes) -> bytes:
        changed = json.loads(text) | changes
        return json.dumps({k: v for k, v in changed.items() if v is not ...}).encode()

    return change


RUN_JSON = [
    *(b"", b"[", b'["test_accuracy"]', b"[" * 100_000, b"\xff", b'{"test_accuracy": 1}', b"3"),
    *(b"null", b'{"test_accuracy": ' + b"9" * 5000 + b"}", lambda text: text[:200], os.mkfifo),
    *(facts(settings=wrong) for wrong in (..., [], {}, {"iterations": "x"})),
    *(facts(data=wrong) for wrong in (..., 3, "of 100 classes", HOSTILE)),
    facts(data="A from B: 1 training and 1 test images of 0 classes"),
    facts(test_accuracy="=1+1"),
    facts(test_accuracy=0.9),  # of another run than metrics.csv
    *(facts(**{name: HOSTILE}) for name in ("step_ms", "memory_gib", "seconds", "versions")),
    *(facts(memory_gib=wrong) for wrong in (None, True, -1, math.nan, math.inf, 10**400, [[1]])),
    *(facts(**{name: wrong}) for name in ("device", "git_commit", "identity") for wrong in ([], 1)),
]
METRICS = [
    *(None, b"", b"iteration\n", b"\xff\n", b"a,b\n1,2\n"),
    b"iteration,test_acc,fit\nx,y,z\n",
    b"iteration,test_acc,energy/a,energy/b\n0,,1,1\n59,0.5,1,\n",
    b'iteration,"' + b"a" * 200_000 + b'"\n1,2\n',
    lambda text: text[: len(text) // 2],  # cut within a line
    lambda text: b"\n".join(text.splitlines()[:-1]),  # after one
    lambda text: text + b"5,,,,,,\n",  # not in order
    lambda text: text + b"59,,,,,,,,1\n",
    *(
        lambda text, cells=cells: text + b"59," + cells + b"\n"
        for cells in (b",nan,,,,", b",1e999,,,,", b",,,,-1,", b",,,1.5,,")
    ),
]


def test_damaged_files_are_a_failed_run(tmp_path, capsys):
    """No text of the files is shown, and no run is started."""
    (run,) = comparison(tmp_path, "--methods=baseline", "--iterations=60").runs
    make_up(run, [60.0, 50.0])
    kept = {path: path.read_bytes() for path in run.folder.iterdir()}
    damages = [("run.json", content) for content in RUN_JSON]
    damages += [("metrics.csv", content) for content in METRICS]
    for number, (name, content) in enumerate(damages):
        for path, intact in kept.items():
            path.unlink(missing_ok=True)
            path.write_bytes(intact)
        path = run.folder / name
        if content in (None, os.mkfifo):
            path.unlink()
        if content is os.mkfifo:
            os.mkfifo(path)
        elif content is not None:
            path.write_bytes(content(path.read_bytes()) if callable(content) else content)
        run.failure = None
        assert not run.is_finished(), number
        words = r"damaged: (run\.json|metrics\.csv):? [\w .'/-]+; delete its folder to run it again"
        assert re.fullmatch(words, run.failure, re.ASCII), (number, run.failure)
    assert execute([run], 1, []) is None
    assert run.process is None
    assert capsys.readouterr().out == f"Baseline, seed 1: {run.failure}\n"


def test_no_text_of_a_run_is_shown_raw(tmp_path, capsys):
    settings = comparison(tmp_path, "--methods=baseline,upt", "--iterations=60", "--seeds=1,2")
    runs, versions = settings.runs, {HOSTILE: HOSTILE}
    data = f"{HOSTILE} from {HOSTILE}: 900 training and 9 test images of 100 classes"
    names = ("device", "git_commit", "identity")
    facts = dict.fromkeys(names, HOSTILE) | {"data": data, "versions": versions}
    for run in runs[:3]:
        make_up(run, [60.0, 50.0], **facts)
    path = runs[0].folder / "metrics.csv"  # neurons at the same place have infinite energy
    path.write_text(path.read_text().replace("8.02", "inf").replace("8.01", "nan"))
    # last words that a terminal or a table would obey
    said = HOSTILE.replace("\n", "")
    last = f"import sys; print('0%', end='\\r', file=sys.stderr); sys.exit({said!r})"
    runs[3].command = [sys.executable, "-c", last]
    execute(runs, 1, [])
    assert runs[3].failure.startswith("failed (1): <img src=x")
    output.write(runs, settings)
    assert cells((tmp_path / "table.md").read_text())["Baseline"][5] == "inf ± nan"
    said = capsys.readouterr().out
    assert said.replace("\n", "").isprintable()
    for name in ("table.md", "results.csv"):
        text = (tmp_path / name).read_text()
        assert "alert(1)" in text, name
        assert "\x1b" not in text
        assert "<img src=x" not in text
        assert not re.search(r"(?<!\\)\[a|(?<!\\)`c", text) or name != "table.md"
    lines = text.splitlines()  # of results.csv
    assert len({len(line) for line in csv.reader(lines)}) == 1
    assert not any(re.search(r"(^|[,;])\"?[=@+]", line) for line in lines)


def test_the_table_of_a_comparison_with_collapses(tmp_path, capsys, undrawn):
    """A collapsed run has no result in any file; one that came back has."""
    errors = {"baseline": [1.0, 97.0], "upt": [60.0, 50.0], "opt_gs": [70.0, 52.0]}
    errors |= {"opt_gs:rotation_stddev=0.2": [70.0, 51.0], "opt_or": [99.0, 55.0]}
    errors |= {"opt_hr": [99.0, 20.0]}
    words = ["--iterations=1000", "--seeds=1,2", "--data_note=re-split"]
    settings = comparison(tmp_path, *words, f"--methods={','.join(errors)}")
    guessing = math.log(100)
    fits = {key: [2.0, guessing] for key in ("baseline_seed1", "baseline_seed2", "opt_hr_seed2")}
    fits["opt_or_seed1"] = [guessing, 2.0]
    for run in settings.runs:
        first, last = errors[run.row.name]
        make_up(run, [first, last + 2 * (run.seed == 2)], fits.get(run.name))
    output.write(settings.runs, settings)
    text = (tmp_path / "table.md").read_text()
    rows = cells(text)
    assert rows["Baseline"][:2] == ["guessing at the end", ""]
    assert rows["OPT (HR) (1 of 2 collapsed)"][:2] == ["20.00", "20.00"]
    # the smallest last error of rows without a collapse
    assert rows["UPT"][:2] == ["51.00 ± 1.41", "**51.00 ± 1.41**"]
    assert rows["OPT (OR)"][:2] == ["56.00 ± 1.41", "56.00 ± 1.41"]
    assert text.count("**") == 2
    assert "CIFAR-100, re-split: 50,000 training and 10,000 test images of 100 classes" in text
    assert "warm-up 200, batch 128  \n1,000 iterations, seeds 1, 2  \n" in text
    assert "Best, by the smallest error: UPT with 51.00 ± 1.41 %." in text
    # 52 and 53 are within sqrt(2) * 1.41 = 2 of 51, the last not quite
    assert "does not tell it from OPT (GS), rotation_stddev 0.2." in text
    for seed in (1, 2):
        assert f"Baseline, seed {seed}: guessing at the end." in text
    assert "Best, by" in capsys.readouterr().out
    assert table.best_of(table.summarize(settings.runs)[:2]) is None  # one that has no collapse

    with (tmp_path / "results.csv").open() as file:
        found = {(row["method"], row["seed"]): row for row in csv.DictReader(file)}
    assert found["baseline", "1"]["collapsed"] == "guessing"
    assert float(found["upt", "1"]["training_loss"]) == 4 * 0.5  # of the last of two batches
    assert float(found["upt", "1"]["training_accuracy"]) == 50
    assert found["opt_or", "1"]["collapsed"] == ""
    assert found["opt_gs:rotation_stddev=0.2", "1"]["collapsed"] == ""


def test_times_of_rows_with_settings_are_not_guessed(tmp_path):
    steps = tmp_path / "steps.csv"
    times = "baseline,8/8/8/8,10,1.1,2\nopt_gs,8/8/8/8,15,1.6,3\nupt,8/8/8/8,,,\n"
    times = times.replace("8,", "8,128,float32,") + "opt_gs,8/8/8/8,64,float32,8,1.6,3\n"
    # nor is it of another batch or precision
    times += "opt_gs,8/8/8/8,128,mixed_bfloat16,9,1.6,3\n"
    steps.write_text(f"method,widths,batch,precision,step_ms,ratio,memory_gib\n{times}")
    methods = "--methods=baseline,opt_gs,opt_gs:rotation_stddev=0.2"
    settings = comparison(tmp_path / "out", methods, f"--steps={steps}")
    for run in settings.runs:
        make_up(run, [50.0])
    rows = cells("\n".join(table.markdown(table.summarize(settings.runs), settings.times)))
    assert rows["OPT (GS)"][2:5] == ["15", "1.60", "3.00"]  # to the plain steps timed next to it
    assert rows["OPT (GS), rotation_stddev 0.2"][2:5] == [""] * 3
    with steps.open("a") as file:
        file.write("opt_gs,8/8/8/8,128,float32,9,1.1,3\n")  # as with --jit=on,off
    with pytest.raises(UserError, match="one time of a row at widths 8/8/8/8, batch 128, prec"):
        comparison(tmp_path / "out", methods, f"--steps={steps}")


def test_runs_of_different_images_are_no_comparison(tmp_path):
    settings = comparison(tmp_path, "--iterations=60", "--methods=baseline,opt_gs")
    for run, identity in zip(settings.runs, "ab", strict=True):
        make_up(run, [50.0], identity=identity)
    with pytest.raises(UserError, match="different images: baseline_seed1 has a, opt_gs_seed1 has"):
        output.write(settings.runs, settings)
