"""The parts of a comparison, on run folders that are made up: rows, table, captions, images, page."""

import csv
import itertools
import json
import pathlib
import re
import sys
import urllib.parse

import numpy as np
import pytest

import compare
from comparison import captions, images, output, styles, table
from comparison.rows import parse
from comparison.runs import Run, SettingsError, with_all_seeds

COLLAPSED = {"iteration": 340, "state": "guessing", "until": None, "rate": 0.1}


def arguments(monkeypatch, out: pathlib.Path, *words: str):
    """Returns what compare.py makes of a command line."""
    line = ["compare.py", "--dataset=cifar100", "--widths=8,8,8,8", f"--out={out}", *words]
    monkeypatch.setattr(sys, "argv", line)
    return compare.parse_arguments()


def make_up(run: Run, errors: list[float], fits: list[float] | None = None, **facts) -> None:
    """Writes what a finished run leaves: tests with these errors in per cent, evenly through the run."""
    run.folder.mkdir(parents=True)
    names = list(run.row.facts.defaults)
    own = {name: float(value) for name, value in run.row.flags if name not in names}
    shared = {name: run.flags[name] for name in ("dataset", "backbone", "seed", "warmup_iterations")}
    counts = {name: int(run.flags[name]) for name in ("iterations", "batch_size", "log_every", "eval_every")}
    settings = {"method": run.row.method, "widths": [8, 8, 8, 8], **shared, **counts, "own": own}
    data = "CIFAR-100 from somewhere: 50,000 training and 10,000 test images of 100 classes"
    made = {"settings": settings, "data": data, "versions": {"python": "3"}, "git_commit": "abc", "device": "CPU"}
    made |= {"step_ms": 20.0, "memory_gib": 0.5, "seconds": 1.0, "test_accuracy": 1 - errors[-1] / 100}
    (run.folder / "run.json").write_text(json.dumps({**made, "collapsed": None, **facts}))
    columns = ["iteration", "learning_rate", "fit", "test_acc", "energy/fc6", "drift/fc6"]
    with (run.folder / "metrics.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, columns)
        writer.writeheader()
        writer.writerow({"iteration": 0, "energy/fc6": 8.0, "drift/fc6": 1e-7})
        for i, error in enumerate(errors, start=1):
            iteration = run.iterations * i // len(errors) - 1
            fit = fits[i - 1] if fits else 4 * error / 100
            rate = 0.1 if i / len(errors) < 0.4 else 0.01
            writer.writerow({"iteration": iteration - 1, "learning_rate": rate, "fit": fit})
            test = {"test_acc": 1 - error / 100, "energy/fc6": 8.0 + 0.01 * i, "drift/fc6": 1e-6}
            writer.writerow({"iteration": iteration, **test})


def rows_of_markdown(out: pathlib.Path) -> dict[str, list[str]]:
    lines = (out / "table.md").read_text().splitlines()
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]
    return {line[0]: line[1:] for line in itertools.takewhile(lambda line: len(line) > 1, cells)}


# Rows


def test_rows_have_names_folders_and_titles():
    texts = ["sopt_gs:rotated_fraction=0.50:orthogonalize=cayley", "opt_gs", "upt:learn_neurons", "baseline"]
    texts += ["opt_gs:rotation_stddev=0.2", "opt_gs:rotation_stddev=1e-1", "opt_gs:rotation_stddev=.20"]
    texts += ["sopt_gs:orthogonalize=cayley:rotated_fraction=0.5", "upt:learn_neurons=True"]
    rows = parse(texts)
    assert [(row.name, row.folder, row.title) for row in rows] == [
        ("baseline", "baseline", "Baseline"),
        ("upt:learn_neurons=true", "upt_learn_neurons=true", "UPT, learn_neurons"),
        ("opt_gs", "opt_gs", "OPT (GS)"),
        ("opt_gs:rotation_stddev=0.2", "opt_gs_rotation_stddev=0.2", "OPT (GS), rotation_stddev 0.2"),
        ("opt_gs:rotation_stddev=0.1", "opt_gs_rotation_stddev=0.1", "OPT (GS), rotation_stddev 0.1"),
        (
            "sopt_gs:orthogonalize=cayley:rotated_fraction=0.5",
            "sopt_gs_orthogonalize=cayley_rotated_fraction=0.5",
            "S-OPT (GS), orthogonalize cayley, rotated_fraction 0.5",
        ),
    ]


def test_preset_sopt_sweeps_the_rotated_fraction(monkeypatch, tmp_path):
    args = arguments(monkeypatch, tmp_path / "out", "--preset=sopt", "--budget=0.1")
    assert args.backbone == "cnn6"
    assert [row.name for row in args.rows] == [f"sopt_gs:rotated_fraction={f}" for f in ("0.125", "0.25", "0.5", "1")]
    assert {run.iterations for run in args.runs} == {30_000}
    beside = arguments(monkeypatch, tmp_path / "out", "--preset=sopt", "--methods=baseline")
    assert [row.name for row in beside.rows] == ["baseline", *(row.name for row in args.rows)]
    assert not (tmp_path / "out").exists()


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
    assert {run.flags["warmup_iterations"] for run in args.runs} == {str(warmup)}  # alike, also of longer runs
    assert captions.warmup(args) == (f"a linear warm-up over the first {warmup}" if warmup else "no warm-up")


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
    path.write_text(path.read_text().replace('"own": {"rotation_stddev": 0.3}', '"own": {}'))
    with pytest.raises(SettingsError, match=r"--rotation_stddev=1.0, not 0.2"):  # a run of before that flag
        scaled.is_finished()


