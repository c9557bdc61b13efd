"""examples/tutorial.ipynb runs from its first cell to its last, and its claims hold.

`python -m tests.test_tutorial` runs it and writes its outputs again.
"""

import re
import tempfile
from pathlib import Path

import nbclient
import nbformat
import numpy as np
import pytest

from tests.conftest import ROOT

NOTEBOOK = ROOT / "examples/tutorial.ipynb"
SKIPPED = "skip-execution"  # nbclient leaves out cells with this tag: pip's
# saves the results of the cells before it
FIGURES = """
np.savez(
    "figures.npz",
    labels=test_y,
    logits=logits,
    folded=folded_logits,
    lite=lite_logits,
    modules=[type(layer).__module__ for layer in folded.layers],
    **{f"{name}_energy": energy for name, (energy, _) in runs.items()},
    **{f"{name}_accuracy": accuracy[-1] for name, (_, accuracy) in runs.items()},
)
"""
EPS = np.finfo("float32").eps


def committed() -> nbformat.NotebookNode:
    return nbformat.read(NOTEBOOK, as_version=4)


def run(notebook: nbformat.NotebookNode, folder: Path) -> nbformat.NotebookNode:
    """Runs ``notebook`` in ``folder``, fills in its outputs and returns it; an error is raised."""
    (folder / "opt_keras").symlink_to(ROOT / "common")
    return nbclient.execute(
        notebook,
        cwd=folder,
        timeout=600,
        record_timing=False,
        coalesce_streams=True,
        # what TensorFlow's C++ code writes about the machine stays out of the outputs
        extra_arguments=["--IPKernelApp.capture_fd_output=False"],
    )


def code_cells(notebook: nbformat.NotebookNode) -> list[nbformat.NotebookNode]:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def test_the_committed_outputs_are_in_order_and_without_an_error():
    notebook = committed()
    nbformat.validate(notebook)
    pip, *cells = code_cells(notebook)
    assert pip.metadata.tags == [SKIPPED]
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    outputs = [output for cell in cells for output in cell.outputs]
    assert {output.output_type for output in outputs} == {"stream", "display_data"}
    assert {output.name for output in outputs if output.output_type == "stream"} == {"stdout"}


def test_its_first_cell_installs_what_the_others_import():
    pip, *cells = code_cells(committed())
    assert pip.source.startswith("%pip install --quiet .. ")  # .. is the clone
    code = "\n".join(cell.source for cell in cells)
    imported = set(re.findall(r"^(?:import|from) (\w+)", code, re.MULTILINE))
    extra = {word.replace("scikit-learn", "sklearn") for word in pip.source.split()[4:]}
    with_opt_keras = {"opt_keras", "keras", "numpy", "tensorflow"}
    assert imported - {"warnings"} == with_opt_keras | extra


@pytest.fixture(scope="module")
def ran(tmp_path_factory):
    """Returns the notebook with new outputs, and its figures."""
    folder = tmp_path_factory.mktemp("tutorial")
    notebook = committed()
    notebook.cells.append(nbformat.v4.new_code_cell(FIGURES))
    run(notebook, folder)
    notebook.cells.pop()
    return notebook, np.load(folder / "figures.npz")


@pytest.mark.slow
def test_the_cells_print_the_committed_outputs(ran):
    """Word for word; the numbers differ a little from machine to machine."""

    def shown(notebook: nbformat.NotebookNode) -> list[tuple[str, int]]:
        texts = []
        for cell in code_cells(notebook):
            text = "".join(output.get("text", "") for output in cell.outputs)
            images = sum("image/png" in output.get("data", {}) for output in cell.outputs)
            texts.append((re.sub(r"\d[\d.,]*(e[+-]\d+)?", "#", text), images))
        return texts

    assert shown(ran[0]) == shown(committed())
    assert sum(images for _, images in shown(ran[0])) == 1


@pytest.mark.slow
def test_both_models_learn_and_opt_alone_keeps_the_energy(ran):
    figures = ran[1]
    chance = 1 / 10
    spread = np.sqrt(chance * (1 - chance) / len(figures["labels"]))  # of a guesser's accuracy
    for name in ("OPT", "plain"):
        assert figures[f"{name}_accuracy"] > chance + 6 * spread
    opt, plain = figures["OPT_energy"], figures["plain_energy"]
    np.testing.assert_array_equal(opt[0], plain[0])  # they begin with the same kernels
    # float32 neurons of up to 9 * 32 entries; an energy's relative change is of the order of theirs
    rounding = 9 * 32 * EPS
    assert np.abs(opt / opt[0] - 1).max() < rounding
    assert np.abs(plain[-1] / plain[0] - 1).min() > 10 * rounding


@pytest.mark.slow
def test_the_folded_model_and_the_tflite_file_have_the_same_outputs(ran):
    figures = ran[1]
    assert all(module.startswith("keras.") for module in figures["modules"])
    logits = figures["logits"]
    # sums over 9 pixels, 9 * 32 and 4 * 4 * 64 numbers, in another order
    rounding = (9 + 9 * 32 + 4 * 4 * 64) * EPS * np.abs(logits).max()
    for other in (figures["folded"], figures["lite"]):
        np.testing.assert_allclose(other, logits, rtol=0, atol=rounding)
    assert figures["OPT_accuracy"] == pytest.approx(np.mean(logits.argmax(-1) == figures["labels"]))


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as name:
        nbformat.write(run(committed(), Path(name)), NOTEBOOK)
