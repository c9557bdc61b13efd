"""The benchmarks as a user starts them, on small networks and matrices, and what they write."""

import csv
import math
import os
import pathlib
import re
import subprocess
import sys

import pytest

from benchmarks import gpu, pace, scale, steps

ROOT = pathlib.Path(__file__).resolve().parents[1]
EPSILON = 2.0**-23


def start(name: str, *arguments: str) -> subprocess.CompletedProcess:
    """Runs ``python -m benchmarks.NAME`` in the repository's root and returns its output and exit
    code.
    """
    command = [sys.executable, "-m", f"benchmarks.{name}", *map(str, arguments)]
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": "-1"}
    return subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=600
    )


def written(path: pathlib.Path) -> list[dict[str, str]]:
    """Returns the rows of a CSV whose picture lies beside it."""
    assert path.with_suffix(".png").read_bytes().startswith(b"\x89PNG")
    with path.open() as file:
        return list(csv.DictReader(file))


def readme_with_marks(folder: pathlib.Path, name: str, file: str = "README.md") -> pathlib.Path:
    """Returns a Markdown file that has an old table of the benchmark ``name``."""
    path = folder / file
    path.parent.mkdir(exist_ok=True)
    path.write_text(f"above\n<!-- {name}: begin -->\nyesterday\n<!-- {name}: end -->\nbelow\n")
    return path


def assert_positive(row: dict[str, str], *columns: str) -> None:
    for column in columns:
        assert math.isfinite(float(row[column])), row
        assert float(row[column]) > 0, row


def test_maps(tmp_path):
    readme = readme_with_marks(tmp_path, "maps")
    names = ["gram_schmidt formed", "lowdin product", "cayley product", "tf.linalg.qr"]
    words = [
        f"--implementations={','.join(names)}",
        f"--out={tmp_path / 'maps.csv'}",
        f"--readme={readme}",
    ]
    result = start("maps", "--quick", "--sizes=27", *words)
    assert result.returncode == 0, result.stderr
    rows = written(tmp_path / "maps.csv")
    assert "tensorflow 2." in result.stdout.splitlines()[0]
    for batch in ("1", "5"):
        own = {row["implementation"]: row for row in rows if row["batch"] == batch}
        assert set(own) == {"tf.matmul", *names}
        assert own["tf.matmul"]["multiple"] == "1.0"
        for name in names:
            row = own[name]
            assert (row["n"], row["jit"]) == ("27", "off")
            assert_positive(row, "ms", "multiple", "orthogonality", "deviation", "rounds")
            assert float(row["orthogonality"]) < 10 * 27 * EPSILON
            assert (
                float(row["deviation"]) < 1e-4
            )  # a map of another matrix, or of another sign, is off by 1
            assert f" {name} " in result.stdout
    text = readme.read_text()
    assert text.startswith(
        "above\n<!-- maps: begin -->\n| implementation | n = 27 | 5 of 27 | error, n = 27 |\n"
    )
    assert "| **cayley product** | " in text
    assert text.endswith("<!-- maps: end -->\nbelow\n")
    assert "yesterday" not in text
    assert (tmp_path / "docs" / "maps.png").read_bytes() == (tmp_path / "maps.png").read_bytes()


@pytest.mark.slow
def test_maps_beside_torch_and_with_jit(tmp_path):
    """Every peer that is installed computes the map that its row names, and so do the maps under
    XLA.
    """
    readme = readme_with_marks(tmp_path, "maps")
    words = [f"--out={tmp_path / 'maps.csv'}", f"--readme={readme}"]
    result = start("maps", "--sizes=27", "--rounds=1", *words)
    assert result.returncode == 0, result.stderr
    rows = written(tmp_path / "maps.csv")
    assert {row["jit"] for row in rows} == {"on", "off"}
    assert [row["implementation"] for row in rows if row["note"]] == ["tf.linalg.svd"] * 2
    for row in rows:
        if row["map"] != "one product" and not row["note"]:
            assert float(row["orthogonality"]) < 10 * 27 * EPSILON, row
            assert float(row["deviation"]) < 1e-4, row


