"""The parts of a comparison, on made-up run folders: rows, runs, the table and its captions."""

import csv
import itertools
import json
import math
import os
import pathlib
import re
import sys
import time

import pytest

from common.errors import UserError
from comparison import captions, images, output, table
from comparison.execution import execute
from comparison.rows import parse
from comparison.runs import with_other_seeds
from tests.made_up_runs import comparison, make_up


def rows_of_markdown(out: pathlib.Path) -> dict[str, list[str]]:
    lines = (out / "table.md").read_text().splitlines()
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]
    return {line[0]: line[1:] for line in itertools.takewhile(lambda line: len(line) > 1, cells)}


@pytest.fixture
def undrawn(monkeypatch):
    """Makes the images empty, which is faster."""
    monkeypatch.setattr(images, "draw", lambda path, *_: path.touch())


def cells_of(settings) -> dict[str, list[str]]:
    rows = table.table(table.summarize(settings.runs), settings)[1:]
    return {line[0]: line[1:] for line in rows}


# Rows and settings


def test_rows_have_names_folders_and_titles():
    texts = ["sopt_gs:rotated_fraction=0.50:orthogonalize=cayley", "opt_gs", "upt:learn_neurons"]
    texts += ["baseline", "opt_gs:rotation_stddev=1e-1", "opt_gs:rotation_stddev=.10"]
    texts += ["sopt_gs:orthogonalize=cayley:rotated_fraction=0.5"]
    rows = parse(texts)
    assert {row.name: row.title for row in rows} == {
        "baseline": "Baseline",
        "upt:learn_neurons=true": "UPT, learn_neurons",
        "opt_gs": "OPT (GS)",
        "opt_gs:rotation_stddev=0.1": "OPT (GS), rotation_stddev 0.1",
        "sopt_gs:orthogonalize=cayley:rotated_fraction=0.5": (
            "S-OPT (GS), orthogonalize cayley, rotated_fraction 0.5"
        ),
    }
    assert len(rows) == 5
    assert rows[-1].folder == "sopt_gs_orthogonalize=cayley_rotated_fraction=0.5"


def test_presets_are_defaults_of_other_flags(tmp_path):
    sweep = comparison(tmp_path / "out", "--preset=sopt")
    assert sweep.backbone == "cnn6"
    names = [f"sopt_gs:rotated_fraction={fraction}" for fraction in ("0.125", "0.25", "0.5", "1")]
    assert [row.name for row in sweep.rows] == names
    assert {run.iterations for run in sweep.runs} == {300_000}

    few = comparison(tmp_path / "out", "--preset=few", "--widths=32,32,32,32")
    shared = {"--train_images=5000", "--iterations=7500", "--warmup_iterations=400"}
    for run in few.runs:
        assert {*shared, "--widths=32,32,32,32", "--seed=1"} <= set(run.command)
    assert captions.data_name(few) == "CIFAR-100, 5,000 training images"

    words = ["--methods=upt", "--train_images=0", "--iterations=60", "--warmup_iterations=3"]
    (run,) = comparison(tmp_path / "out", "--preset=few", *words, "--seeds=2").runs
    assert (run.name, run.settings.widths) == ("upt_seed2", (8, 8, 8, 8))
    assert {"--train_images=0", *words[2:]} <= set(run.command)
    assert comparison(tmp_path, "--preset=resnet20", "--widths=8,8,8").backbone == "resnet20"
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("words", "warmup"),
    [
        ([], 0),
        (["--iterations=75000"], 0),
        (["--iterations=2000"], 400),
        (["--iterations=60"], 12),
        (["--iterations=60", "--warmup_iterations=50"], 50),
    ],
)
def test_warmup_of_shortened_runs(tmp_path, words, warmup):
    settings = comparison(tmp_path, "--methods=baseline,sopt_gs", *words)
    # also of longer runs
    assert {run.settings.warmup_iterations for run in settings.runs} == {warmup}
    for run in settings.runs:
        make_up(run, [50.0])
    course = captions.course(table.summarize(settings.runs), settings)
    assert course.endswith(f", warm-up {warmup}" if warmup else ", no warm-up")


