"""Data sets: the official files, TFDS copies, hostile ones; batches and their augmentation."""

import dataclasses
import hashlib
import json
import os
import pathlib
import pickle
import shutil
import socket
import sys
import time
import tracemalloc
import types

import numpy as np
import pytest
import tensorflow as tf

from common import datasets
from common.datasets import CIFAR10, CIFAR100
from common.errors import UserError
from tests import archives


def assert_holds(data: datasets.Dataset, records: dict, cifar=CIFAR100) -> None:
    """Asserts that ``data`` has the records' images, labels and names, in their order."""
    pixels = np.concatenate([records[name]["data"] for name in cifar.train_files])
    labels = np.concatenate([records[name][cifar.label_key] for name in cifar.train_files])
    assert data.train_images.dtype == np.uint8
    assert data.train_images.shape[1:] == (32, 32, 3)
    for row, column, colour in [(0, 0, 0), (3, 17, 1), (31, 30, 2)]:
        np.testing.assert_array_equal(
            data.train_images[:, row, column, colour], pixels[:, colour * 1024 + row * 32 + column]
        )
    np.testing.assert_array_equal(data.train_labels, labels)
    np.testing.assert_array_equal(data.test_labels, records[cifar.test_file][cifar.label_key])
    assert data.class_names == tuple(records[cifar.names_file][cifar.names_key])


def assert_refused(data_dir: pathlib.Path, reason: str) -> None:
    with pytest.raises(UserError, match=reason) as caught:
        datasets.load("cifar100", data_dir)
    assert str(caught.value).isprintable()


@pytest.mark.parametrize("cifar", [CIFAR10, CIFAR100], ids=lambda cifar: cifar.title)
def test_reads_the_official_folder(tmp_path, cifar):
    records = archives.files(cifar)
    folder = archives.write_folder(tmp_path, records, cifar)
    data = datasets.load(cifar.tfds_name, tmp_path)
    assert_holds(data, records, cifar)
    count = 20 * len(cifar.train_files)
    assert str(data).startswith(f"{cifar.title} from {folder}: {count} training and 10 test images")


@pytest.mark.parametrize("protocol", [3, 5])  # two ways to store an array
def test_reads_files_that_python_3_has_written(tmp_path, protocol):
    records = archives.files()
    records["train"]["data"] = np.asfortranarray(records["train"]["data"])
    archives.write_folder(tmp_path, records, dumps=lambda record: pickle.dumps(record, protocol))
    assert_holds(datasets.load("cifar100", tmp_path), records)


def test_finds_a_data_set_where_people_have_it(tmp_path, monkeypatch):
    records, name = archives.files(), CIFAR100.folder
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "keras"))
    for given, above in {
        "none": f"keras/datasets/{name}-target",  # nowhere but in Keras's cache
        f"itself/{name}": "itself",
        "twice": f"twice/{name}",
        "named": f"named/{name}_extracted",  # from Keras's named archive
    }.items():
        found = archives.write_folder(tmp_path / above, records)
        assert datasets.load("cifar100", tmp_path / given).source == str(found)


@pytest.fixture
def archive(tmp_path, monkeypatch):
    """Returns an archive that `load` takes for the official one, and its records."""
    records = archives.files(train=30)
    path = archives.write_archive(tmp_path / "data", records)
    md5 = hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest()
    monkeypatch.setattr(datasets, "CIFAR100", dataclasses.replace(CIFAR100, md5=md5))
    return path, records


def test_reads_the_official_archive(archive):
    path, records = archive
    data = datasets.load("cifar100", path.parent)
    assert_holds(data, records)
    assert data.source == str(path)
    assert list(path.parent.iterdir()) == [path]  # nothing was unpacked


def test_an_archive_with_another_sum_is_refused_and_both_sums_are_named(tmp_path):
    path = archives.write_archive(tmp_path, archives.files())
    md5 = hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest()
    assert_refused(tmp_path, f"{path} has the MD5 sum {md5}.* {CIFAR100.md5}")


@pytest.fixture(scope="module")
def written_by_tfds(tmp_path_factory):
    """Returns a folder with a TFDS copy, written by TFDS's CIFAR-100 builder, and its records."""
    import tensorflow_datasets as tfds

    records, folder = archives.files(), tmp_path_factory.mktemp("tfds")
    source = folder / "binary/cifar-100-binary"
    source.mkdir(parents=True)
    for name in ("train", "test"):
        labels = np.array(records[name]["fine_labels"], np.uint8)
        content = np.column_stack([np.zeros_like(labels), labels, records[name]["data"]])
        (source / f"{name}.bin").write_bytes(content.tobytes())
    coarse = [f"coarse {i}" for i in range(20)]
    for name, names in (("fine", records["meta"]["fine_label_names"]), ("coarse", coarse)):
        (source / f"{name}_label_names.txt").write_text("\n".join(names))

    builder = tfds.builder("cifar100", data_dir=folder / "data")
    split_generators = builder._split_generators
    manager = types.SimpleNamespace(download_and_extract=lambda _: str(source.parent))
    builder._split_generators = lambda _: split_generators(manager)
    builder.download_and_prepare()
    return folder / "data", records


