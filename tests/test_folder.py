"""--dataset=folder: a user's own images, sound and hostile ones, and the scripts on them."""

import csv
import dataclasses
import hashlib
import json
import os
import pathlib
import resource
import shutil
import struct
import subprocess
import sys
import zlib

import numpy as np
import pytest
import tensorflow as tf

from common import datasets
from common.datasets import folder, images
from common.errors import UserError
from common.training import loop
from comparison.rows import parse
from comparison.runs import Run
from tests.made_up_runs import make_up
from tests.test_run import settings
from tests.test_scripts import ROOT, assert_one_line_error, method_of, start

COLOURS = {"blue": 2, "green": 1, "red": 0}


def picture(colour: str, number: int, size: tuple[int, int] = (32, 32)) -> np.ndarray:
    """Returns noise in which one colour is strongest."""
    random = np.random.default_rng([number, *colour.encode()])
    pixels = random.integers(0, 100, (*size, 3)).astype(np.uint8)
    pixels[..., COLOURS[colour]] += 120
    return pixels


def write(path: pathlib.Path, pixels: np.ndarray) -> pathlib.Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    encode = {".png": tf.io.encode_png}.get(path.suffix.lower(), tf.io.encode_jpeg)
    path.write_bytes(encode(pixels).numpy())
    return path


def make(root: pathlib.Path, count: int, *halves: str) -> pathlib.Path:
    """Writes ``count`` images of each colour, into train/ and test/ if these are given."""
    for half in halves or ("",):
        for colour in COLOURS:
            for i in range(count):
                write(root / half / colour / f"{i}.png", picture(colour, i + 1000 * (half > "")))
    return root


def read(root: pathlib.Path, size: int = 32) -> datasets.Dataset:
    return datasets.load("folder", root, size)


def test_train_and_test_folders(tmp_path, capsys):
    """Images of the size asked for stay as they are; classes and images are in order of name."""
    make(tmp_path, 3, "train", "test")
    deep = write(tmp_path / "train/red/more/b.PNG", picture("red", 7))
    os.link(tmp_path / "test/red/0.png", tmp_path / "test/red/9.png")
    for name in ("classes_00.txt", "train/red/notes.TXT", "train/red/README", "train/.DS_Store"):
        (tmp_path / name).write_text("no image")
    data = read(tmp_path)
    assert str(data) == f"folder from {tmp_path}: 10 training and 10 test images of 3 classes"
    assert data.class_names == ("blue", "green", "red")
    assert data.train_labels.tolist() == [0] * 3 + [1] * 3 + [2] * 4
    assert sorted(data.test_labels.tolist()) == [0] * 3 + [1] * 3 + [2] * 4
    assert data.train_images.dtype == np.uint8
    np.testing.assert_array_equal(data.train_images[0], picture("blue", 1000))
    np.testing.assert_array_equal(data.train_images[-1], tf.io.decode_png(deep.read_bytes()))
    note = "note: 3 files that are no images are left out: "
    kinds = "1 .txt, 1 beside train/ and test/, 1 without a suffix"
    printed = capsys.readouterr().out.strip()
    assert printed.startswith(note)
    assert sorted(printed.removeprefix(note).split(", ")) == kinds.split(", ")
    assert data.identity == read(tmp_path).identity


SPLITS = {
    ("Train", "Test"): "",
    ("TRAINING", "val"): "",
    ("seg_train", "seg_test", "seg_pred"): "seg_pred/",
}
SPLITS |= {("train", "test", "validation"): "validation/", ("train2017", "val2017"): ""}


@pytest.mark.parametrize(("names", "left_out"), SPLITS.items(), ids="-".join)
def test_splits_by_other_names(tmp_path, capsys, names, left_out):
    data = read(make(tmp_path, 1, *names))
    assert data.class_names == ("blue", "green", "red")
    assert len(data.train_labels) == len(data.test_labels) == 3
    note = f"note: {names[0]}/ is for training, {names[1]}/ for tests"
    assert capsys.readouterr().out.strip() == note + f"; left out: {left_out}" * bool(left_out)


def test_classes_that_look_like_splits(tmp_path):
    """One is called "train" and has images of its own; two have folders of years in them."""
    for kind in ("bus", "train"):
        for i in range(20):
            write(tmp_path / "vehicles" / kind / f"{i}.png", picture("red", i + 50 * len(kind)))
            year = "2019" if kind == "bus" and i % 2 else "2020"
            write(
                tmp_path / "nested" / kind / year / f"{i}.png", picture("red", i + 50 * len(kind))
            )
    assert read(tmp_path / "vehicles").class_names == ("bus", "train")
    (tmp_path / "nested/train").rename(tmp_path / "nested/car")
    assert read(tmp_path / "nested").class_names == ("bus", "car")


