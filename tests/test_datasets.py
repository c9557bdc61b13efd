"""Data sets: the official files, TFDS copies, hostile ones; batches and their augmentation."""

import contextlib
import gzip
import hashlib
import json
import os
import pathlib
import pickle
import re
import socket
import sys
import time

import numpy as np
import pytest
import tensorflow as tf

from common import datasets
from common.errors import UserError
from tests import archives
from tests.archives import CIFAR10, CIFAR100


def assert_holds(data: datasets.Dataset, records: dict, cifar=CIFAR100) -> None:
    """Asserts that ``data`` has the records' pictures, labels and names, in their order."""
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


def test_reads_the_official_folder(tmp_path):
    records = archives.files()
    folder = archives.write_folder(tmp_path, records)
    data = datasets.load("cifar100", tmp_path)
    assert_holds(data, records)
    assert str(data).startswith(f"CIFAR-100 from {folder}: 20 training and 10 test images")


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_reads_pickles_of_any_protocol(tmp_path, protocol):
    """As Python 3 writes what it has read of the official files, as text and as bytes."""

    def in_bytes(value):
        if isinstance(value, list):
            return [in_bytes(part) for part in value]
        return value.encode() if isinstance(value, str) else value

    def of_bytes(record: dict) -> bytes:
        pairs = {in_bytes(key): in_bytes(value) for key, value in record.items()}
        return pickle.dumps(pairs | {b"filenames": [b"a", b"b"] * 60}, protocol)

    def of_arrays(record: dict) -> bytes:
        convert = {
            "data": np.asfortranarray,
            "fine_labels": lambda labels: np.array(labels, ["<i8", ">u2", "u1"][protocol % 3]),
        }
        pairs = {key: convert.get(key, list)(value) for key, value in record.items()}
        return pickle.dumps(pairs, protocol)

    records = archives.files()
    for dumps in (of_bytes, of_arrays):
        archives.write_folder(tmp_path / dumps.__name__, records, dumps=dumps)
        assert_holds(datasets.load("cifar100", tmp_path / dumps.__name__), records)


@pytest.mark.parametrize("cifar", [CIFAR10, CIFAR100], ids=lambda cifar: cifar.tfds_name)
def test_finds_a_data_set_where_people_have_it(tmp_path, monkeypatch, capsys, cifar):
    records = archives.files(cifar)

    def folder(*above: str) -> pathlib.Path:
        return archives.write_folder(tmp_path.joinpath(*above), records, cifar)

    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "keras"))
    kept = folder("keras", "datasets", f"{cifar.folder}-target")
    for name, given, found in [
        ("nowhere but in Keras's cache", "none", kept),
        ("named itself", f"itself/{cifar.folder}", folder("itself")),
        ("unpacked twice", "twice", folder("twice", cifar.folder)),
        ("from Keras's named archive", "named", folder("named", f"{cifar.folder}_extracted")),
        (
            "unpacked by half",
            "tar",
            archives.write_archive(tmp_path / "tar", records, cifar, suffix=".tar"),
        ),
    ]:
        data = datasets.load(cifar.tfds_name, tmp_path / given)
        assert data.source == str(found), name
        assert_holds(data, records, cifar)
    assert capsys.readouterr().err == ""  # no sum is known of a .tar
    (tmp_path / "tar" / cifar.folder).mkdir()  # as an unpacking leaves that was broken off
    assert datasets.load(cifar.tfds_name, tmp_path / "tar").source.endswith(".tar")


def test_reads_the_five_files_of_cifar10(tmp_path):
    records = archives.files(CIFAR10)
    archives.write_folder(tmp_path, records, CIFAR10)
    data = datasets.load("cifar10", tmp_path)
    assert_holds(data, records, CIFAR10)
    assert len(data.train_labels) == 100


