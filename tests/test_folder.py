"""--dataset=folder: a user's images, valid and hostile ones, and the scripts on them."""

import hashlib
import json
import os
import pathlib
import shutil
import struct
import zlib

import numpy as np
import pytest
import tensorflow as tf

from common import datasets
from common.datasets import folder, images
from common.errors import UserError
from tests.test_hostile import peak
from tests.test_scripts import train

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
    for name in ("train/red/notes.TXT", "test/README", "train/.DS_Store"):
        (tmp_path / name).write_text("no image")
    data = read(tmp_path)
    assert str(data) == f"folder from {tmp_path}: 10 training and 10 test images of 3 classes"
    assert data.class_names == ("blue", "green", "red")
    assert data.train_labels.tolist() == [0] * 3 + [1] * 3 + [2] * 4
    assert sorted(data.test_labels.tolist()) == [0] * 3 + [1] * 3 + [2] * 4
    assert data.train_images.dtype == np.uint8
    np.testing.assert_array_equal(data.train_images[0], picture("blue", 1000))
    np.testing.assert_array_equal(data.train_images[-1], tf.io.decode_png(deep.read_bytes()))
    note = "note: 2 files that are no images, or in no class, are left out, such as notes.TXT"
    assert capsys.readouterr().out.strip() == note
    assert data.identity == read(tmp_path).identity


@pytest.mark.parametrize(
    ("names", "left_out"),
    [(("Train", "Test"), ""), (("TRAINING", "val"), ""), (("train", "test", "dev"), "dev/")],
)
def test_splits_by_other_names(tmp_path, capsys, names, left_out):
    data = read(make(tmp_path, 1, *names))
    assert data.class_names == ("blue", "green", "red")
    assert len(data.train_labels) == len(data.test_labels) == 3
    note = f"note: {names[0]}/ is for training, {names[1]}/ for tests"
    assert capsys.readouterr().out.strip() == note + f"; left out: {left_out}" * bool(left_out)


def test_a_class_may_be_called_train(tmp_path):
    for kind in ("bus", "train"):
        for i in range(20):
            write(tmp_path / kind / f"{i}.png", picture("red", i + 50 * len(kind)))
    assert read(tmp_path).class_names == ("bus", "train")


def test_the_split_is_by_content(tmp_path):
    """A fifth by SHA-256, whatever the names; images that are added move no other one."""
    root = make(tmp_path / "a", 60)
    data = read(root)
    paths = sorted(root.rglob("*.png"), key=str)
    tests = [int(hashlib.sha256(p.read_bytes()).hexdigest(), 16) % 5 == 0 for p in paths]
    expected = np.stack([tf.io.decode_png(p.read_bytes()) for p in paths])
    np.testing.assert_array_equal(data.train_images, expected[np.invert(tests)])
    np.testing.assert_array_equal(data.test_images, expected[tests])
    # binomial: 180 images with 1/5 each, five standard deviations
    assert abs(sum(tests) - 36) < 5 * np.sqrt(180 * 0.2 * 0.8)
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
    assert read(root).identity in found  # the name of a file does not count


def chunk(kind: bytes, content: bytes) -> bytes:
    sum_of = zlib.crc32(kind + content)
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", sum_of)


def png_bomb(width: int = 60_000, height: int = 60_000) -> bytes:
    """Returns the valid start of an image that unpacks to 10 GiB."""
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    data = chunk(b"IDAT", zlib.compress(bytes(10**7)))
    return b"\x89PNG\r\n\x1a\n" + header + data + chunk(b"IEND", b"")