def test_a_run_of_before_the_warmup_had_none(monkeypatch, tmp_path):
    words = ["--methods=baseline", "--iterations=100"]
    (run,) = arguments(monkeypatch, tmp_path, *words, "--warmup_iterations=0").runs
    make_up(run, [50.0])
    path = run.folder / "run.json"
    facts = json.loads(path.read_text())
    del facts["settings"]["warmup_iterations"]
    path.write_text(json.dumps(facts))
    assert run.is_finished()
    (warm,) = arguments(monkeypatch, tmp_path, *words).runs
    with pytest.raises(SettingsError, match="--warmup_iterations=0, not 20"):
        warm.is_finished()


def test_all_seeds_takes_in_what_is_finished(monkeypatch, tmp_path):
    words = ["--methods=baseline,opt_gs", "--iterations=60", "--data_note=re-split"]
    for run in arguments(monkeypatch, tmp_path, *words, "--seeds=1,2,10").runs:
        if run.name != "opt_gs_seed10":
            make_up(run, [60.0 if run.row.method == "baseline" else 50.0 + int(run.seed)])
    args = arguments(monkeypatch, tmp_path, *words, "--all_seeds")
    assert [run.name for run in args.runs] == ["baseline_seed1", "opt_gs_seed1"]
    runs = with_all_seeds(args.runs)
    names = ["baseline_seed1", "baseline_seed2", "baseline_seed10", "opt_gs_seed1", "opt_gs_seed2"]
    assert [run.name for run in runs] == names
    output.write(runs, args)
    assert rows_of_markdown(tmp_path)["OPT (GS)"][1] == "**51.50 ± 0.71**"
    assert "seeds 1, 2 and 10 (OPT (GS): seeds 1 and 2)" in (tmp_path / "table.md").read_text()


# Table


def test_the_table_of_a_comparison_with_collapses(monkeypatch, tmp_path, capsys):
    """A collapsed run reads as no result, in every file, and is not the best; one that came back is a result."""
    words = ["--iterations=1000", "--seeds=1,2", "--data_note=re-split"]
    methods = "--methods=baseline,upt,opt_gs,opt_gs:rotation_stddev=0.2,opt_or,opt_hr"
    args = arguments(monkeypatch, tmp_path, *words, methods)
    errors = {"baseline": [1.0, 99.0], "upt": [60.0, 50.0], "opt_gs": [70.0, 52.0]}
    errors |= {"opt_gs:rotation_stddev=0.2": [70.0, 51.0], "opt_or": [99.0, 55.0], "opt_hr": [99.0, 20.0]}
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
    assert rows["Baseline"][:2] == ["collapsed at 340, 340", ""]
    assert rows["OPT (HR) (1 of 2 collapsed)"][:2] == ["20.00", "20.00"]
    assert rows["UPT"][:2] == ["51.00 ± 1.41", "**51.00 ± 1.41**"]  # the smallest last error of rows without a collapse
    assert rows["OPT (OR)"][:2] == ["56.00 ± 1.41", "56.00 ± 1.41"]
    text = (tmp_path / "table.md").read_text()
    assert text.count("**") == 2
    assert "CIFAR-100, re-split: 50,000 training and 10,000 test images of 100 classes" in text
    assert "1,000 iterations; a linear warm-up over the first 200; seeds 1 and 2" in text
    assert "Best, by the smallest last error: UPT with 51.00 ± 1.41 %." in text
    # 52 and 53 are within sqrt(2) * 1.41 = 2 of 51, the last not quite
    assert "does not tell it from OPT (GS), rotation_stddev 0.2." in text
    assert "Baseline, seed 2, collapsed (guessing, noticed at iteration 340, rate 0.1) and did not come back" in text
    assert "OPT (OR), seed 1, collapsed (its scores saturated, noticed at iteration 340, rate 0.1) and came back" in text
    assert "Best, by" in capsys.readouterr().out

    with (tmp_path / "results.csv").open() as file:
        found = {(row["method"], row["seed"]): row for row in csv.DictReader(file)}
    assert found["baseline", "1"]["collapsed"] == "340"
    assert found["opt_or", "1"]["collapsed_until"] == "600"
    assert found["opt_gs:rotation_stddev=0.2", "1"]["collapsed"] == ""

    page = (tmp_path / "report.html").read_text()
    assert re.findall(r'<tr class="(\w+)"><td>([^<]+)</td>', page)[:2] == [("collapsed", "Baseline"), ("best", "UPT")]
    assert page.count("(best)") == 1
    assert "<td>99.00</td>" not in page