def test_reads_an_archive_and_names_both_sums_where_they_differ(tmp_path, capsys):
    records = archives.files()
    archives.write_archive(tmp_path, records)
    assert_holds(datasets.load("cifar100", tmp_path), records)
    warning = capsys.readouterr().err
    assert warning.startswith("warning:")
    assert CIFAR100.md5 in warning
    assert (
        hashlib.md5((tmp_path / CIFAR100.archive).read_bytes(), usedforsecurity=False).hexdigest()
        in warning
    )
    assert [p.name for p in tmp_path.iterdir()] == [CIFAR100.archive]  # nothing was unpacked


class _LocalFiles:
    """Stands in for TFDS's download manager: the download is already there."""

    def __init__(self, folder: pathlib.Path):
        self.folder = folder

    def download_and_extract(self, _):
        return str(self.folder)


@pytest.fixture
def tfds_copy(tmp_path):
    """A TFDS copy, written by TFDS's own CIFAR-100 builder from small files in the binary
    layout.
    """
    import tensorflow_datasets as tfds

    source = tmp_path / "binary"
    (source / "cifar-100-binary").mkdir(parents=True)
    records = archives.files()
    for name, file in (("train", "train.bin"), ("test", "test.bin")):
        record = records[name]
        labels = np.stack(
            [np.zeros_like(record["fine_labels"]), record["fine_labels"]], axis=1
        ).astype(np.uint8)
        (source / "cifar-100-binary" / file).write_bytes(
            np.concatenate([labels, record["data"]], axis=1).tobytes()
        )
    (source / "cifar-100-binary" / "fine_label_names.txt").write_text(
        "\n".join(records["meta"]["fine_label_names"])
    )
    (source / "cifar-100-binary" / "coarse_label_names.txt").write_text(
        "\n".join(f"coarse {i}" for i in range(20))
    )

    data_dir = tmp_path / "data"
    builder = tfds.builder("cifar100", data_dir=data_dir)
    split_generators = builder._split_generators
    builder._split_generators = lambda _: split_generators(_LocalFiles(source))
    builder.download_and_prepare()
    return data_dir, records


@pytest.mark.parametrize("nested", [False, True], ids=["plain", "nested"])
def test_a_tfds_copy_runs_nothing(tfds_copy, monkeypatch, nested):
    """TFDS would import the module that features.json names; a file beside it could be that
    module.
    """
    data_dir, _ = tfds_copy
    folder = next((data_dir / "cifar100").glob("*"))
    ran = data_dir / "ran"
    (data_dir / "hostile_module.py").write_text(
        f"open({str(ran)!r}, 'w').close()\nclass Evil: pass\n"
    )
    monkeypatch.syspath_prepend(str(data_dir))
    monkeypatch.delitem(sys.modules, "hostile_module", raising=False)
    features = json.loads((folder / "features.json").read_text())
    if nested:  # JSON in JSON, as TFDS's older features are kept, with the dot in disguise
        features["featuresDict"]["features"]["more"] = {
            "pythonClassName": "tensorflow_datasets.core.features.sequence_feature.Sequence",
            "jsonFeature": {
                "json": '{"feature": {"type": "hostile_module\\u002eEvil", "content": {}}}'
            },
        }
    else:
        features["pythonClassName"] = "hostile_module.Evil"
    (folder / "features.json").write_text(json.dumps(features))
    with pytest.raises(
        UserError, match=r"features\.json asks for .+, which no copy of CIFAR needs"
    ):
        datasets.load("cifar100", data_dir)
    assert not ran.exists()
    assert "hostile_module" not in sys.modules
    # TFDS itself would have run it
    if not nested:
        import tensorflow_datasets as tfds

        with contextlib.suppress(Exception):
            tfds.builder_from_directory(folder)
        assert ran.exists()


def test_reads_a_tfds_copy(tfds_copy):
    data_dir, records = tfds_copy
    data = datasets.load("cifar100", data_dir)
    assert "cifar100/3.0.2" in data.source
    # TFDS shuffles what it writes
    pixels = records["train"]["data"].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
    expected = {
        (image.tobytes(), label)
        for image, label in zip(pixels, records["train"]["fine_labels"], strict=True)
    }
    assert {
        (image.tobytes(), int(label))
        for image, label in zip(data.train_images, data.train_labels, strict=True)
    } == expected
    assert data.class_names[7] == "class 7"