@pytest.fixture
def tfds_copy(written_by_tfds, tmp_path):
    """Returns another copy, which a test may change."""
    return shutil.copytree(written_by_tfds[0], tmp_path / "data")


def test_a_tfds_copy_runs_nothing(tfds_copy, monkeypatch):
    """TFDS 4.9 would import the module that features.json names."""
    folder, ran = next((tfds_copy / "cifar100").glob("*")), tfds_copy / "ran"
    module = f"open({str(ran)!r}, 'w').close()\nclass Evil: pass\n"
    (tfds_copy / "hostile_module.py").write_text(module)
    monkeypatch.syspath_prepend(str(tfds_copy))
    monkeypatch.delitem(sys.modules, "hostile_module", raising=False)
    features = json.loads((folder / "features.json").read_text())
    features["pythonClassName"] = "hostile_module.Evil"
    (folder / "features.json").write_text(json.dumps(features))
    assert len(datasets.load("cifar100", tfds_copy).train_labels) == 20
    assert not ran.exists()
    assert "hostile_module" not in sys.modules


def test_reads_a_tfds_copy(written_by_tfds):
    data_dir, records = written_by_tfds
    data = datasets.load("cifar100", data_dir)
    assert str(next(data_dir.glob("cifar100/*"))) in data.source
    pixels = records["train"]["data"].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)

    def pairs(images, labels) -> set[tuple[bytes, int]]:  # TFDS shuffles the images
        return {(x.tobytes(), int(y)) for x, y in zip(images, labels, strict=True)}

    expected = pairs(pixels, records["train"]["fine_labels"])
    assert pairs(data.train_images, data.train_labels) == expected
    assert data.class_names[7] == "class 7"


def test_a_damaged_tfds_copy_is_refused(tfds_copy):
    for file in tfds_copy.glob("cifar100/*/*train*"):
        file.write_bytes(file.read_bytes()[:-100])
    assert_refused(tfds_copy, "cannot be read as TFDS's cifar100")


def test_order_of_the_sources(written_by_tfds, tfds_copy, archive, monkeypatch, tmp_path):
    (cache, _), (path, _) = written_by_tfds, archive
    monkeypatch.setenv("TFDS_DATA_DIR", str(cache))
    assert datasets.load("cifar100", tmp_path / "none").source.startswith(f"{cache}/cifar100/")
    assert datasets.load("cifar100", tfds_copy).source == str(path)
    folder = archives.write_folder(tfds_copy, archives.files(train=40))
    assert datasets.load("cifar100", tfds_copy).source == str(folder)


def test_no_data_and_no_network_stops_soon_and_names_ways_on(tmp_path, monkeypatch):
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")  # nothing listens there
    start = time.monotonic()
    with pytest.raises(UserError) as caught:
        datasets.load("cifar100", tmp_path)
    assert time.monotonic() - start < 10
    for way in (CIFAR100.archive, "--data_dir", "--dataset=digits"):
        assert way in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_a_site_that_never_answers_is_given_up():
    """A server that takes connections and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        start = time.monotonic()
        url = f"http://127.0.0.1:{server.getsockname()[1]}/"
        assert not datasets.tfds.is_reachable(url, seconds=0.5)
        assert time.monotonic() - start < 5


def test_a_site_behind_a_bad_proxy_is_not_reached(monkeypatch):
    monkeypatch.setenv("https_proxy", "http:/proxy:3128")
    assert not datasets.tfds.is_reachable("https://example.org/", seconds=0.5)


def test_a_download_that_fails_is_one_line(tmp_path, monkeypatch):
    import tensorflow_datasets as tfds

    def fail(*_, **__):
        raise OSError("the line went dead\nand more")

    monkeypatch.setattr(datasets.tfds, "is_reachable", lambda *_, **__: True)
    monkeypatch.setattr(tfds.core.DatasetBuilder, "download_and_prepare", fail)
    with pytest.raises(UserError, match=r"failed: the line went dead$"):
        datasets.load("cifar100", tmp_path)


# Bad files


class _Runs:
    """Pickles to a call of ``function(*arguments)``."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


