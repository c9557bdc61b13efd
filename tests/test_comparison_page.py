"""What a comparison shows: the page, the images and how rows are told apart in them."""

import itertools
import re
import urllib.parse

import numpy as np
import pytest
from matplotlib.figure import Figure

from comparison import captions, images, output, styles, table
from comparison.rows import parse
from tests.made_up_runs import comparison, make_up

# Page


def test_the_page_fits_a_phone_and_its_links_lead_somewhere(tmp_path):
    words = ["--methods=baseline,opt_gs:rotation_stddev=0.2", "--iterations=60"]
    settings = comparison(tmp_path, *words, "--data_note=<i>half & half")
    for run in settings.runs:
        make_up(run, [60.0, 50.0])
    output.write(settings.runs, settings)
    page = (tmp_path / "report.html").read_text()
    assert '<meta name="viewport" content="width=device-width, initial-scale=1">' in page
    regions = page.count('<div class="scroll" tabindex="0" role="region"')
    assert regions == page.count("<table") + page.count("<img") == 4
    assert "<i>" not in page
    assert "CIFAR-100, &lt;i&gt;half &amp; half" in page
    links = re.findall(r'href="([^"]+)"', page)
    assert len(links) == 4
    for link in links:
        assert (tmp_path / urllib.parse.unquote(link)).exists(), link
    alts = re.findall(r'<img alt="([^"]+)"', page)
    assert len(alts) == 2
    assert all(alt.endswith(", a line for each row.") for alt in alts)
    assert page.count("<figcaption>") == 2


# Images

# Machado, Oliveira and Fernandes 2009, on linear sRGB: no fault, deuteranopia, protanopia and so on
SIGHTS = """
1 0 0 0 1 0 0 0 1
0.367322 0.860646 -0.227968 0.280085 0.672501 0.047413 -0.011820 0.042940 0.968881
0.152286 1.052583 -0.204868 0.114503 0.786281 0.099216 -0.003882 -0.048116 1.051998
1.255528 -0.076749 -0.178779 -0.078411 0.930809 0.147602 0.004733 0.691367 0.303900"""
TO_XYZ = "0.4124 0.3576 0.1805 0.2126 0.7152 0.0722 0.0193 0.1192 0.9505"


def test_styles_differ_for_the_colour_blind_and_without_colour():
    looks = [styles.style(i) for i in range(26)]
    assert len({(look["ls"], look["marker"]) for look in looks}) == 26
    assert len({(look["color"], look["ls"]) for look in looks}) == 26
    colors = [look["color"] for look in looks[:12]]
    sights = np.reshape(SIGHTS.split(), (4, 3, 3)).astype(float)
    to_xyz = np.reshape(TO_XYZ.split(), (3, 3)).astype(float)

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
    rows = parse(["baseline", "opt_gs:rotation_stddev=0.2", "opt_gs", "sopt_gs"])
    beside = styles.styles_of(rows)
    assert beside["opt_gs"] == alone["opt_gs"]
    assert len({look["marker"] for look in beside.values()}) == 4


def test_an_outlier_does_not_squeeze_the_loss(tmp_path):
    words = ["--methods=baseline,opt_gs,opt_ls,opt_or", "--iterations=1000"]
    runs = comparison(tmp_path, *words).runs
    fits = {"opt_or": [9.2] * 20}
    for run in runs:
        falling = [6.0, *np.linspace(4.0, 3.0, 19).tolist()]
        make_up(run, [50.0] * 20, fits.get(run.row.method, falling))
    summaries = table.summarize(runs)
    axes = Figure().subplots()
    images.fill(axes, images.CURVES[1], summaries)
    assert 4 < axes.get_ylim()[1] < 5
    assert images.rate_drops(runs[0].results) == [pytest.approx(0.4, abs=0.05)]


def test_runs_of_different_lengths_are_drawn_by_their_share(tmp_path):
    settings = comparison(tmp_path, "--methods=baseline,sopt_gs")
    for run in settings.runs:
        make_up(run, [60.0, 50.0])
    summaries = table.summarize(settings.runs)
    assert "75,000 iterations (S-OPT (GS): 300,000 iterations)" in captions.course(
        summaries, settings
    )
    axes = Figure().subplots()
    images.fill(axes, images.CURVES[0], summaries)
    assert axes.get_xlabel() == "% of the run"
    assert [line.get_xdata().tolist() for line in axes.lines[:2]] == [[50, 100], [50, 100]]