def test_a_damaged_tfds_copy_is_refused(tfds_copy):
    data_dir, _ = tfds_copy
    for file in data_dir.glob("cifar100/*/*train*"):
        file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(UserError, match="cannot be read as TFDS's cifar100"):
        datasets.load("cifar100", data_dir)


def test_order_of_the_sources(tfds_copy, monkeypatch):
    data_dir, _ = tfds_copy
    monkeypatch.setenv("TFDS_DATA_DIR", str(data_dir))
    assert datasets.load("cifar100", data_dir / "none").source.startswith(str(data_dir))
    archives.write_archive(data_dir, archives.files(train=30))
    assert len(datasets.load("cifar100", data_dir).train_labels) == 30
    archives.write_folder(data_dir, archives.files(train=40))
    assert len(datasets.load("cifar100", data_dir).train_labels) == 40


def test_no_data_and_no_network_stops_soon_and_names_three_ways_on(tmp_path, monkeypatch):
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
        assert not datasets.tfds.is_reachable(
            f"http://127.0.0.1:{server.getsockname()[1]}/", seconds=0.5
        )
        assert time.monotonic() - start < 5


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


@pytest.mark.parametrize(
    "payload",
    [
        lambda path: _Runs(os.system, f"touch {path}"),
        lambda path: _Runs(eval, f"open({str(path)!r}, 'w')"),
        lambda path: _Runs(open, str(path), "w"),
        lambda path: _Runs(getattr, "text", "upper"),
        lambda path: _Runs(np.load, str(path)),
        lambda path: np.array([_Runs(os.system, f"touch {path}")], dtype=object),
    ],
    ids=["os.system", "eval", "open", "getattr", "numpy.load", "inside an object array"],
)
def test_a_malicious_pickle_runs_nothing(tmp_path, payload):
    mark = tmp_path / "it ran"
    content = pickle.dumps({"data": payload(mark)}, protocol=4)
    with pytest.raises(ValueError, match="which no such file needs"):
        datasets.unpickling.unpickle(content, "data")
    records = archives.files()
    folder = archives.write_folder(tmp_path, records)
    (folder / "train").write_bytes(content)
    with pytest.raises(UserError, match="train: not a pickle of a CIFAR file"):
        datasets.load("cifar100", tmp_path)
    assert not mark.exists()


def change(record: dict, **values) -> dict:
    return {**record, **values}


BAD_RECORDS = {
    "no dictionary": lambda r: [1, 2],
    "no data": lambda r: {"fine_labels": r["fine_labels"]},
    "data of floats": lambda r: change(r, data=np.zeros((20, 3072))),
    "data of objects": lambda r: change(r, data=np.array([[1] * 3072] * 20, dtype=object)),
    "narrow pictures": lambda r: change(r, data=np.zeros((20, 3071), np.uint8)),
    "flat data": lambda r: change(r, data=np.zeros(20 * 3072, np.uint8)),
    "no pictures": lambda r: change(r, data=np.zeros((0, 3072), np.uint8), fine_labels=[]),
    "too few labels": lambda r: change(r, fine_labels=r["fine_labels"][:-1]),
    "label 100": lambda r: change(r, fine_labels=[100, *r["fine_labels"][1:]]),
    "label -1": lambda r: change(r, fine_labels=[-1, *r["fine_labels"][1:]]),
    "a label that is text": lambda r: change(r, fine_labels=["1", *r["fine_labels"][1:]]),
    "labels that are no list": lambda r: change(r, fine_labels=7),
}


