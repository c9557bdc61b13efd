"""The README's code can be pasted, and every method is in its table."""

import pathlib

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text()


def test_in_your_own_model_can_be_pasted(tmp_path, monkeypatch, own_model, opt_keras):
    section = README.split("## In your own model")[1].split("\n## ")[0]
    assert section.count("\n") <= 40
    assert "orthogonalize_model" in own_model
    pytest.importorskip("keras_hub")
    monkeypatch.chdir(tmp_path)
    exec(own_model, {})  # noqa: S102 (the README is ours)
    assert (tmp_path / "plain.keras").is_file()


def test_every_method_is_in_the_table():
    for path in ROOT.glob("*/train.py"):
        folder = path.parent.name
        assert f"| `{folder}/` |" in README
        assert f"`cd {folder} && python train.py`" in README
