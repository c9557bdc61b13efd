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

from comparison import captions, output, table
from comparison.execution import execute
from comparison.rows import parse
from comparison.runs import Run, SettingsError, with_all_seeds
from tests.made_up_runs import COLLAPSED, arguments, make_up


def rows_of_markdown(out: pathlib.Path) -> dict[str, list[str]]:
    lines = (out / "table.md").read_text().splitlines()
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]
    return {line[0]: line[1:] for line in itertools.takewhile(lambda line: len(line) > 1, cells)}


# Rows


def test_rows_have_names_folders_and_titles():
    texts = [
        "sopt_gs:rotated_fraction=0.50:orthogonalize=cayley",
        "opt_gs",
        "upt:learn_neurons",
        "baseline",
    ]
    texts += [
        "opt_gs:rotation_stddev=0.2",
        "opt_gs:rotation_stddev=1e-1",
        "opt_gs:rotation_stddev=.20",
    ]
    texts += ["sopt_gs:orthogonalize=cayley:rotated_fraction=0.5", "upt:learn_neurons=True"]
    rows = parse(texts)
    assert [(row.name, row.folder, row.title) for row in rows] == [
        ("baseline", "baseline", "Baseline"),
        ("upt:learn_neurons=true", "upt_learn_neurons=true", "UPT, learn_neurons"),
        ("opt_gs", "opt_gs", "OPT (GS)"),
        (
            "opt_gs:rotation_stddev=0.2",
            "opt_gs_rotation_stddev=0.2",
            "OPT (GS), rotation_stddev 0.2",
        ),
        (
            "opt_gs:rotation_stddev=0.1",
            "opt_gs_rotation_stddev=0.1",
            "OPT (GS), rotation_stddev 0.1",
        ),
        (
            "sopt_gs:orthogonalize=cayley:rotated_fraction=0.5",
            "sopt_gs_orthogonalize=cayley_rotated_fraction=0.5",
            "S-OPT (GS), orthogonalize cayley, rotated_fraction 0.5",
        ),
    ]


def test_preset_sopt_sweeps_the_rotated_fraction(monkeypatch, tmp_path):
    args = arguments(monkeypatch, tmp_path / "out", "--preset=sopt", "--budget=0.1")
    assert args.backbone == "cnn6"
    names = [f"sopt_gs:rotated_fraction={fraction}" for fraction in ("0.125", "0.25", "0.5", "1")]
    assert [row.name for row in args.rows] == names
    assert {run.iterations for run in args.runs} == {30_000}
    beside = arguments(monkeypatch, tmp_path / "out", "--preset=sopt", "--methods=baseline")
    assert [row.name for row in beside.rows] == ["baseline", *names]
    assert not (tmp_path / "out").exists()


def test_preset_few_is_a_default_of_flags_and_rows(monkeypatch, tmp_path):
    monkeypatch.setattr(Run, "problem", lambda run: None)  # a start of train.py for each row
    args = arguments(monkeypatch, tmp_path, "--preset=few", "--widths=32,32,32,32")
    spread = [f"{name}:rotation_stddev=0.2" for name in ("opt_gs", "opt_hr", "opt_ls", "opt_cp")]
    plain = ["base_lr=0.05", "base_lr=0.2", "weight_decay=0.001", "weight_decay=0.0025"]
    names = {"baseline", "upt", "mhe", "opt_gs", "opt_ogd", "opt_or", "sopt_gs", *spread}
    assert {row.name for row in args.rows} == names | {f"baseline:{flag}" for flag in plain}
    shared = {"train_images": "5000", "iterations": "7500", "warmup_iterations": "400"}
    for run in args.runs:
        assert run.flags.items() >= {**shared, "widths": "32,32,32,32", "seed": "1"}.items()
    assert "CIFAR-100, 5,000 training images" in captions.heading(table.summarize(args.runs), args)
    words = ["--methods=upt", "--train_images=2500", "--iterations=60", "--warmup_iterations=3"]
    (run,) = arguments(monkeypatch, tmp_path, "--preset=few", *words, "--seeds=2").runs
    assert (run.name, run.flags["widths"]) == ("upt_seed2", "8,8,8,8")
    asked = {"train_images": "2500", "iterations": "60", "warmup_iterations": "3"}
    assert run.flags.items() >= asked.items()


