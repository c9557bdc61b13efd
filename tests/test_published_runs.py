"""Tables of runs whose logs are published: each is what its command prints from these logs."""

import pathlib
import shutil

import pytest

import compare
from common.training.command_line import parse
from comparison.settings import Comparison
from tests.test_docs import README, commands

ROOT = pathlib.Path(__file__).resolve().parents[1]


def published() -> dict[str, list[str]]:
    """Returns each folder of published runs that the pages name, and its command's words."""
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
def test_the_command_prints_the_table(tmp_path, monkeypatch, folder):
    monkeypatch.chdir(ROOT)
    shutil.copytree(ROOT / folder / "runs", tmp_path / "runs")
    words = [w for w in published()[folder] if not w.startswith(("--out", "--readme"))]
    compare.main(parse(Comparison, [*words, f"--out={tmp_path}"]))
    table = [line for line in (tmp_path / "table.md").read_text().splitlines() if line[:1] == "|"]
    assert len(table) > 2
    assert "\n".join(table) in README.read_text()