def test_steps_writes_a_table_and_a_picture(tmp_path, monkeypatch, capsys):
    times = {"baseline": 100.0, "opt_gs": 150.0, "opt_cp": 200.0, "opt_gs:block_size=64": 125.0}

    def measured(name: str, widths: list[int], *_) -> dict[str, float]:
        return {
            "step_ms": times[name],
            "first_step_s": 2.0,
            "memory_gib": 0.8 if name == "baseline" else 1.0,
        }

    monkeypatch.setattr(steps, "in_a_process", measured)
    monkeypatch.setattr(pace, "in_a_process", lambda: {"product": 100.0, "step": 90.0})
    readme = readme_with_marks(tmp_path, "steps")
    methods = "--methods=opt_gs,opt_cp,opt_gs:block_size=64"
    words = [methods, f"--out={tmp_path / 'steps.csv'}", f"--readme={readme}"]
    monkeypatch.setattr(sys, "argv", ["steps", *words])
    steps.main()
    rows = written(tmp_path / "steps.csv")
    columns = [
        "method",
        "widths",
        "step_ms",
        "ratio",
        "first_step_s",
        "memory_gib",
        "memory_ratio",
        "images_per_s",
    ]
    assert list(rows[0]) == columns
    assert [(row["method"], row["widths"], float(row["ratio"])) for row in rows] == [
        ("opt_gs", "64/64/64/64", 1.5),
        ("opt_cp", "32/64/128/128", 2.0),
        ("opt_gs:block_size=64", "64/64/64/64", 1.25),
    ]
    assert "opt_cp" in capsys.readouterr().out
    assert (
        "\n| OPT (CP) | 32/64/128/128 | 200 | 2.00 | 2.0 | 1.00 | 1.25 | 640 |\n"
        in readme.read_text()
    )
    assert "\n| OPT (GS), block_size 64 | 64/64/64/64 | 125 |" in readme.read_text()
    assert "](docs/steps.png)" in readme.read_text()


def test_steps_with_kernels(tmp_path, monkeypatch, capsys):
    """One more column, and of each row alone: the plain steps around it are not counted."""

    def measured(name: str, widths: list[int], *rest) -> dict[str, float]:
        kernels = {"kernels": 1234} if rest[-1] else {}
        return {"step_ms": 100.0, "first_step_s": 2.0, "memory_gib": 1.0} | kernels

    monkeypatch.setattr(steps, "in_a_process", measured)
    monkeypatch.setattr(pace, "in_a_process", lambda: {"product": 100.0, "step": 90.0})
    readme = readme_with_marks(tmp_path, "steps")
    words = ["--methods=opt_gs", f"--out={tmp_path / 'steps.csv'}", f"--readme={readme}"]
    monkeypatch.setattr(sys, "argv", ["steps", "--kernels", *words])
    steps.main()
    (row,) = written(tmp_path / "steps.csv")
    assert row["kernels"] == "1234"
    head, line = capsys.readouterr().out.splitlines()[:2]
    assert head.endswith(" kernels")
    assert line.endswith(" 1,234")
    assert " images per second | kernels |\n" + "|---" * 9 + "|\n" in readme.read_text()
    assert "| 1280 | 1,234 |\n" in readme.read_text()


def test_steps_says_when_the_machine_is_not_idle(tmp_path, monkeypatch, capsys):
    paces = iter([{"product": 100.0, "step": 45.0}, {"product": 100.0, "step": 60.0}])
    monkeypatch.setattr(pace, "in_a_process", lambda: next(paces))
    figures = {"step_ms": 100.0, "first_step_s": 2.0, "memory_gib": 1.0}
    monkeypatch.setattr(steps, "in_a_process", lambda *_: dict(figures))
    readme = readme_with_marks(tmp_path, "steps")
    words = ["--methods=opt_gs", f"--out={tmp_path / 'steps.csv'}", f"--readme={readme}"]
    monkeypatch.setattr(sys, "argv", ["steps", *words])
    steps.main()
    slow = "a plain step reaches 45 of 100 GFLOP/s, under half of a matrix product's"
    changed = "the step's rate changed by over 10 %: 45 before and 60 GFLOP/s after"
    for text in (capsys.readouterr().err, readme.read_text()):
        assert slow in text
        assert changed in text
    assert not pace.doubts({"product": 100.0, "step": 90.0}, {"product": 95.0, "step": 95.0})


@pytest.mark.slow
def test_the_machines_pace():
    """The rates are those of operations that can be counted: no machine has a million of them."""
    rates = pace.measure()
    assert set(rates) == {"product", "step"}
    assert all(0.1 < rate < 1e6 for rate in rates.values())


@pytest.mark.slow
def test_steps_of_a_small_network(tmp_path):
    words = [
        "--quick",
        "--kernels",
        "--widths=8,8,8,8",
        "--methods=baseline,opt_gs,sopt_gs:block_size=16:orthogonalize=cayley",
        "--precision=mixed_float16",
        f"--out={tmp_path / 'steps.csv'}",
    ]
    result = start("steps", *words)
    assert result.returncode == 0, result.stderr
    rows = written(tmp_path / "steps.csv")
    assert [(row["method"], row["widths"]) for row in rows] == [
        ("baseline", "8/8/8/8"),
        ("opt_gs", "8/8/8/8"),
        ("sopt_gs:block_size=16:orthogonalize=cayley", "8/8/8/8"),
    ]
    for row in rows:
        columns = ["step_ms", "ratio", "first_step_s", "memory_gib", "images_per_s", "kernels"]
        assert_positive(row, *columns)