def test_the_split_is_by_content(tmp_path):
    """A fifth by SHA-256, whatever the names; images that are added move no other one."""
    root = make(tmp_path / "a", 60)
    data = read(root)
    paths = sorted(root.rglob("*.png"), key=str)
    tests = [int(hashlib.sha256(p.read_bytes()).hexdigest(), 16) % 5 == 0 for p in paths]
    expected = [tf.io.decode_png(p.read_bytes()).numpy() for p in paths]
    train = [image for image, test in zip(expected, tests, strict=True) if not test]
    test = [image for image, test in zip(expected, tests, strict=True) if test]
    np.testing.assert_array_equal(data.train_images, train)
    np.testing.assert_array_equal(data.test_images[::-1], test)
    # binomial: 180 images with 1/5 each, five standard deviations
    assert abs(len(test) - 36) < 5 * np.sqrt(180 * 0.2 * 0.8)
    other = tmp_path / "b"
    for i, path in enumerate(paths):
        (other / path.parent.name).mkdir(parents=True, exist_ok=True)
        shutil.copy(path, other / path.parent.name / f"{997 * i % 180}.png")
    write(other / "red/new.png", picture("red", 500))
    before, after = ({image.tobytes() for image in d.test_images} for d in (data, read(other)))
    assert before <= after


def test_images_are_resized_and_formats_agree(tmp_path):
    """Against the mean colour, which resizing keeps up to rounding."""
    pixels = picture("green", 1, (90, 41))
    for name in ("train/a/1.png", "train/b/2.jpg", "train/b/3.JPEG", "test/a/4.png"):
        write(tmp_path / name, pixels)
    data = read(tmp_path, 48)
    assert data.train_images.shape == (3, 48, 48, 3)
    means = data.train_images.mean((1, 2))
    # a resized mean differs by the rounding, and JPEG's colours by some levels more
    np.testing.assert_allclose(means[0], pixels.mean((0, 1)), atol=1)
    np.testing.assert_allclose(means[1:], means[[0, 0]], atol=6)


def test_what_changes_the_identity(tmp_path):
    root = make(tmp_path / "a", 3, "train", "test")
    found = {read(root).identity}
    (root / "train/blue/2.png").rename(root / "train/green/-.png")  # the order stays, a label moves
    found.add(read(root).identity)
    write(root / "test/red/0.png", picture("red", 5))
    found.add(read(root).identity)
    for half in ("train", "test"):
        (root / half / "red").rename(root / half / "rot")
    found.add(read(root).identity)
    assert len(found) == 4
    (root / "test/rot/1.png").rename(root / "test/rot/1b.png")
    assert read(root).identity in found  # the name of a file is nothing


def chunk(kind: bytes, content: bytes) -> bytes:
    sum_of = zlib.crc32(kind + content)
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", sum_of)


def png_bomb(width: int = 60_000, height: int = 60_000) -> bytes:
    """Returns a sound start of an image that unpacks to 10 GiB."""
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    data = chunk(b"IDAT", zlib.compress(bytes(10**7)))
    return b"\x89PNG\r\n\x1a\n" + header + data + chunk(b"IEND", b"")


def gif(frames: int, width: int, height: int) -> bytes:
    """Returns a GIF of one pixel whose frames claim to be larger."""
    frame = b"\x2c" + struct.pack("<HHHHB", 0, 0, width, height, 0) + b"\x02\x02\x44\x01\x00"
    start = b"GIF89a" + struct.pack("<HHBBB", 1, 1, 0x80, 0, 0) + bytes(3) + b"\xff" * 3
    return start + frames * frame + b"\x3b"