# Runs


def test_a_finished_run_has_the_settings_of_its_row(tmp_path):
    words = ["--methods=opt_gs:rotation_stddev=0.2,baseline:base_lr=0.05", "--iterations=60"]
    plain, scaled = comparison(tmp_path, *words).runs
    assert scaled.folder == tmp_path / "runs" / "opt_gs_rotation_stddev=0.2_seed1"
    assert not scaled.is_finished()
    for run in (plain, scaled):
        make_up(run, [50.0])
    path = scaled.folder / "run.json"
    path.write_text(path.read_text().replace('"rotation_stddev": 0.2', '"rotation_stddev": 0.3'))
    with pytest.raises(UserError, match=r"--rotation_stddev=0.3, not 0.2; take another --out"):
        scaled.is_finished()


def test_finished_runs_with_other_seeds_are_included(tmp_path, undrawn):
    words = ["--methods=baseline,opt_gs", "--iterations=60", "--data_note=re-split"]
    for run in comparison(tmp_path, *words, "--seeds=1,2,10").runs:
        if run.name != "opt_gs_seed10":
            make_up(run, [60.0 if run.row.method == "baseline" else 50.0 + run.seed])
    settings = comparison(tmp_path, *words)
    assert [run.name for run in settings.runs] == ["baseline_seed1", "opt_gs_seed1"]
    runs = with_other_seeds(settings.runs)
    names = ["baseline_seed1", "baseline_seed2", "baseline_seed10", "opt_gs_seed1", "opt_gs_seed2"]
    assert [run.name for run in runs] == names
    assert all(run.is_finished() for run in runs)
    output.write(runs, settings)
    assert rows_of_markdown(tmp_path)["OPT (GS)"][1] == "**51.50 ± 0.71**"
    assert "seeds 1, 2 and 10 (OPT (GS): seeds 1 and 2)" in (tmp_path / "table.md").read_text()


def test_a_comparison_of_few_images_has_the_batch_size_that_fits(tmp_path):
    """The default is that of its finished runs."""
    data = "folder from here: 60 training and 20 test images of 3 classes"
    words = [tmp_path, "--methods=baseline"]
    (run,) = comparison(*words, "--batch_size=60").runs  # as train.py notes it
    make_up(run, [50.0], data=data)
    settings = comparison(*words)
    assert settings.runs[0].is_finished()
    assert "; batch 60; " in captions.about(table.summarize(settings.runs), settings)[1]
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


# Damaged and hostile files

LONG = "9" * 5000
HOSTILE = "<img src=x onerror=alert(1)>\x1b[2J\n;=cmd|[a](javascript:b)`c`"


def of_facts(**changes):
    """Returns a function that changes run.json."""

    def change(folder: pathlib.Path) -> None:
        path = folder / "run.json"
        facts = json.loads(path.read_text()) | changes
        path.write_text(json.dumps({k: v for k, v in facts.items() if v is not ...}))

    return change


def of_file(name: str, content):
    """Returns a function that writes a file: ``content``, or its value for the file's own."""

    def change(folder: pathlib.Path) -> None:
        path = folder / name
        path.write_bytes(content(path.read_bytes()) if callable(content) else content)

    return change