@pytest.mark.slow
def test_each_train_py_takes_the_flags_of_preset_few(monkeypatch, tmp_path):
    assert arguments(monkeypatch, tmp_path, "--preset=few").runs


@pytest.mark.parametrize(
    ("words", "warmup"),
    [
        ([], 0),
        (["--iterations=75000"], 0),
        (["--iterations=74999"], 400),
        (["--iterations=2000"], 400),
        (["--iterations=60"], 12),
        (["--iterations=4"], 0),
        (["--budget=0.1"], 400),
        (["--budget=0.002"], 30),
        (["--budget=0.1", "--warmup_iterations=0"], 0),
        (["--iterations=60", "--warmup_iterations=50"], 50),
        (["--warmup_iterations=7"], 7),
    ],
)
def test_warmup_of_shortened_runs(monkeypatch, tmp_path, words, warmup):
    args = arguments(monkeypatch, tmp_path, "--methods=baseline,sopt_gs", *words)
    assert args.warmup_iterations == warmup
    # alike, also of longer runs
    assert {run.flags["warmup_iterations"] for run in args.runs} == {str(warmup)}
    assert captions.warmup(args).endswith(f" over the first {warmup}" if warmup else "no warm-up")


def test_a_finished_run_has_the_settings_of_its_row(monkeypatch, tmp_path):
    words = ["--methods=opt_gs:rotation_stddev=0.2,baseline:base_lr=0.05", "--iterations=60"]
    plain, scaled = arguments(monkeypatch, tmp_path, *words).runs
    assert scaled.folder == tmp_path / "runs" / "opt_gs_rotation_stddev=0.2_seed1"
    assert not scaled.is_finished()
    for run in (plain, scaled):
        make_up(run, [50.0])
        assert run.is_finished()
    path = scaled.folder / "run.json"
    path.write_text(path.read_text().replace('"rotation_stddev": 0.2', '"rotation_stddev": 0.3'))
    with pytest.raises(SettingsError, match=r"--rotation_stddev=0.3, not 0.2; take another --out"):
        scaled.is_finished()


def test_all_seeds_takes_in_what_is_finished(monkeypatch, tmp_path):
    words = ["--methods=baseline,opt_gs", "--iterations=60", "--data_note=re-split"]
    for run in arguments(monkeypatch, tmp_path, *words, "--seeds=1,2,10").runs:
        if run.name != "opt_gs_seed10":
            make_up(run, [60.0 if run.row.method == "baseline" else 50.0 + int(run.seed)])
    args = arguments(monkeypatch, tmp_path, *words, "--all_seeds")
    assert [run.name for run in args.runs if run.is_finished()] == [
        "baseline_seed1",
        "opt_gs_seed1",
    ]
    runs = with_all_seeds(args.runs)
    names = ["baseline_seed1", "baseline_seed2", "baseline_seed10", "opt_gs_seed1", "opt_gs_seed2"]
    assert [run.name for run in runs] == names
    output.write(runs, args)
    assert rows_of_markdown(tmp_path)["OPT (GS)"][1] == "**51.50 ± 0.71**"
    assert "seeds 1, 2 and 10 (OPT (GS): seeds 1 and 2)" in (tmp_path / "table.md").read_text()


class Patient(Run):
    """A run that does nothing but notice a SIGTERM."""

    def command(self) -> list[str]:
        code = (
            "import pathlib, signal, sys, time\n"
            "def save(*_):\n"
            "    time.sleep(1)\n"
            "    pathlib.Path('saved').touch()\n"
            "    sys.exit(143)\n"
            "signal.signal(signal.SIGTERM, save)\n"
            "pathlib.Path('ready').touch()\n"
            "time.sleep(60)\n"
        )
        return [sys.executable, "-c", f"import os; os.chdir({str(self.folder)!r})\n{code}"]


