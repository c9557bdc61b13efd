"""Small CIFAR folders and archives in the official layout, made of random images."""

import io
import pathlib
import pickle
import struct
import tarfile

import numpy as np

from common.datasets import CIFAR100


class _Python2Pickler(pickle._Pickler):
    """Writes text and bytes as Python 2 wrote them into the official archives."""

    dispatch = dict(pickle._Pickler.dispatch)  # noqa: RUF012 (the library's own form)

    def save_string(self, value):
        raw = value.encode("latin1") if isinstance(value, str) else value
        self.write(b"T" + struct.pack("<i", len(raw)) + raw)  # BINSTRING
        self.memoize(value)

    dispatch[str] = dispatch[bytes] = save_string

    def save_global(self, obj, name=None):
        module = {"_reconstruct": "numpy.core.multiarray"}.get(obj.__name__, obj.__module__)
        self.write(b"c" + module.encode() + b"\n" + obj.__name__.encode() + b"\n")
        self.memoize(obj)

    dispatch[type] = save_global
    dispatch[type(np.sum)] = dispatch[type(len)] = dispatch[type(struct.pack)] = save_global


def python2_pickle(record: dict) -> bytes:
    file = io.BytesIO()
    _Python2Pickler(file, protocol=2).dump(record)
    return file.getvalue()


def files(cifar=CIFAR100, train: int = 20, test: int = 10, seed: int = 0) -> dict[str, dict]:
    """Returns the records of each file of an archive with that many images a file."""
    random = np.random.default_rng(seed)

    def record(count: int) -> dict:
        return {
            "batch_label": "of a test",
            cifar.label_key: [int(v) for v in random.integers(0, cifar.classes, count)],
            "data": random.integers(0, 256, (count, 3072), np.uint8),
        }

    records = {name: record(train) for name in cifar.train_files}
    records[cifar.test_file] = record(test)
    records[cifar.names_file] = {cifar.names_key: [f"class {i}" for i in range(cifar.classes)]}
    return records


def write_folder(
    data_dir: pathlib.Path, records: dict[str, dict], cifar=CIFAR100, dumps=python2_pickle
) -> pathlib.Path:
    folder = data_dir / cifar.folder
    folder.mkdir(parents=True)
    for name, record in records.items():
        (folder / name).write_bytes(dumps(record))
    return folder


def write_archive(data_dir: pathlib.Path, records: dict[str, dict], cifar=CIFAR100) -> pathlib.Path:
    data_dir.mkdir(parents=True, exist_ok=True)
    path = data_dir / cifar.archive
    with tarfile.open(path, "w:gz") as tar:
        for name, record in records.items():
            content = python2_pickle(record)
            member = tarfile.TarInfo(f"{cifar.folder}/{name}")
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return path
