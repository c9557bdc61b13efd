"""The styles of rows, the lines of images, and the pictures of a study."""

import math

import numpy as np
import pytest

from common.errors import UserError
from comparison import images, studies, styles, table
from comparison.rows import parse
from tests.made_up_runs import comparison, make_up


def test_styles_differ_without_colour_and_are_a_methods_own():
    looks = [styles.style(i) for i in range(26)]
    assert len({(look["ls"], look["marker"]) for look in looks}) == 26
    assert len({(look["color"], look["ls"]) for look in looks}) == 26
    rows = parse(["baseline", "opt_gs:rotation_stddev=0.2", "opt_gs", "sopt_gs"])
    together = styles.styles_of(rows)
    assert together["opt_gs"] == styles.styles_of(parse(["opt_gs"]))["opt_gs"]
    assert len({look["marker"] for look in together.values()}) == 4


def test_lines_are_means_over_seeds(tmp_path):
    """Of runs of different lengths, and without a collapsed run."""
    runs = comparison(tmp_path, "--methods=baseline,sopt_gs", "--seeds=1,2,3").runs
    for run in runs:
        collapsed = run.name == "baseline_seed3"
        fits = [math.log(100)] * 2 if collapsed else None
        make_up(run, [60.0, 99.0 if collapsed else 50.0 + 2 * run.seed], fits)
    lines = [images.line_of(row, images.CURVES[0]) for row in table.summarize(runs)]
    deviation = math.sqrt(2)
    np.testing.assert_allclose(lines[0], [[37_499, 74_999], [60, 53], [0, deviation]], atol=1e-9)
    changes = [images.line_of(table.summarize(runs)[0], panel)[1] for panel in images.ENERGIES]
    expected = [1, 1.00125, 1.0025], [0, 0.125, 0.25], [1e-7, 1e-6, 1e-6]
    np.testing.assert_allclose(changes, expected, rtol=1e-9)
    np.testing.assert_allclose(lines[1], [[149_999, 299_999], [60, 54], [0, 2]], atol=1e-9)


def test_pictures_of_a_study(tmp_path, capsys):
    """Runs of two comparisons, one of them collapsed and one not finished."""
    for count, error in ((2500, 70.0), (5000, 60.0)):
        words = ["--methods=baseline,opt_gs:rotation_stddev=0.2,opt_ls", "--seeds=1,2"]
        words += [f"--train_images={count}", "--iterations=1000"]
        data = f"A: {count:,} training and 10 test images of 100 classes"
        for run in comparison(tmp_path / str(count), *words).runs[:-1]:
            lost = (run.row.name, count) == ("opt_ls", 5000)
            errors, fits = [90.0, error + run.seed], [4.0, math.log(100) if lost else count / 1000]
            make_up(run, errors, fits, data=data)
    path = tmp_path / "5000/runs/baseline_seed1/run.json"  # of a run that is older than the flag
    path.write_text(path.read_text().replace('"precision": "float32", ', ""))
    folders = (str(tmp_path / "2500"), str(tmp_path / "5000"))
    found = studies.points((*folders, folders[0]))  # each run counts once
    assert [(point.row.name, point.images, len(point.values)) for point in found] == [
        *(("baseline", 2500, 2), ("baseline", 5000, 2)),
        *(("opt_gs:rotation_stddev=0.2", 2500, 2), ("opt_gs:rotation_stddev=0.2", 5000, 2)),
        ("opt_ls", 2500, 1),
    ]
    np.testing.assert_allclose(found[1].values, [[5, 61], [5, 62]])
    assert studies.selected(found, ("opt_ls",)) == found[4:]
    many = [*found, *(found[0]._replace(row=row) for row in parse(["upt", "mhe", "opt_or"]))]
    chosen = {point.row.name for point in studies.selected(many, ())}
    assert chosen == {"baseline", "opt_gs:rotation_stddev=0.2", "opt_ls", "upt", "mhe"}
    with pytest.raises(UserError, match="at most 5 rows, each with a valid run"):
        studies.selected(found, ("opt_hr",))
    studies.main(studies.Study(folders, out=tmp_path / "pictures"))
    said = capsys.readouterr().out
    assert "opt_ls_seed1: collapsed" in said
    for name in ("images.png", "fit.png"):
        assert (tmp_path / "pictures" / name).read_bytes().startswith(b"\x89PNG")
    (other,) = comparison(tmp_path / "other", "--methods=upt", "--batch_size=64").runs
    make_up(other, [50.0])
    with pytest.raises(UserError, match="differ in dataset, image_size, backbone, batch_size: "):
        studies.points((*folders, str(tmp_path / "other")))
    path.write_text(path.read_text().replace('"identity": "', '"identity": "another split, '))
    with pytest.raises(UserError, match="with 5,000 training images have different ones"):
        studies.points(folders)
    path.write_text("[]")
    with pytest.raises(UserError, match=r"run\.json is cut off or not a JSON object"):
        studies.points(folders)
    with pytest.raises(UserError, match="no valid run"):
        studies.points((str(tmp_path / "pictures"),))