DAMAGES = [
    *(of_file("run.json", text) for text in (b"", b"[", b'["test_accuracy"]', b"[" * 100_000)),
    *(of_file("run.json", text) for text in (b"\xff", b'{"test_accuracy": 1}', b"3", b"null")),
    of_file("run.json", lambda text: text[:200]),
    of_file("run.json", b'{"test_accuracy": ' + LONG.encode() + b"}"),
    lambda folder: (folder / "run.json").unlink() or os.mkfifo(folder / "run.json"),
    *(of_facts(settings=wrong) for wrong in (..., [], {}, {"iterations": "x"})),
    *(of_facts(data=wrong) for wrong in (..., 3, "of 100 classes", HOSTILE)),
    of_facts(data="A from B: 1 training and 1 test images of 0 classes"),
    of_facts(test_accuracy="=1+1"),
    of_facts(test_accuracy=0.9),  # of another run than metrics.csv
    *(of_facts(**{name: HOSTILE}) for name in ("step_ms", "memory_gib", "seconds", "versions")),
    *(of_facts(memory_gib=wrong) for wrong in (None, True, -1, math.nan, math.inf, 10**400, [[1]])),
    *(of_facts(**wrong) for wrong in ({"device": ["CPU"]}, {"git_commit": {"a": 1}})),
    lambda folder: (folder / "metrics.csv").unlink(),
    *(of_file("metrics.csv", text) for text in (b"", b"iteration\n", b"\xff\n", b"a,b\n1,2\n")),
    of_file("metrics.csv", b"iteration,test_acc,fit\nx,y,z\n"),
    of_file("metrics.csv", b"iteration,test_acc,energy/a,energy/b\n0,,1,1\n59,0.5,1,\n"),
    of_file("metrics.csv", b'iteration,"' + b"a" * 200_000 + b'"\n1,2\n'),
    of_file("metrics.csv", lambda text: text[: len(text) // 2]),  # cut within a line
    of_file("metrics.csv", lambda text: b"\n".join(text.splitlines()[:-1])),  # after one
    of_file("metrics.csv", lambda text: text + b"5,,,,,,\n"),  # not in order
    of_file("metrics.csv", lambda text: text + b"59,,,,,,,,1\n"),
    *(
        of_file("metrics.csv", lambda text, cells=cells: text + b"59," + cells + b"\n")
        for cells in (b",nan,,,,", b",1e999,,,,", b",,,,nan,", b",,,1.5,,")
    ),
]


def test_damaged_files_are_a_failed_run(tmp_path, capsys):
    """Each on its own; no text of the files is shown, and no run is started."""
    settings = comparison(tmp_path, "--methods=baseline", "--iterations=60")
    (run,) = settings.runs
    make_up(run, [60.0, 50.0])
    kept = {path: path.read_bytes() for path in run.folder.iterdir()}
    for number, damage in enumerate(DAMAGES):
        for path, content in kept.items():
            path.unlink(missing_ok=True)
            path.write_bytes(content)
        damage(run.folder)
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
    facts = {"data": data, "device": HOSTILE, "git_commit": HOSTILE, "versions": versions}
    for run in runs[:3]:
        make_up(run, [60.0, 50.0], **facts)
    path = runs[0].folder / "metrics.csv"  # neurons at the same place have infinite energy
    path.write_text(path.read_text().replace("8.02", "inf"))
    # last words that a terminal or a table would obey
    last = f"import sys; sys.exit({HOSTILE.replace(chr(10), '')!r})"
    runs[3].command = [sys.executable, "-c", last]
    execute(runs, 1, [])
    assert runs[3].failure.startswith("failed (1): <img src=x")
    output.write(runs, settings)
    assert rows_of_markdown(tmp_path)["Baseline"][5] == "inf ± nan"
    said = capsys.readouterr().out
    assert said.replace("\n", "").isprintable()
    for name in ("table.md", "report.html", "results.csv"):
        text = (tmp_path / name).read_text()
        assert "alert(1)" in text, name
        assert "\x1b" not in text
        assert "<img src=x" not in text
        assert not re.search(r"(?<!\\)\[a|(?<!\\)`c", text) or name != "table.md"
    lines = csv.reader((tmp_path / "results.csv").read_text().splitlines())
    assert {len(line) for line in lines} == {len(output.COLUMNS)}
    for line in (tmp_path / "results.csv").read_text().splitlines():
        assert not re.search(r"(^|[,;])\"?[=@+]", line)


# Table


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
    rows = rows_of_markdown(tmp_path)
    assert rows["Baseline"][:2] == ["guessing at the end", ""]
    assert rows["OPT (HR) (1 of 2 collapsed)"][:2] == ["20.00", "20.00"]
    # the smallest last error of rows without a collapse
    assert rows["UPT"][:2] == ["51.00 ± 1.41", "**51.00 ± 1.41**"]
    assert rows["OPT (OR)"][:2] == ["56.00 ± 1.41", "56.00 ± 1.41"]
    text = (tmp_path / "table.md").read_text()
    assert text.count("**") == 2
    assert "CIFAR-100, re-split: 50,000 training and 10,000 test images of 100 classes" in text
    assert "1,000 iterations, warm-up 200; batch 128; seeds 1 and 2" in text
    assert "Best, by the smallest last error: UPT with 51.00 ± 1.41 %." in text
    # 52 and 53 are within sqrt(2) * 1.41 = 2 of 51, the last not quite
    assert "does not tell it from OPT (GS), rotation_stddev 0.2." in text
    for seed in (1, 2):
        assert f"Baseline, seed {seed}: guessing at the end." in text
    assert "Best, by" in capsys.readouterr().out

    with (tmp_path / "results.csv").open() as file:
        found = {(row["method"], row["seed"]): row for row in csv.DictReader(file)}
    assert found["baseline", "1"]["collapsed"] == "guessing"
    assert found["opt_or", "1"]["collapsed"] == ""
    assert found["opt_gs:rotation_stddev=0.2", "1"]["collapsed"] == ""

    page = (tmp_path / "report.html").read_text()
    assert re.findall(r'<tr class="(\w+)"><td>([^<]+)</td>', page)[:2] == [
        ("collapsed", "Baseline"),
        ("best", "UPT"),
    ]
    assert page.count("(best)") == 1
    assert "<td>99.00</td>" not in page


def test_a_short_run_that_still_guesses_has_no_result(tmp_path):
    """Fewer iterations than train.py needs to call it a collapse: all its batches show it."""
    settings = comparison(tmp_path, "--methods=baseline,upt,opt_gs", "--iterations=60")
    ends = [(99.0, [math.log(100)] * 2), (98.0, [5.0, 9.1]), (60.0, [5.0, 4.6])]
    for run, (error, fits) in zip(settings.runs, ends, strict=True):
        make_up(run, [99.0, error], fits)
    cells = cells_of(settings)
    assert cells["Baseline"][:2] == ["guessing at the end", ""]
    # 98 % wrong in certain scores: the loss is -log(1e-4) (0.98 - 0.0098 / 100 ...), no 9.1
    assert cells["UPT"][:2] == ["98.00", "98.00"]
    assert cells["OPT (GS)"][:2] == ["60.00", "60.00"]  # one batch on the way past guessing
    summaries = table.summarize(settings.runs)
    assert "Baseline, seed 1: guessing at the end." in captions.verdict(summaries)
    assert table.best_of(summaries[:2]) is None  # no row is the best of one


def test_times_of_rows_with_settings_are_not_guessed(tmp_path):
    steps = tmp_path / "steps.csv"
    steps.write_text("method,widths,step_ms\nbaseline,8/8/8/8,10\nopt_gs,8/8/8/8,15\n")
    methods = "--methods=baseline,opt_gs,opt_gs:rotation_stddev=0.2"
    settings = comparison(tmp_path / "out", methods, f"--steps={steps}")
    for run in settings.runs:
        make_up(run, [50.0])
    cells = cells_of(settings)
    assert cells["OPT (GS)"][2:4] == ["15", "1.50"]
    assert cells["OPT (GS), rotation_stddev 0.2"][2:4] == ["", ""]