class Broken(Run):
    """A run that cannot be started, when the other is under way."""

    def start(self, gpu: str | None) -> None:
        deadline = time.monotonic() + 30
        while not list(self.folder.parent.glob("*/ready")) and time.monotonic() < deadline:
            time.sleep(0.05)
        raise OSError("no room")


def test_an_error_lets_the_other_runs_save(monkeypatch, tmp_path):
    args = arguments(monkeypatch, tmp_path, "--methods=baseline,opt_gs", "--iterations=60")
    first, second = args.runs
    kinds = {"baseline": Patient, "opt_gs": Broken}
    runs = [kinds[run.row.method](run.row, "1", tmp_path, run.alike) for run in (first, second)]
    with pytest.raises(OSError, match="no room"):
        execute(runs, jobs=2, gpus=[])
    assert (runs[0].folder / "saved").exists()
    assert runs[0].process.returncode == 143


# Damaged and hostile files

LONG = "9" * 5000
HOSTILE = "<img src=x onerror=alert(1)>\x1b[2J\n;=cmd|[a](javascript:b)`c`"


def of_facts(**changes):
    """Returns what changes run.json."""

    def change(folder: pathlib.Path) -> None:
        path = folder / "run.json"
        facts = json.loads(path.read_text()) | changes
        path.write_text(json.dumps({k: v for k, v in facts.items() if v is not ...}))

    return change


def of_file(name: str, content):
    """Returns what writes a file: ``content``, or what it returns for the file's own."""

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
    of_facts(device=["CPU"]),
    of_facts(git_commit={"a": 1}),
    of_facts(collapsed="guessing"),
    *(of_facts(collapsed=COLLAPSED | {"iteration": wrong}) for wrong in ("=cmd", 1.5, None)),
    *(of_facts(collapsed=wrong) for wrong in ({"iteration": 3}, COLLAPSED | {"state": HOSTILE})),
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


def test_damaged_files_are_a_failed_run(monkeypatch, tmp_path, capsys):
    """Each on its own; nothing of the files is in what is said, and no run is started."""
    (run,) = arguments(monkeypatch, tmp_path, "--methods=baseline", "--iterations=60").runs
    make_up(run, [60.0, 50.0])
    kept = {path: path.read_bytes() for path in run.folder.iterdir()}
    for number, damage in enumerate(DAMAGES):
        for path, content in kept.items():
            path.unlink(missing_ok=True)
            path.write_bytes(content)
        damage(run.folder)
        one = Run(run.row, run.seed, run.out, run.alike)
        assert not one.is_finished(), number
        words = r"damaged: (run\.json|metrics\.csv):? [\w .'/-]+; delete its folder to run it again"
        assert re.fullmatch(words, one.failure, re.ASCII), (number, one.failure)
    assert execute([one], 1, []) is None
    assert one.process is None
    assert capsys.readouterr().out == f"Baseline, seed 1: {one.failure}\n"


class Hostile(Run):
    """A run that fails, with last words that a terminal or a table would obey."""

    def command(self) -> list[str]:
        return [sys.executable, "-c", f"import sys; sys.exit({HOSTILE.replace(chr(10), '')!r})"]


