"""Tables of runs whose logs are published: each is printed by its command from these logs."""

import shutil

import pytest

import compare
from common.training.command_line import parse
from comparison import images
from comparison.settings import Comparison
from tests.test_docs import PAGES, ROOT, commands

PREFIX = "--out=docs/runs/"
PUBLISHED = [words for _, words in commands("python compare.py") if PREFIX in " ".join(words)]


def folder(words: list[str]) -> str:
    """Returns the folder of published runs that a command reads."""
    return next(word.removeprefix(PREFIX) for word in words if word.startswith(PREFIX))


def test_every_published_comparison_has_its_command():
    assert set(map(folder, PUBLISHED)) == {path.name for path in (ROOT / "docs/runs").iterdir()}


@pytest.mark.parametrize("words", PUBLISHED, ids=folder)
def test_the_command_prints_the_table(tmp_path, monkeypatch, words):
    out = tmp_path / "out"
    shutil.copytree(ROOT / "docs/runs" / folder(words) / "runs", out / "runs")
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(images, "draw", lambda *_, **__: None)
    compare.main(parse(Comparison, [*words, f"--out={out}"]))
    table = [line for line in (out / "table.md").read_text().splitlines() if line[:1] == "|"]
    assert len(table) > 2
    assert any("\n".join(table) in page.read_text() for page in PAGES)
