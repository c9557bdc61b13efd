"""Tables of runs whose logs are published: each is what its command prints from these logs."""

import pathlib
import shutil
import subprocess
import sys

import pytest

from tests.test_docs import README, commands

ROOT = pathlib.Path(__file__).resolve().parents[1]


def published() -> dict[str, list[str]]:
    """Returns each folder of published runs that README names, and its command's words."""
    found = {}
    for _, words in commands("python compare.py"):
        for word in words:
            if word.startswith("--out=docs/runs/"):
                found[word.removeprefix("--out=")] = words
    return found


def test_every_published_comparison_has_its_command():
    folders = {str(path.relative_to(ROOT)) for path in (ROOT / "docs/runs").iterdir()}
    assert set(published()) == folders


@pytest.mark.parametrize("folder", published())
def test_the_command_prints_the_table(tmp_path, folder):
    out = tmp_path / "out"
    shutil.copytree(ROOT / folder / "runs", out / "runs")
    words = [w for w in published()[folder] if not w.startswith(("--out", "--readme"))]
    command = [sys.executable, "compare.py", *words, f"--out={out}"]
    options = {"cwd": ROOT, "capture_output": True, "text": True, "timeout": 300, "check": False}
    result = subprocess.run(command, **options)
    assert result.returncode == 0, result.stderr
    table = [line for line in (out / "table.md").read_text().splitlines() if line[:1] == "|"]
    assert len(table) > 2
    assert "\n".join(table) in README.read_text()