def test_a_collapse_that_ends_in_guessing_is_one(monkeypatch, tmp_path):
    """The loss may leave the band around guessing, and the network still guess."""
    (run,) = arguments(monkeypatch, tmp_path, "--methods=baseline", "--iterations=1000").runs
    make_up(run, [99.0, 98.9], collapsed=COLLAPSED | {"until": 600})
    assert run.is_collapsed()


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


# Page


def test_the_page_fits_a_phone_and_its_links_lead_somewhere(monkeypatch, tmp_path):
    words = ["--methods=baseline,opt_gs:rotation_stddev=0.2", "--iterations=60", "--data_note=<i>half & half"]
    args = arguments(monkeypatch, tmp_path, *words)
    for run in args.runs:
        make_up(run, [60.0, 50.0])
    output.write(args.runs, args)
    page = (tmp_path / "report.html").read_text()
    assert '<meta name="viewport" content="width=device-width, initial-scale=1">' in page
    assert page.count('<div class="scroll" tabindex="0" role="region"') == page.count("<table") + page.count("<img")
    assert "<i>" not in page
    assert "CIFAR-100, &lt;i&gt;half &amp; half" in page
    links = re.findall(r'href="([^"]+)"', page)
    assert len(links) == 4
    for link in links:
        assert (tmp_path / urllib.parse.unquote(link)).exists(), link
    for alt in re.findall(r'<img alt="([^"]+)"', page):
        assert "OPT (GS), rotation_stddev 0.2 50.00" in alt or "1.00" in alt
    assert page.count("<figcaption>") == 2


# Images


def test_styles_differ_for_the_colour_blind_and_without_colour():
    looks = [styles.style(i) for i in range(52)]
    assert len({(look["ls"], look["marker"]) for look in looks}) == 52
    colors = [look["color"] for look in looks[:12]]
    # Machado, Oliveira and Fernandes 2009, on linear sRGB: nobody, deuteranopia, protanopia, tritanopia
    sights = np.array(
        [
            [[1, 0, 0], [0, 1, 0], [0, 0, 1]],
            [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
            [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
            [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]],
        ]
    )
    to_xyz = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])

    def lab(color: str) -> np.ndarray:
        srgb = np.array([int(color[i : i + 2], 16) for i in (1, 3, 5)]) / 255
        linear = np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4)
        seen = np.clip(sights @ linear, 0, 1) @ to_xyz.T / to_xyz.sum(1)
        x, y, z = np.where(seen > 216 / 24389, np.cbrt(seen), (24389 / 27 * seen + 16) / 116).T
        return np.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], axis=-1)

    for one, other in itertools.combinations(colors, 2):
        # CIELAB, where 2.3 is the least that is seen
        assert np.linalg.norm(lab(one) - lab(other), axis=-1).min() > 10, (one, other)


def test_methods_look_the_same_whatever_is_beside_them():
    alone = styles.styles_of(parse(["opt_gs"]))
    beside = styles.styles_of(parse(["baseline", "opt_gs:rotation_stddev=0.2", "opt_gs", "sopt_gs"]))
    assert beside["opt_gs"] == alone["opt_gs"]
    assert len({look["marker"] for look in beside.values()}) == 4


def test_an_outlier_does_not_squeeze_the_loss(monkeypatch, tmp_path):
    args = arguments(monkeypatch, tmp_path, "--methods=baseline,opt_gs,opt_ls,opt_or", "--iterations=1000")
    fits = {"opt_or": [9.2] * 20}
    for run in args.runs:
        falling = [6.0, *np.linspace(4.0, 3.0, 19).tolist()]
        make_up(run, [50.0] * 20, fits.get(run.row.method, falling))
    summaries = table.summarize(args.runs)
    lines = [images.line_of(summary, images.CURVES[1], as_share=False) for summary in summaries]
    assert 4 < images.ceiling(lines) < 4.5
    assert images.ceiling(lines[:3]) is not None  # the start alone lies above
    same = [images.line_of(summary, images.CURVES[0], as_share=False) for summary in summaries]
    assert images.ceiling(same) is None
    assert images.rate_drops(args.runs[0]) == [pytest.approx(0.4, abs=0.05)]


def test_runs_of_different_lengths_are_drawn_by_their_share(monkeypatch, tmp_path):
    args = arguments(monkeypatch, tmp_path, "--methods=baseline,sopt_gs", "--budget=0.01")
    for run in args.runs:
        make_up(run, [60.0, 50.0])
    summaries = table.summarize(args.runs)
    assert [run.iterations for run in args.runs] == [750, 3000]
    lines = [images.line_of(summary, images.CURVES[0], as_share=True) for summary in summaries]
    for line in lines:
        assert line.x.tolist() == [50, 100]
    assert captions.lengths(summaries) == "750 iterations (S-OPT (GS): 3,000 iterations)"
    assert "750 and 3,000 iterations" in captions.heading(summaries, args)