PNG = tf.io.encode_png(picture("red", 0)).numpy()
JPEG = tf.io.encode_jpeg(picture("red", 0, (400, 400))).numpy()
BMP = b"BM" + struct.pack("<IHHIIiiHHIIiiII", 54 + 12, 0, 0, 54, 40, 2, 2, 1, 24, 0, 12, 0, 0, 0, 0)
SIZES = (struct.pack(">HH", size, size) for size in (400, 65_000))
LARGE = {"a PNG bomb": png_bomb(), "a JPEG of another size": JPEG.replace(*SIZES, 1)}
DAMAGED = {
    "empty": b"",
    "a GIF": b"GIF89a\1\0\1\0\x80\0\0\0\0\0\xff\xff\xff,\0\0\0\0\1\0\1\0\0\2\2D\1\0;",
    "half a JPEG": JPEG[: len(JPEG) // 2],
    "a PNG with a wrong byte": PNG[:100] + bytes([PNG[100] ^ 1]) + PNG[101:],
    "a PNG without pixels": png_bomb(0, 0),
}


@pytest.mark.parametrize("content", [*LARGE.values(), *DAMAGED.values()], ids=[*LARGE, *DAMAGED])
def test_a_file_that_is_no_valid_image_is_named(tmp_path, content):
    before = peak(anew=True)
    root = make(tmp_path, 1, "train", "test")
    (root / "test/red/bad.png").write_bytes(content)
    with pytest.raises(UserError, match=r"cannot be read as images: \S+test/red/bad.png \(.+\)$"):
        read(root)
    if content in LARGE.values():
        with pytest.raises(ValueError, match=r"pixels\) exceeds limit of 67108864 pixels"):
            images.decode(content, 32)
    assert peak() - before < 512 * 2**20


def test_kinds_of_images():
    """Each is one colour: a BMP; PNGs with transparency, in grey, in grey of 16 bits."""
    blue_green_red = bytes([0, 0, 255] * 2 + [0, 0]) * 2  # rows of 8
    assert images.decode(BMP + blue_green_red, 32)[5, 5].tolist() == [255, 0, 0]
    for pixels, expected in (
        (np.array([[[10, 20, 30, 40]]], "uint8"), [10, 20, 30]),
        (np.array([[[200]]], "uint8"), [200] * 3),
        (np.array([[[200 * 256 + 7]]], "uint16"), [200] * 3),
        (np.array([[[1, 2, 3]]], "uint16") * 256, [1, 2, 3]),
    ):
        image = images.decode(tf.io.encode_png(pixels).numpy(), 32)
        np.testing.assert_array_equal(image, np.full((32, 32, 3), expected))


def test_all_bad_files_are_counted_and_an_odd_name_stays_in_its_line(tmp_path):
    root = make(tmp_path, 2, "train", "test")
    for i in range(5):
        (root / f"train/red/a{i}\nline\x1b[31m.png").write_bytes(b"")
    with pytest.raises(UserError) as caught:
        read(root)
    assert str(caught.value).endswith(" and 2 more")
    assert str(caught.value).isprintable()


def linked_train(root: pathlib.Path) -> None:
    (root / "train").rename(root.parent / "elsewhere")
    (root / "train").symlink_to(root.parent / "elsewhere", target_is_directory=True)


REFUSED = {
    "a link": (linked_train, "train is a link"),
    "a pipe": (lambda r: os.mkfifo(r / "train/red/7.png"), r"red/7.png \(it is no file\)"),
    "two lines": (lambda r: write(r / "train/a\nb/0.png", PIXELS), "must be printable"),
    "no image in a class": (lambda r: (r / "train/empty").mkdir(), "train/empty holds no image"),
    "no test folder": (lambda r: shutil.rmtree(r / "test"), r"data has train/: one folder for tr"),
    "two for training": (lambda r: make(r, 1, "Train"), r"has Train/, train/, test/: one folder"),
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


def test_a_few_images_make_a_smaller_batch_and_a_run_that_resumes(tmp_path, capsys):
    """A changed folder is refused. The note on a warm-up is for a start that lacks one."""
    root, log = make(tmp_path / "mine", 2, "train", "test"), tmp_path / "log"
    words = ["--dataset=folder", f"--data_dir={root}", f"--log_dir={log}", "--image_size=40"]
    words += ["--widths=4,4,4,4", "--iterations=6"]
    train("baseline", *words)
    assert capsys.readouterr().out.splitlines()[1:3] == [
        "note: --batch_size=6, not 128: there are 6 training images",
        "note: a run of 6 iterations, not the method's 75,000, needs a warm-up: "
        "--warmup_iterations=1",
    ]
    settings = json.loads((log / "run.json").read_text())["settings"]
    assert (settings["batch_size"], settings["image_size"]) == (6, 40)
    assert (log / "classes.txt").read_text().split() == list(COLOURS)
    train("baseline", *words, "--resume")
    printed = capsys.readouterr().out
    assert "going on after 6 iterations" in printed
    assert "warm-up" not in printed
    write(root / "train/red/0.png", picture("red", 998))
    with pytest.raises(UserError, match=r"--resume.*folder with the sum"):
        train("baseline", *words, "--resume")