@pytest.mark.parametrize("spoil", BAD_RECORDS.values(), ids=BAD_RECORDS.keys())
def test_a_file_that_holds_something_else_is_refused(tmp_path, spoil):
    records = archives.files()
    records["train"] = spoil(records["train"])
    archives.write_folder(tmp_path, records, dumps=lambda r: pickle.dumps(r, protocol=4))
    with pytest.raises(UserError, match=r"cifar-100-python: train: \w+") as caught:
        datasets.load("cifar100", tmp_path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("length", [0, 1, 100, 30_000, 61_400])
def test_a_truncated_file_is_refused(tmp_path, length):
    folder = archives.write_folder(tmp_path, archives.files())
    whole = (folder / "train").read_bytes()
    assert length < len(whole)
    (folder / "train").write_bytes(whole[:length])
    with pytest.raises(UserError, match="train: not a pickle of a CIFAR file"):
        datasets.load("cifar100", tmp_path)


@pytest.mark.parametrize("length", [0, 1, 100, 30_000])
def test_a_truncated_archive_is_refused(tmp_path, length):
    path = archives.write_archive(tmp_path, archives.files())
    path.write_bytes(path.read_bytes()[:length])
    with pytest.raises(UserError, match=r"cannot be read as an archive|holds no file"):
        datasets.load("cifar100", tmp_path)


@pytest.mark.parametrize("name", ["../train", "/tmp/train", "cifar-100-python/../../train"])  # noqa: S108
def test_an_archive_with_a_member_that_escapes_is_refused(tmp_path, name):
    archives.write_archive(tmp_path, archives.files(), names={"train": name})
    with pytest.raises(UserError, match="would leave its folder"):
        datasets.load("cifar100", tmp_path)


def header(name: str, size: int, kind: bytes = b"0") -> bytes:
    """Returns a tar header, its sum right whatever it says."""
    number = b"%011o\0" % size if 0 <= size < 8**11 else (size % 256**12).to_bytes(12, "big")
    number = number if size < 8**11 else b"\x80" + number[1:]
    block = bytearray(512)
    fields = {
        0: name.encode(),
        100: b"0000644\0",
        124: number,
        136: b"00000000000\0",
        148: b" " * 8,
        156: kind,
        257: b"ustar\x0000",
    }
    for start, value in fields.items():
        block[start : start + len(value)] = value
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block)


@pytest.mark.parametrize(
    "unpacked",
    [
        header("cifar-100-python/a", -1024) * 2,
        b"".join(header("././@LongLink", 1, b"L") + b"x".ljust(512, b"\0") for _ in range(1500)),
        header("././@LongLink", 600 * 2**20, b"L") + bytes(600 * 2**20),
        header("cifar-100-python/train", 2**40),
    ],
    ids=["negative size", "a chain of long names", "larger than it may be", "a size that is a lie"],
)
def test_a_hostile_archive_is_refused(tmp_path, unpacked):
    with gzip.open(tmp_path / CIFAR100.archive, "wb", compresslevel=1) as file:
        file.write(unpacked)
    with pytest.raises(UserError, match=re.escape(CIFAR100.archive)):
        datasets.load("cifar100", tmp_path)


@pytest.mark.parametrize(
    "content",
    [
        b"\x80\x02}" + b")" + b"\x85" * 200_000 + b"Ns.",  # {((((...)))): None}
        b"\x80\x02}r\xff\xff\xff\x7f.",  # the memo's entry number 2^31 - 1
        b"\x80\x02}U\x01a\x82\x01s.",  # an extension code
        b"\x80\x04\x8f(" + b")" + b"\x85" * 200_000 + b"\x90.",  # a set
    ],
    ids=["tuples in tuples", "a huge memo", "an extension", "tuples in a set"],
)
def test_a_pickle_that_would_exhaust_the_machine_is_refused(content):
    with pytest.raises(ValueError, match=r"no such file|not text"):
        datasets.unpickling.unpickle(content, "data")


def test_a_missing_file_is_named(tmp_path):
    folder = archives.write_folder(tmp_path, archives.files())
    (folder / "meta").unlink()
    with pytest.raises(UserError, match="holds no file meta"):
        datasets.load("cifar100", tmp_path)