def test_scale_says_what_took_too_long_or_failed(tmp_path, monkeypatch, capsys):
    def measured(
        name: str, widths: list[int], jit: str, count: int, batch: int, limit_s: int
    ) -> dict[str, float]:
        assert (jit, batch) == ("off", 32)
        if (name, widths[0]) == ("opt_ls", 128):
            raise subprocess.TimeoutExpired("steps", limit_s)
        if (name, widths[0]) == ("opt_gs", 128):
            raise subprocess.CalledProcessError(-9, "steps", stderr="")
        return {
            "step_ms": 100.0 if name == "baseline" else 130.0,
            "first_step_s": 2.0,
            "memory_gib": widths[0] / 50,
        }

    monkeypatch.setattr(scale, "in_a_process", measured)
    readme = readme_with_marks(tmp_path, "scale", "docs/benchmarks.md")
    words = ["--methods=opt_gs,opt_ls,baseline", "--widths=128,64", "--limit_s=7"]
    monkeypatch.setattr(
        sys, "argv", ["scale", *words, f"--out={tmp_path / 'scale.csv'}", f"--readme={readme}"]
    )
    scale.main()
    rows = {(row["method"], row["width"]): row for row in written(tmp_path / "scale.csv")}
    assert len(rows) == 6
    assert rows["opt_gs", "64"]["ratio"] == "1.3"
    assert (rows["baseline", "64"]["steps"], rows["baseline", "128"]["steps"]) == ("6", "3")
    assert (rows["opt_ls", "128"]["note"], rows["opt_ls", "128"]["step_ms"]) == ("over 7 s", "")
    assert rows["opt_gs", "128"]["note"] == "failed (-9): no output"
    assert "\n| OPT (LS) | 130 ms (1.30), 1.3 GiB | over 7 s |\n" in readme.read_text()
    # of a file in docs/ the image lies beside it
    assert "](scale.png)" in readme.read_text()
    assert (tmp_path / "docs" / "scale.png").read_bytes() == (tmp_path / "scale.png").read_bytes()
    assert re.search(r"^opt_ls +128 over 7 s$", capsys.readouterr().out, re.MULTILINE)


@pytest.mark.slow
def test_scale_of_small_networks(tmp_path):
    result = start(
        "scale", "--quick", "--methods=baseline,opt_cp", f"--out={tmp_path / 'scale.csv'}"
    )
    assert result.returncode == 0, result.stderr
    rows = written(tmp_path / "scale.csv")
    assert [(row["method"], row["width"]) for row in rows] == [
        (m, w) for w in ("16", "32") for m in ("baseline", "opt_cp")
    ]
    for row in rows:
        assert_positive(row, "step_ms", "ratio", "first_step_s", "memory_gib")


def test_gpu_without_one_is_refused(tmp_path, monkeypatch, capsys):
    import tensorflow as tf

    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind: [])
    monkeypatch.setattr(sys, "argv", ["gpu", f"--out={tmp_path / 'gpu.csv'}"])
    with pytest.raises(SystemExit) as stopped:
        gpu.main()
    assert stopped.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("benchmarks.gpu: TensorFlow finds no GPU")
    assert "--allow_cpu" in line
    assert list(tmp_path.iterdir()) == []


def test_gpu_says_what_took_too_long_and_what_was_skipped(tmp_path, monkeypatch, capsys):
    """100 s a measurement: the run, with XLA the two plain steps at the widths of the methods, and
    opt_gs, whose process gets the 50 s that are left. Nothing is left for the others.
    """
    times = {("baseline", 64): 10.0, ("baseline", 32): 8.0}
    now = 0.0

    def spend(limit_s: float) -> None:
        nonlocal now
        now += min(100, limit_s)
        if limit_s < 100:
            raise subprocess.TimeoutExpired("steps", limit_s)

    def measured(
        name: str, widths: list[int], jit: str, count: int, batch: int, limit_s: float, precision
    ) -> dict[str, float]:
        assert (jit, precision) == ("on", "float32")
        spend(limit_s)
        return {"step_ms": times[name, widths[0]], "first_step_s": 2.0, "memory_gib": 1.0}

    def trained(iterations: int, widths: list[int], limit_s: float) -> dict[str, float]:
        assert (iterations, widths) == (2000, [64] * 4)
        spend(limit_s)
        return {"seconds": 61.4, "test_accuracy": 0.98765}

    monkeypatch.setattr(gpu, "in_a_process", measured)
    monkeypatch.setattr(gpu, "run_on_digits", trained)
    monkeypatch.setattr(gpu.time, "monotonic", lambda: now)
    readme = readme_with_marks(tmp_path, "gpu")
    words = ["--allow_cpu", "--methods=opt_gs,opt_cp", "--limit_s=120", "--budget_s=350"]
    words += [f"--out={tmp_path / 'gpu.csv'}", f"--readme={readme}"]
    monkeypatch.setattr(sys, "argv", ["gpu", *words])
    gpu.main()
    rows = written(tmp_path / "gpu.csv")
    first = [(r["method"], r["widths"], r["way"], r["ratio"], r["note"]) for r in rows[:4]]
    assert first == [
        ("baseline", "64/64/64/64", "float32 with XLA", "1.0", ""),
        ("baseline", "32/64/128/128", "float32 with XLA", "1.0", ""),
        ("opt_gs", "64/64/64/64", "float32 with XLA", "", "over 50 s"),
        ("opt_cp", "32/64/128/128", "float32 with XLA", "", "skipped, the time is over"),
    ]
    assert len(rows) == 3 * 4 + 1
    assert {r["note"] for r in rows[4:-1]} == {"skipped, the time is over"}
    assert (rows[-1]["iterations"], rows[-1]["test_accuracy"]) == ("2000", "0.98765")
    text, skipped = readme.read_text(), "skipped, the time is over"
    assert f"\n| Baseline, 32/64/128/128 | {skipped} | 8.0 ms (1.00) | {skipped} |\n" in text
    assert f"\n| OPT (GS), 64/64/64/64 | {skipped} | over 50 s | {skipped} |\n" in text
    assert "2,000 iterations of OPT (GS) on the digits: 61 s, test accuracy 98.77 %." in text
    assert "2,000 iterations of opt_gs on the digits: 61 s" in capsys.readouterr().out