def test_no_text_of_a_run_is_shown_raw(monkeypatch, tmp_path, capsys):
    words = ["--methods=baseline,upt", "--iterations=60", "--seeds=1,2"]
    args = arguments(monkeypatch, tmp_path, *words)
    versions = {HOSTILE: HOSTILE}
    data = f"{HOSTILE} from {HOSTILE}: 900 training and 9 test images of 100 classes"
    facts = {"data": data, "device": HOSTILE, "git_commit": HOSTILE, "versions": versions}
    for run in args.runs[:3]:
        make_up(run, [60.0, 50.0], collapsed=COLLAPSED | {"until": 20}, **facts)
    path = args.runs[0].folder / "metrics.csv"  # neurons at the same place have infinite energy
    path.write_text(path.read_text().replace("8.02", "inf"))
    args.runs[3] = Hostile(args.runs[3].row, "2", tmp_path, args.runs[3].alike)
    execute(args.runs, 1, [])
    assert args.runs[3].failure.startswith("failed (1): <img src=x")
    output.write(args.runs, args)
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


def test_the_table_of_a_comparison_with_collapses(monkeypatch, tmp_path, capsys):
    """A collapsed run reads as no result, in every file, and one that came back as one."""
    words = ["--iterations=1000", "--seeds=1,2", "--data_note=re-split"]
    methods = "--methods=baseline,upt,opt_gs,opt_gs:rotation_stddev=0.2,opt_or,opt_hr"
    args = arguments(monkeypatch, tmp_path, *words, methods)
    errors = {"baseline": [1.0, 97.0], "upt": [60.0, 50.0], "opt_gs": [70.0, 52.0]}
    errors |= {
        "opt_gs:rotation_stddev=0.2": [70.0, 51.0],
        "opt_or": [99.0, 55.0],
        "opt_hr": [99.0, 20.0],
    }
    for run in args.runs:
        facts = {}
        if run.row.method == "baseline" or run.name == "opt_hr_seed2":
            facts = {"collapsed": COLLAPSED}
        if run.name == "opt_or_seed1":
            facts = {"collapsed": COLLAPSED | {"state": "saturated", "until": 600}}
        first, last = errors[run.row.name]
        make_up(run, [first, last + 2 * (run.seed == "2")], **facts)
    output.write(args.runs, args)
    rows = rows_of_markdown(tmp_path)
    assert rows["Baseline"][:2] == ["collapsed at 340", ""]
    assert rows["OPT (HR) (1 of 2 collapsed)"][:2] == ["20.00", "20.00"]
    assert rows["UPT"][:2] == [
        "51.00 ± 1.41",
        "**51.00 ± 1.41**",
    ]  # the smallest last error of rows without a collapse
    assert rows["OPT (OR)"][:2] == ["56.00 ± 1.41", "56.00 ± 1.41"]
    text = (tmp_path / "table.md").read_text()
    assert text.count("**") == 2
    assert "CIFAR-100, re-split: 50,000 training and 10,000 test images of 100 classes" in text
    assert "1,000 iterations; a linear warm-up over the first 200; seeds 1 and 2" in text
    assert "Best, by the smallest last error: UPT with 51.00 ± 1.41 %." in text
    # 52 and 53 are within sqrt(2) * 1.41 = 2 of 51, the last not quite
    assert "does not tell it from OPT (GS), rotation_stddev 0.2." in text
    at = "noticed at iteration 340, rate 0.1"
    seeds = f"seed 1: guessing, {at}; seed 2: guessing, {at}"
    assert f"Baseline has no result ({seeds})." in text
    assert f"OPT (OR) collapsed and came back (seed 1: saturated, {at}, until 600)." in text
    assert "Best, by" in capsys.readouterr().out

    with (tmp_path / "results.csv").open() as file:
        found = {(row["method"], row["seed"]): row for row in csv.DictReader(file)}
    assert found["baseline", "1"]["collapsed"] == "340"
    assert found["opt_or", "1"]["collapsed_until"] == "600"
    assert found["opt_gs:rotation_stddev=0.2", "1"]["collapsed"] == ""

    page = (tmp_path / "report.html").read_text()
    assert re.findall(r'<tr class="(\w+)"><td>([^<]+)</td>', page)[:2] == [
        ("collapsed", "Baseline"),
        ("best", "UPT"),
    ]
    assert page.count("(best)") == 1
    assert "<td>99.00</td>" not in page