def test_a_file_in_the_place_of_the_data_folder_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="is not a folder"):
        datasets.load("cifar100", tmp_path / "file")


# Digits and batches


def test_digits():
    data = datasets.load("digits", pathlib.Path("unused"))
    assert data.train_images.shape == (1437, 32, 32, 3)
    assert len(data.test_labels) == 360
    assert data.train_images.max() == 255
    assert np.bincount(data.test_labels).min() >= 25


def test_picks_are_a_function_of_seed_and_iteration():
    def some(start, stop, seed=3):
        source = datasets.draws(seed, start, count=103, batch_size=10)
        return np.stack([next(source) for _ in range(start, stop)])

    whole = some(0, 35)
    for start in (1, 9, 10, 11, 29, 30):
        np.testing.assert_array_equal(some(start, 35), whole[start:])
    assert not np.array_equal(whole, some(0, 35, seed=4))
    for epoch in (whole[:10], whole[10:20]):  # no picture twice; three are left over
        assert len(np.unique(epoch[:, :, 0])) == 100
    assert not np.array_equal(whole[:10], whole[10:20])


def test_episodes_begin_with_a_shuffle_of_their_own():
    """As the original's stochastic scheme: a new shuffle at an episode's start, and where an epoch
    ends inside it.
    """
    source = datasets.draws(0, 0, count=40, batch_size=10, episode_length=6)
    whole = np.stack([next(source) for _ in range(18)])[:, :, 0]
    for episode in range(3):
        start = 6 * episode
        assert len(np.unique(whole[start : start + 4])) == 40
        assert len(np.unique(whole[start + 4 : start + 6])) == 20
    for resumed in (5, 6, 7, 10, 11):
        source = datasets.draws(0, resumed, count=40, batch_size=10, episode_length=6)
        np.testing.assert_array_equal(
            np.stack([next(source) for _ in range(18 - resumed)])[:, :, 0], whole[resumed:]
        )


def test_picks_cover_every_offset_evenly():
    source = datasets.draws(0, 0, count=45_000, batch_size=45_000)
    batch = next(source)
    for column, size in ((1, 9), (2, 9), (3, 2)):
        counts = np.bincount(batch[:, column], minlength=size)
        expected = 45_000 / size
        # a binomial count lies within five standard deviations but once in a million
        assert len(counts) == size
        assert np.abs(counts - expected).max() < 5 * np.sqrt(expected)
    assert not next(datasets.draws(0, 0, 100, 100, mirror=False))[:, 3].any()


@pytest.mark.parametrize("jit", [False, True])
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


def test_part_of_a_training_set():
    labels = np.repeat(np.arange(4, dtype=np.int32), 9)[np.random.default_rng(1).permutation(36)]
    images = np.arange(36, dtype=np.uint8)[:, None, None, None] * np.ones((1, 2, 2, 3), np.uint8)
    data = datasets.Dataset("x", "y", images, labels, images, labels, tuple("abcd"))
    few, more = data.part(8), data.part(20)
    assert np.bincount(few.train_labels).tolist() == [2] * 4
    chosen, larger = few.train_images[:, 0, 0, 0], more.train_images[:, 0, 0, 0]
    np.testing.assert_array_equal(labels[chosen], few.train_labels)  # each image has its own label
    assert set(chosen) < set(larger)
    # the same images on every machine: NumPy promises this stream for PCG64 and a fixed seed
    assert chosen.tolist() == data.part(8).train_images[:, 0, 0, 0].tolist()
    assert len(few.test_labels) == 36
    assert len({data.identity, few.identity, more.identity}) == 3
    with pytest.raises(UserError, match=r"--train_images=10 cannot be shared equally by 4 classes"):
        data.part(10)
    with pytest.raises(UserError, match="needs 10 images of each class, and 'a' has 9"):
        data.part(40)