@pytest.mark.slow
def test_gpu_tried_out_on_a_cpu(tmp_path):
    readme = readme_with_marks(tmp_path, "gpu")
    words = ["--allow_cpu", "--quick", "--methods=opt_ogd", f"--out={tmp_path / 'gpu.csv'}"]
    result = start("gpu", *words, f"--readme={readme}")
    assert result.returncode == 0, result.stderr
    *rows, run = written(tmp_path / "gpu.csv")
    names = ["float32 with XLA", "float32 without XLA", "bfloat16 with XLA"]
    assert [(row["method"], row["way"]) for row in rows] == [
        (method, way) for way in names for method in ("baseline", "opt_ogd")
    ]
    for row in rows:
        assert_positive(row, "step_ms", "ratio", "first_step_s", "memory_gib")
    assert (run["method"], run["iterations"]) == ("opt_gs", "20")
    assert_positive(run, "seconds", "test_accuracy")
    assert "\nNo GPU, only tried out on a CPU: " in readme.read_text()


BAD = [
    ["steps", "--methods=opt_xy"],
    ["steps", "--methods=opt_gs:widths=8"],
    ["steps", "--widths=8,8,8"],
    ["steps", "--widths=8,8,8,a"],
    ["steps", "--steps=0"],
    ["steps", "--jit=maybe"],
    ["steps", "--precision=half"],
    ["steps", "--readme=LICENSE"],
    ["steps", "--out=no/such/folder/steps.csv"],
    ["gpu", "--methods=opt_xy"],
    ["gpu", "--limit_s=0"],
    ["scale", "--methods=opt_xy"],
    ["scale", "--widths=0"],
    ["scale", "--batch=-1"],
    ["scale", "--limit_s=soon"],
    ["scale", "--out=scale.png"],
    ["maps", "--sizes=27,0"],
    ["maps", "--sizes="],
    ["maps", "--rounds=0"],
    ["maps", "--columns=1.5"],
    ["maps", "--jit_up_to=-1"],
    ["maps", "--implementations=eigh"],
    ["maps", "--readme=LICENSE"],
    ["maps", "--out=tests"],
    ["maps", "--no_such_flag"],
    ["maps", "stray"],
]


@pytest.mark.parametrize("arguments", BAD, ids=" ".join)
def test_bad_arguments(monkeypatch, capsys, tmp_path, arguments):
    """One line on stderr, exit code 2, and nothing written."""
    from benchmarks import maps

    name, *words = arguments
    module = {"gpu": gpu, "steps": steps, "scale": scale, "maps": maps}[name]
    monkeypatch.setattr(sys, "argv", [name, f"--out={tmp_path / 'out.csv'}", *words])
    monkeypatch.chdir(ROOT)
    with pytest.raises(SystemExit) as stopped:
        module.main()
    assert stopped.value.code == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1, lines
    assert lines[0].startswith(f"benchmarks.{name}: ")
    assert words[0].split("=")[0].lstrip("-") in lines[0]
    assert list(tmp_path.iterdir()) == []


def test_bad_arguments_as_a_user_gives_them():
    result = start("scale", "--widths=wide")
    assert result.returncode == 2
    assert result.stderr.splitlines() == [
        "benchmarks.scale: argument --widths: 'wide' is not a positive whole number"
    ]