def test_a_malicious_pickle_runs_nothing(tmp_path):
    mark = tmp_path / "it ran"
    folder = archives.write_folder(tmp_path, archives.files())
    for payload in (
        _Runs(os.system, f"touch {mark}"),
        _Runs(eval, f"open({str(mark)!r}, 'w')"),
        _Runs(open, str(mark), "w"),
        _Runs(getattr, "text", "upper"),
        _Runs(np.load, str(mark)),
        np.array([_Runs(os.system, f"touch {mark}")], dtype=object),
    ):
        content = pickle.dumps({"data": payload}, protocol=4)
        with pytest.raises(ValueError, match="which no such file needs"):
            datasets.unpickling.unpickle(content, "data")
        (folder / "train").write_bytes(content)
        assert_refused(tmp_path, "train: not a pickle of a CIFAR file")
        assert not mark.exists()


def test_a_pickle_takes_no_more_memory_than_it_has_objects():
    bytearray_of = b"\x80\x05\x96" + (2**28).to_bytes(8, "little") + b"."
    tracemalloc.start()
    try:
        for content in (b"\x80\x04Nr\xff\xff\xff\x03.", bytearray_of):  # the 67 millionth object
            with pytest.raises(ValueError, match="not a pickle of a CIFAR file"):
                datasets.unpickling.unpickle(content, "data")
        assert tracemalloc.get_traced_memory()[1] < 2**20
    finally:
        tracemalloc.stop()


def change(**values) -> dict:
    """Returns the record of a file of six images with other values."""
    return {"data": PIXELS, "fine_labels": [1, 2, 3, 4, 5, 6]} | values


PIXELS = np.zeros((6, 3072), np.uint8)
WRONG_DATA = [PIXELS.astype(dtype) for dtype in ("i1", "<u2", "f8", "O")]
WRONG_DATA += [PIXELS[:, 1:], PIXELS.ravel(), PIXELS[:5], None, "text", PIXELS.tobytes()]
WRONG_LABELS = [None, "123456", (1, 2, 3, 4, 5, 6), [1, 2, 3, 4, 5]]
WRONG_LABELS += [[x, 2, 3, 4, 5, 6] for x in (-1, 100, 2**70, 1.0, True, None, "1")]
NAMES = ["a"] * 99
WRONG_NAMES = [None, "a" * 100, NAMES, [*NAMES, 7], [*NAMES, ""], [*NAMES, "two\nlines"]]
WRONG = [("train", record) for record in ([1, 2], {}, change(data=PIXELS[:0], fine_labels=[]))]
WRONG += [("test", change(data=data)) for data in WRONG_DATA]
WRONG += [("train", change(fine_labels=labels)) for labels in WRONG_LABELS]
WRONG += [("meta", {"fine_label_names": names}) for names in WRONG_NAMES]


def test_files_with_wrong_content_are_refused(tmp_path):
    folder = archives.write_folder(tmp_path, archives.files())
    for name, record in WRONG:
        original = (folder / name).read_bytes()
        (folder / name).write_bytes(pickle.dumps(record, protocol=4))
        assert_refused(tmp_path, f"cifar-100-python: {name}: .+")
        (folder / name).write_bytes(original)
    datasets.load("cifar100", tmp_path)


def test_files_that_cannot_be_read_are_named(tmp_path):
    folder = archives.write_folder(tmp_path, archives.files())
    content = (folder / "train").read_bytes()
    for length in (0, 100, len(content) - 1):
        (folder / "train").write_bytes(content[:length])
        assert_refused(tmp_path, "train: not a pickle of a CIFAR file")
    os.truncate(folder / "train", datasets.images.LARGEST_FILE + 1)
    assert_refused(tmp_path, f"{folder}: train: it has more than 256 MiB")
    (folder / "train").write_bytes(content)
    for make in (lambda path: None, os.mkfifo, lambda path: path.symlink_to("/dev/zero")):
        (folder / "meta").unlink()
        make(folder / "meta")
        assert_refused(tmp_path, "meta: it is no file")
        (folder / "meta").unlink(missing_ok=True)
        (folder / "meta").touch()
    assert_refused(folder / "meta", "is not a folder")


# Digits and batches


def test_digits():
    data = datasets.load("digits", pathlib.Path("unused"))
    assert data.train_images.shape == (1437, 32, 32, 3)
    assert len(data.test_labels) == 360
    assert data.train_images.max() == 255
    assert np.bincount(data.test_labels).min() >= 25