PNG = tf.io.encode_png(picture("red", 0)).numpy()
JPEG = tf.io.encode_jpeg(picture("red", 0, (400, 400))).numpy()
BMP = b"BM" + struct.pack("<IHHIIiiHHIIiiII", 54 + 12, 0, 0, 54, 40, 2, 2, 1, 24, 0, 12, 0, 0, 0, 0)
LARGE = {
    "a PNG bomb": png_bomb(),
    "a JPEG of another size": JPEG.replace(
        struct.pack(">HH", 400, 400), struct.pack(">HH", 65_000, 65_000), 1
    ),
    "a GIF of large frames": gif(2, 65_000, 65_000),
    "a GIF of many frames": gif(20_000, 100, 100),
    "a BMP": BMP[:18] + struct.pack("<ii", 50_000, -50_000) + BMP[26:],
}
DAMAGED = {
    "empty": b"",
    "text": b"no image",
    "half a PNG": PNG[: len(PNG) // 2],
    "half a JPEG": JPEG[: len(JPEG) // 2],
    "a PNG with a wrong byte": PNG[:100] + bytes([PNG[100] ^ 1]) + PNG[101:],
    "the start of a GIF": gif(1, 1, 1)[:20],
    "a GIF without a frame": gif(0, 1, 1),
    "a PNG without pixels": png_bomb(0, 0),
    "a BMP of 8 bits": BMP[:28] + b"\x08" + BMP[29:] + bytes(12),
    "WebP": b"RIFF\x00\x00\x00\x00WEBPVP8 ",
}


@pytest.mark.parametrize("content", [*LARGE.values(), *DAMAGED.values()], ids=[*LARGE, *DAMAGED])
def test_a_file_that_is_no_sound_image_is_named(tmp_path, content):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    root = make(tmp_path, 1, "train", "test")
    (root / "test/red/bad.png").write_bytes(content)
    with pytest.raises(UserError, match=r"not to be read as images: \S+test/red/bad.png \(.+\)$"):
        read(root)
    if content in LARGE.values():
        with pytest.raises(ValueError, match=r"pixels.* are too many"):
            images.decode(content, 32)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 512 * 2**10  # KiB


def test_a_bmp_and_a_gif_are_read():
    colours = bytes(
        [0, 0, 255] * 2 + [0, 0] + [0, 0, 255] * 2 + [0, 0]
    )  # blue, green, red; rows of 8
    assert images.decode(BMP + colours, 32)[5, 5].tolist() == [255, 0, 0]
    assert images.decode(gif(1, 1, 1), 32).shape == (32, 32, 3)


def test_all_bad_files_are_counted_and_an_odd_name_stays_in_its_line(tmp_path):
    root = make(tmp_path, 2, "train", "test")
    for i in range(5):
        (root / f"train/red/a{i}\nline\x1b[31m.png").write_bytes(b"")
    with pytest.raises(UserError) as caught:
        read(root)
    assert str(caught.value).endswith(" and 2 more")
    assert str(caught.value).isprintable()


def linked(root: pathlib.Path) -> None:
    (root / "train/red/7.png").symlink_to("/etc/hostname")


def linked_folder(root: pathlib.Path) -> None:
    (root / "train/etc").symlink_to("/etc", target_is_directory=True)


def linked_train(root: pathlib.Path) -> None:
    (root / "train").rename(root.parent / "elsewhere")
    (root / "train").symlink_to(root.parent / "elsewhere", target_is_directory=True)


def pipe(root: pathlib.Path) -> None:
    os.mkfifo(root / "train/red/7.png")


def flat(root: pathlib.Path) -> None:
    shutil.rmtree(root / "test")
    write(root / "test/0.png", PIXELS)


def renamed(root: pathlib.Path) -> None:
    (root / "train").rename(root / "a")
    (root / "test").rename(root / "b")


REFUSED = {
    "a link to a file": (linked, "train/red/7.png is a link"),
    "a link to a folder": (linked_folder, "train/etc is a link"),
    "a link in train's place": (linked_train, "train is a link"),
    "a pipe": (pipe, r"train/red/7.png \(it is no file\)"),
    "two lines": (lambda r: write(r / "train/a\nb/0.png", PIXELS), "must be printable"),
    "no UTF-8": (
        lambda r: write(r / "train" / os.fsdecode(b"\xff") / "0.png", PIXELS),
        "must be printable",
    ),
    "no image in a class": (lambda r: (r / "train/empty").mkdir(), "train/empty holds no image"),
    "no test folder": (lambda r: shutil.rmtree(r / "test"), r"data has train/: one folder for tr"),
    "two training folders": (
        lambda r: make(r, 1, "Train"),
        r"has Train/, train/, test/: one folder",
    ),
    "tests without classes": (flat, "has train/, test/: one folder for training"),
    "splits of other names": (renamed, r"a/ and b/ hold the same folders, such as blue/\."),
    "another class": (lambda r: write(r / "test/x/0.png", PIXELS), "the tests have a class x, and"),
    "no class": (lambda r: [shutil.rmtree(p) for p in r.iterdir()], "a subfolder with images"),
    "no folder": (shutil.rmtree, "there is no folder"),
}
PIXELS = picture("red", 3)


@pytest.mark.parametrize(("spoil", "message"), REFUSED.values(), ids=REFUSED)
def test_folders_that_are_refused(tmp_path, spoil, message):
    root = make(tmp_path / "data", 1, "train", "test")
    spoil(root)
    with pytest.raises(UserError, match=message) as caught:
        read(root)
    assert str(caught.value).isprintable()


def test_too_few_and_too_many_images(tmp_path, monkeypatch):
    with pytest.raises(UserError, match=r"has no (test|training) image.*make train/ and test/"):
        read(make(tmp_path / "few", 1))
    root = make(tmp_path / "many", 2, "train", "test")
    monkeypatch.setattr(folder, "LARGEST", 12 * 32 * 32 * 3)
    assert len(read(root).train_labels) == 6
    with pytest.raises(UserError, match=r"12 images of 33x33 pixels take 0\.0 GiB"):
        read(root, 33)


def test_a_comparison_does_not_take_another_folder_for_its_own(tmp_path):
    (row,), flags = parse(["baseline"]), {"dataset": "folder", "iterations": 5}
    make_up(Run(row, 1, tmp_path, flags | {"data_dir": "/one"}), [50.0])
    with pytest.raises(UserError, match=r"--data_dir=/one, not /another"):
        Run(row, 1, tmp_path, flags | {"data_dir": "/another"}).is_finished()


def test_a_few_images_make_a_smaller_batch_and_a_run_that_resumes(tmp_path, capsys):
    """Also in run.json; the note on a warm-up is for a start that lacks one."""
    root = make(tmp_path / "mine", 2, "train", "test")
    asked = settings(
        tmp_path, method="baseline", dataset="folder", data_dir=root, batch_size=None, iterations=6
    )
    loop.train(asked, method_of("baseline"))
    assert capsys.readouterr().out.splitlines()[1:3] == [
        "note: --batch_size=6, not 128: there are 6 training images",
        "note: a run of 6 iterations, not the method's 75,000, needs a warm-up: "
        "--warmup_iterations=1",
    ]
    assert json.loads((tmp_path / "log/run.json").read_text())["settings"]["batch_size"] == 6
    loop.train(dataclasses.replace(asked, resume=True), method_of("baseline"))
    printed = capsys.readouterr().out
    assert "going on after 6 iterations" in printed
    assert "warm-up" not in printed


@pytest.mark.slow
def test_the_scripts_on_a_folder(tmp_path):
    """Train, resume, predict; then a changed folder and a bad file."""
    root, log = make(tmp_path / "mine", 30), tmp_path / "log"
    words = ["--dataset=folder", f"--data_dir={root}", "--image_size=40", "--widths=8,8,8,8"]
    words += ["--batch_size=16", "--iterations=40", "--checkpoint_every=20", "--base_lr=0.02"]
    words += [f"--log_dir={log}"]
    result = start("opt_gs", *words)
    assert result.returncode == 0, result.stderr
    assert result.stdout.startswith(f"folder from {root}: ")
    facts = json.loads((log / "run.json").read_text())
    assert facts["settings"]["image_size"] == 40
    assert facts["test_accuracy"] > 0.9  # the colours are plain to see
    assert (log / "classes.txt").read_text().split() == list(COLOURS)
    image = write(tmp_path / "new.png", picture("green", 999, (70, 50)))
    command = [sys.executable, "predict.py", f"--model={log / 'folded.keras'}", str(image)]
    answer = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert answer.returncode == 0, answer.stderr
    lines = answer.stdout.splitlines()
    assert lines[0].endswith(f"opt_gs, cnn6, trained on {facts['data']}")
    assert lines[2].endswith("green")
    image.write_bytes(png_bomb())
    answer = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert_one_line_error(answer, "new.png", "60,000 x 60,000 pixels")

    assert start("opt_gs", *words, "--resume").returncode == 0
    others = [word.replace("40", "48") if "image_size" in word else word for word in words]
    assert_one_line_error(start("opt_gs", *others, "--resume"), "image_size 40", "48")
    write(root / "red/new.png", picture("red", 998))
    result = start("opt_gs", *words, "--resume")
    assert_one_line_error(result, "--resume", "folder with the sum")
    (root / "red/bad.jpg").write_bytes(JPEG[:3000])
    result = start("opt_gs", *words)
    # libjpeg says so on its own
    result.stderr = result.stderr.replace("Corrupt JPEG data: premature end of data segment\n", "")
    assert_one_line_error(result, "red/bad.jpg")


@pytest.mark.slow
def test_compare_on_a_folder(tmp_path):
    root, out = make(tmp_path / "mine", 20), tmp_path / "out"
    words = ["--dataset=folder", f"--data_dir={root}", "--image_size=36", "--widths=4,4,4,4"]
    words += ["--iterations=5", "--batch_size=8", "--methods=baseline,opt_gs", f"--out={out}"]
    command = [sys.executable, "compare.py", *words]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    with (out / "results.csv").open() as file:
        assert [row["status"] for row in csv.DictReader(file)] == ["finished"] * 2
    assert "folder: " in (out / "table.md").read_text()