@pytest.mark.parametrize(
    ("classes", "error", "collapsed"), [(100, 98.9, True), (100, 90.0, False), (2, 5.0, False)]
)
def test_a_collapse_that_ends_in_guessing_is_one(monkeypatch, tmp_path, classes, error, collapsed):
    """The loss may leave the band around guessing, and the network still guess."""
    (run,) = arguments(monkeypatch, tmp_path, "--methods=baseline", "--iterations=1000").runs
    data = f"A from B: 1,000 training and 10 test images of {classes} classes"
    make_up(run, [99.0, error], collapsed=COLLAPSED | {"until": 600}, data=data)
    assert run.results.is_collapsed is collapsed


def test_a_short_run_that_still_guesses_has_no_result(monkeypatch, tmp_path):
    """Fewer iterations than train.py needs to call it a collapse; the last batch shows it."""
    args = arguments(monkeypatch, tmp_path, "--methods=baseline,upt,opt_gs", "--iterations=60")
    for run, error, loss in zip(
        args.runs, (99.0, 98.0, 60.0), (math.log(100), 9.1, 4.6), strict=True
    ):
        make_up(run, [99.0, error], [5.0, loss])
    output.write(args.runs, args)
    rows = rows_of_markdown(tmp_path)
    assert rows["Baseline"][:2] == ["guessing at the end", ""]
    # 98 % wrong in certain scores: the loss is -log(1e-4) (0.98 - 0.0098 / 100 ...), no 9.1
    assert rows["UPT"][:2] == ["98.00", "98.00"]
    assert rows["OPT (GS)"][:2] == ["60.00", "**60.00**"]  # one batch on the way past guessing
    text = (tmp_path / "table.md").read_text()
    words = "seed 1: guessing in its last batch, iteration 58, rate 0.01"
    assert f"Baseline has no result ({words})." in text
    assert "<td>guessing at the end</td>" in (tmp_path / "report.html").read_text()


def test_no_row_is_the_best_of_one(monkeypatch, tmp_path):
    args = arguments(monkeypatch, tmp_path, "--methods=baseline,opt_gs", "--iterations=1000")
    make_up(args.runs[0], [50.0])
    make_up(args.runs[1], [99.0], collapsed=COLLAPSED)
    assert table.best_of(table.summarize(args.runs)) is None


def test_times_of_rows_with_settings_are_not_guessed(monkeypatch, tmp_path):
    steps = tmp_path / "steps.csv"
    steps.write_text("method,widths,step_ms\nbaseline,8/8/8/8,10\nopt_gs,8/8/8/8,15\n")
    words = ["--methods=baseline,opt_gs,opt_gs:rotation_stddev=0.2", f"--steps={steps}"]
    args = arguments(monkeypatch, tmp_path / "out", *words)
    for run in args.runs:
        make_up(run, [50.0])
    cells = {line[0]: line[3:5] for line in table.table(table.summarize(args.runs), args)[1:]}
    assert cells["OPT (GS)"] == ["15", "1.50"]
    assert cells["OPT (GS), rotation_stddev 0.2"] == ["", ""]


def test_a_comparison_of_few_images_has_the_batch_size_that_fits(monkeypatch, tmp_path):
    """That of its finished runs, which is no other setting than the default."""
    data = "folder from here: 60 training and 20 test images of 3 classes"
    args = arguments(monkeypatch, tmp_path, "--methods=baseline")
    run = args.runs[0]
    run.flags["batch_size"] = "60"  # as train.py notes it
    make_up(run, [50.0], data=data)
    (run,) = arguments(monkeypatch, tmp_path, "--methods=baseline").runs
    assert run.is_finished()
    assert "batch 60; " in captions.about(table.summarize([run]), args)[1]
    (asked,) = arguments(monkeypatch, tmp_path, "--methods=baseline", "--batch_size=128").runs
    with pytest.raises(SettingsError, match="--batch_size=60, not 128"):
        asked.is_finished()
