"""README.md and docs/: links, images, commands and names are right, and code can be pasted."""

import dataclasses
import pathlib
import re
import shlex
import textwrap

import keras
import numpy as np
import pytest

from benchmarks import maps, original, steps
from common.training.command_line import parse
from common.training.methods import known
from common.training.settings import Settings
from comparison.settings import Comparison
from comparison.studies import Study
from examples import finetune
from predict import Prediction
from tests.conftest import ROOT

README = ROOT / "README.md"
PAGES = [README, ROOT / "data/README.md", *sorted((ROOT / "docs").glob("*.md"))]
REFERENCE = ROOT / "docs/site/reference.md"
LINKING = [*PAGES, REFERENCE, *ROOT.glob("*.md"), ROOT / "examples/tutorial.ipynb"]
METHODS = list(known())
PROGRAMS = {
    "compare.py": Comparison,
    "predict.py": Prediction,
    "-m benchmarks.maps": maps.Settings,
    "-m benchmarks.original": original.Settings,
    "-m benchmarks.steps": steps.Settings,
    "-m comparison.studies": Study,
}
CODE = re.compile(r"^ {4,}(\S.*)$", re.MULTILINE)


def each(pages: list[pathlib.Path]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("page", pages, ids=lambda page: str(page.relative_to(ROOT)))


def code_of(page: pathlib.Path) -> list[str]:
    """Returns a page's lines of code, comments left out, and what stands between backticks.

    Lines that a backslash continues are joined, as a shell does.
    """
    text = page.read_text().replace("\\\n    ", "")
    lines = [re.sub(r"(^|\s)# .*", "", line) for line in CODE.findall(text)]
    spans = re.findall(r"`([^`]+)`", CODE.sub("", text))
    return [*lines, *(" ".join(span.split()) for span in spans)]


def commands(start: str) -> list[tuple[str, list[str]]]:
    """Returns what stands before ``start`` and the words after it, of each such command."""
    command = re.compile(rf"(.*&& )?{re.escape(start)}( .*)?")
    lines = dict.fromkeys(line for page in PAGES for line in code_of(page))
    found = [match for line in lines if (match := command.fullmatch(line.strip()))]
    return [(match[1] or "", shlex.split(match[2] or "")) for match in found]


def anchors(page: pathlib.Path) -> set[str]:
    """Returns the names that GitHub gives to a page's headings."""
    titles = re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles}


def test_the_readme_is_short_and_leads_to_every_page_and_method():
    text = README.read_text()
    assert len(text.splitlines()) <= 150
    for page in (ROOT / "docs").glob("*.md"):
        assert f"](docs/{page.name}" in text
    for method in METHODS:
        assert f"| `{method}/` |" in text
        assert f"`cd {method} && python train.py`" in text


def test_the_readmes_code_can_be_pasted(tmp_path, monkeypatch, opt_keras):
    section = README.read_text().split("\n## In your own model\n")[1].split("\n## ")[0]
    blocks = re.findall(r"(?:^(?:    .*)?\n)+", section, re.MULTILINE)
    code = "".join(block for block in blocks if re.match(r"\s*(import|from) ", block))
    assert "orthogonalize_model" in code
    pytest.importorskip("keras_hub")
    monkeypatch.chdir(tmp_path)
    exec(textwrap.dedent(code), {})  # noqa: S102 (the README is ours)
    assert (tmp_path / "plain.keras").is_file()


@pytest.mark.slow
def test_the_programs_of_own_model_run(tmp_path, monkeypatch, capsys, opt_keras):
    page = (ROOT / "docs/own_model.md").read_text()
    _, *programs = re.findall(r"(?:^ {4}.*\n|\n(?= {4}))+", page, re.MULTILINE)  # after pip's line
    assert len(programs) == 3
    monkeypatch.chdir(tmp_path)
    names = vars(opt_keras) | {"keras": keras, "images": np.ones((8, 64)), "labels": np.zeros(8)}
    names["backbone"] = keras.Sequential([keras.Input((64,)), keras.layers.Dense(32)])
    for program in programs:
        exec(textwrap.dedent(program), names)  # noqa: S102 (ours, too)
    printed = re.search(r"prints two reports and `(.+)`", page)[1]
    assert capsys.readouterr().out.endswith(f"{printed}\n")


@pytest.mark.slow
def test_fine_tuning_learns_in_each_way():
    accuracies = finetune.main()
    keras.config.enable_interactive_logging()
    assert accuracies.keys() == finetune.WAYS.keys()
    # of five classes, 250 images and more: ten deviations of a guesser's accuracy
    assert min(accuracies.values()) > 1 / 5 + 10 * np.sqrt(1 / 5 * 4 / 5 / 250)


@each(list(dict.fromkeys(LINKING)))
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)]+)\)", page.read_text()):
        path, _, anchor = target.partition("#")
        if not target.startswith("https://"):
            there = page.parent / path if path else page
            assert there.exists(), target
            assert not anchor or anchor in anchors(there), target


def test_every_method_has_its_section_with_its_flags():
    sections = (ROOT / "docs/methods.md").read_text().split("\n## ")
    for method in METHODS:
        section = next(s for s in sections if s.splitlines()[0].endswith(f": `{method}/`"))
        for flag in fields(known()[method]) - fields(Settings):
            assert f"`--{flag}`" in section, f"{method} --{flag}"


def test_train_commands_are_accepted():
    """Each command of a train.py, with its flags' values, up to where training would begin."""
    found = commands("python train.py")
    assert len(found) > 20
    for before, words in found:
        folder = re.fullmatch(r"cd (\w+) && ", before or "cd opt_gs && ")
        assert folder, before
        if words != ["--help"]:
            parse(known()[folder[1]], words)


def fields(kind: type) -> set[str]:
    return {field.name for field in dataclasses.fields(kind)}


@pytest.mark.parametrize("start", PROGRAMS)
def test_commands_of_other_programs_have_its_flags(start):
    found = commands(f"python {start}")
    assert found
    for _, words in found:
        flags = {word[2:].partition("=")[0] for word in words if word.startswith("--")}
        assert flags <= fields(PROGRAMS[start]), words
        if start == "compare.py":
            parse(Comparison, words)


def test_every_command_is_there():
    targets = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    asked = {words[0] for _, words in commands("make")}
    assert "quickstart" in asked
    assert asked <= set(targets)
    modules = {f"-m {words[0]}" for _, words in commands("python -m")}
    assert modules <= {*PROGRAMS, "-m examples.finetune"}


def test_flags_in_the_text_are_flags():
    """Of some program: the train.py files, compare.py, the benchmarks."""
    flags = {name for kind in (*known().values(), *PROGRAMS.values()) for name in fields(kind)}
    mentioned = {name for page in PAGES for name in re.findall(r"--(\w+)", page.read_text())}
    assert len(mentioned) > 30
    assert mentioned <= flags | {"help"}


def test_public_names_are_described(opt_keras):
    public = {name for name, value in vars(opt_keras).items() if callable(value)}
    table = (ROOT / "docs/own_model.md").read_text().split("| name | what |")[1].split("\n\n")[0]
    cells = [line.split("|")[1] for line in table.splitlines() if line.startswith("| `")]
    assert {name for cell in cells for name in re.findall(r"`(\w+)`", cell)} == public
    text = REFERENCE.read_text()
    described = {name.rpartition(".")[2] for name in re.findall(r"^::: (\S+)$", text, re.MULTILINE)}
    layers = re.findall(r"`(\w*Orthogonal\w+)`", text)  # described together
    assert described | set(layers) == public | {"OrthogonalLayer", "StochasticLayer"}