def drawn(start: int, stop: int, **options) -> np.ndarray:
    source = datasets.draws(iteration=start, batch_size=10, **options)
    return np.stack([next(source) for _ in range(start, stop)])


def test_draws_are_a_function_of_seed_and_iteration():
    run = drawn(0, 35, seed=3, count=103)
    for start in (1, 9, 10, 11, 29, 30):
        np.testing.assert_array_equal(drawn(start, 35, seed=3, count=103), run[start:])
    assert not np.array_equal(run, drawn(0, 35, seed=4, count=103))
    for epoch in (run[:10], run[10:20]):  # no image twice; three are left over
        assert len(np.unique(epoch[:, :, 0])) == 100
    assert not np.array_equal(run[:10], run[10:20])


def test_each_episode_begins_with_a_new_shuffle():
    """As the original's stochastic scheme; another one where an epoch ends inside it."""
    options = {"seed": 0, "count": 40, "episode_length": 6}
    run = drawn(0, 18, **options)
    for start in (0, 6, 12):
        assert len(np.unique(run[start : start + 4, :, 0])) == 40
        assert len(np.unique(run[start + 4 : start + 6, :, 0])) == 20
    for resumed in (5, 6, 7, 10, 11):
        np.testing.assert_array_equal(drawn(resumed, 18, **options), run[resumed:])


def test_draws_cover_every_offset_evenly():
    source = datasets.draws(0, 0, count=45_000, batch_size=45_000)
    batch = next(source)
    for column, size in ((1, 9), (2, 9), (3, 2)):
        counts = np.bincount(batch[:, column], minlength=size)
        expected = 45_000 / size
        # a binomial count lies within five standard deviations but once in a million
        assert len(counts) == size
        assert np.abs(counts - expected).max() < 5 * np.sqrt(expected)
    assert not next(datasets.draws(0, 0, 100, 100, mirror=False))[:, 3].any()


@pytest.mark.parametrize("jit", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_augment_pads_symmetrically_crops_and_flips(jit):
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (6, 32, 32, 3), np.uint8)
    offsets = np.array(
        [(down, across, flip) for down in (0, 4, 8) for across in (0, 3, 8) for flip in (0, 1)]
    )
    picks = np.column_stack([random.integers(0, 6, len(offsets)), offsets]).astype(np.int32)
    actual = tf.function(datasets.augment, jit_compile=jit)(
        tf.constant(images), tf.constant(picks)
    ).numpy()
    for result, (index, down, across, flip) in zip(actual, picks, strict=True):
        padded = np.pad(images[index], ((4, 4), (4, 4), (0, 0)), "symmetric")
        expected = padded[down : down + 32, across : across + 32]
        np.testing.assert_array_equal(result, expected[:, ::-1] if flip else expected)


def test_part_of_a_training_set():
    labels = np.repeat(np.arange(4, dtype=np.int32), 9)[np.random.default_rng(1).permutation(36)]
    images = np.arange(36, dtype=np.uint8)[:, None, None, None] * np.ones((1, 2, 2, 3), np.uint8)
    data = datasets.Dataset("x", "y", images, labels, images, labels, tuple("abcd"))
    few, more = data.part(8), data.part(20)
    assert np.bincount(few.train_labels).tolist() == [2] * 4
    chosen, larger = few.train_images[:, 0, 0, 0], more.train_images[:, 0, 0, 0]
    np.testing.assert_array_equal(labels[chosen], few.train_labels)  # each image has its label
    assert set(chosen) < set(larger)
    # on every machine, as long as NumPy keeps `permutation`
    assert chosen.tolist() == [6, 8, 11, 16, 25, 26, 34, 35]
    assert len(few.test_labels) == 36
    assert len({data.identity, few.identity, more.identity}) == 3
    with pytest.raises(UserError, match=r"--train_images=10 cannot be shared equally by 4 classes"):
        data.part(10)
    with pytest.raises(UserError, match="needs 10 images of each class, and 'a' has 9"):
        data.part(40)


@pytest.mark.skipif(
    "OPT_CIFAR100_DIR" not in os.environ, reason="OPT_CIFAR100_DIR names no folder with CIFAR-100"
)
def test_reads_the_real_cifar100():
    data = datasets.load("cifar100", pathlib.Path(os.environ["OPT_CIFAR100_DIR"]))
    assert data.train_images.shape == (50_000, 32, 32, 3)
    assert np.bincount(data.train_labels).tolist() == [500] * 100
    assert np.bincount(data.test_labels).tolist() == [100] * 100
    assert data.class_names[0] == "apple"
    assert data.class_names[-1] == "worm"
