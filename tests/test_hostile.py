"""Hostile and odd input: each is answered in one line, or taken where it is sound; nothing is
written, memory is bounded.
"""

import collections
import concurrent.futures
import dataclasses
import gzip
import itertools
import json
import os
import pathlib
import pickle
import re
import struct
import subprocess
import sys
import tarfile
from collections.abc import Callable, Iterator

import numpy as np

from common import datasets
from common.errors import UserError
from tests import archives
from tests.archives import CIFAR10, CIFAR100

ROOT = pathlib.Path(__file__).resolve().parents[1]
METHODS = sorted(path.parent.name for path in ROOT.glob("*/train.py"))
OFFLINE = {
    "https_proxy": "http://127.0.0.1:9",
    "CUDA_VISIBLE_DEVICES": "-1",
    "PYTHONPATH": str(ROOT),
}
SMALL = 128 * 2**20  # bytes of memory that a small file may take, whatever size it claims
# an archive is unpacked to at most two of the largest files, and the members are copied out of that
LARGE = 4 * datasets.cifar.LARGEST_FILE + SMALL


def listing(root: pathlib.Path) -> dict[str, tuple]:
    """Returns names, modes, sizes and times of all that is below ``root``; links are not
    followed.
    """
    found = {str(path): path.lstat() for path in root.rglob("*")}
    return {name: (stat.st_mode, stat.st_size, stat.st_mtime_ns) for name, stat in found.items()}


# Data files


@dataclasses.dataclass(frozen=True)
class Case:
    """Files to lay into a data folder, by their paths in it, and what is to become of them."""

    kind: str
    cifar: datasets.cifar.Cifar
    files: dict[str, bytes | Callable[[pathlib.Path], object]]
    must: str = "be either"
    memory: int = SMALL


def contents(cifar=CIFAR100) -> dict[str, bytes]:
    return {
        name: archives.python2_pickle(record)
        for name, record in archives.files(cifar, train=6, test=4).items()
    }


def member(
    name: str, content: bytes = b"", size: int | None = None, pax: dict | None = None, **fields
) -> bytes:
    """Returns a member of a tar file, which may lie about its size."""
    info = tarfile.TarInfo(name)
    attributes = {
        "size": len(content) if size is None else size,
        "pax_headers": pax or {},
        **fields,
    }
    for field, value in attributes.items():
        setattr(info, field, value)
    return (
        info.tobuf(tarfile.PAX_FORMAT if pax else tarfile.GNU_FORMAT)
        + content
        + bytes(-len(content) % 512)
    )


def tar(files: dict[str, bytes], *others: bytes, cifar=CIFAR100) -> bytes:
    return b"".join(
        [
            *others,
            *(member(f"{cifar.folder}/{name}", content) for name, content in files.items()),
            bytes(1024),
        ]
    )


def in_folder(kind: str, files: dict, must: str = "be either", cifar=CIFAR100) -> Case:
    return Case(
        kind, cifar, {f"{cifar.folder}/{name}": content for name, content in files.items()}, must
    )


def in_archive(kind: str, unpacked: bytes, must: str = "be either", cifar=CIFAR100) -> Case:
    return Case(kind, cifar, {cifar.archive: gzip.compress(unpacked, 1, mtime=0)}, must)


def flip(random: np.random.Generator, content: bytes, within: int | None = None) -> bytes:
    """Flips one to three bits, of the first ``within`` bytes where given."""
    changed = bytearray(content)
    for at in random.integers(0, min(within or len(content), len(content)), random.integers(1, 4)):
        changed[at] ^= 1 << random.integers(8)
    return bytes(changed)


def damaged(random: np.random.Generator) -> Iterator[Case]:
    """Yields flips and truncations of each layer: gzip, tar, its headers with their sums set right,
    and pickle.
    """
    for i in range(20):
        cifar = (CIFAR100, CIFAR10)[i % 2]
        sound = contents(cifar)
        name, whole = random.choice(list(sound)), tar(sound, cifar=cifar)
        header = bytearray(flip(random, whole, 160)[:512])
        header[148:156] = b" " * 8
        header[148:156] = b"%06o\0 " % sum(header)
        # a pickle's first bytes are the labels and the array's description, the rest are pixels
        pickled = sound | {name: flip(random, sound[name], (None, 200, 200)[i % 3])}
        cut = sound | {name: sound[name][: random.integers(len(sound[name]))]}
        packed = gzip.compress(whole, 1, mtime=0)
        yield Case("flips in gzip", cifar, {cifar.archive: flip(random, packed, (None, 20)[i % 2])})
        yield in_archive("flips in tar", flip(random, whole, (None, 512)[i % 2]), cifar=cifar)
        yield in_archive("flips in tar headers", bytes(header) + whole[512:], cifar=cifar)
        yield in_archive("flips in pickles, archived", tar(pickled, cifar=cifar), cifar=cifar)
        yield in_folder("flips in pickles", pickled, cifar=cifar)
        yield Case(
            "truncated archives",
            cifar,
            {cifar.archive: packed[: random.integers(len(packed))]},
            "be refused",
        )
        yield in_archive(
            "truncated tars", whole[: random.integers(len(whole) - 1024)], "be refused", cifar
        )
        yield in_folder("truncated files", cut, "be refused", cifar)


def swapped() -> Iterator[Case]:
    for cifar, other in ((CIFAR100, CIFAR10), (CIFAR10, CIFAR100)):
        sound = contents(cifar)
        for a, b in itertools.combinations(sound, 2):
            # training and test files are alike
            must = "be refused" if cifar.names_file in (a, b) else "be accepted"
            files = sound | {a: sound[b], b: sound[a]}
            yield in_folder("swapped files", files, must, cifar)
            yield in_archive("swapped members", tar(files, cifar=cifar), must, cifar)
        foreign = dict(zip(sound, itertools.cycle(contents(other).values()), strict=False))
        yield in_folder("the other data set's files", foreign, "be refused", cifar)


PIXELS, LABELS, NAMES = np.zeros((6, 3072), np.uint8), [1, 2, 3, 4, 5, 6], ["a"] * 100
DTYPES = ("i1", "<u2", ">u2", "i8", "f2", "f4", "f8", "?", "c8", "S1", "U1", "O", "M8[s]", "u1,u1")
WRONG_DATA = [PIXELS.astype(dtype) for dtype in DTYPES]
WRONG_DATA += [
    PIXELS[:, 1:],
    PIXELS.ravel(),
    PIXELS.T,
    PIXELS[:0],
    PIXELS[:5],
    PIXELS.reshape(6, 32, 32, 3),
    PIXELS[0, 0],
]
WRONG_DATA += [
    None,
    7,
    "text",
    PIXELS.tobytes(),
    [[0] * 3072] * 6,
    {"shape": (6, 3072)},
    np.array(3, "u1"),
]
WRONG_LABELS = [
    None,
    7,
    "123456",
    tuple(LABELS),
    np.array(LABELS, "f4"),
    np.array([LABELS]),
    set(LABELS),
    dict.fromkeys(LABELS),
    LABELS[1:],
    [*LABELS, 7],
]
WRONG_LABELS += [
    [wrong, *LABELS[1:]]
    for wrong in (-1, 100, 2**70, -(2**31), 1.0, True, None, "1", b"1", [1], np.uint8(1))
]
WRONG_NAMES = [
    None,
    7,
    "a" * 100,
    NAMES[1:],
    [*NAMES, "a"],
    [*NAMES[1:], 7],
    [*NAMES[1:], None],
    tuple(NAMES),
    {},
]
# what classes.txt cannot hold, a name a line
WRONG_NAMES += [[*NAMES[1:], "two\nlines"], [*NAMES[1:], "half of a pair: \ud800"]]


def wrong_types() -> Iterator[Case]:
    sound = contents()
    records = [
        *((data, LABELS) for data in WRONG_DATA),
        *((PIXELS, labels) for labels in WRONG_LABELS),
    ]
    for name, (data, labels) in zip(itertools.cycle(("train", "test")), records, strict=False):
        bad = pickle.dumps({"data": data, "fine_labels": labels}, protocol=4)
        yield in_folder("wrong dtypes, shapes and labels", sound | {name: bad}, "be refused")
    for names in WRONG_NAMES:
        bad = pickle.dumps({"fine_label_names": names}, protocol=4)
        yield in_folder("wrong class names", sound | {"meta": bad}, "be refused")


def odd_but_sound() -> Iterator[Case]:
    sound = contents()
    columns = pickle.dumps(
        {"data": np.asfortranarray(PIXELS), "fine_labels": LABELS, "more": [None, True]}, protocol=4
    )
    yield in_folder("odd but sound", sound | {"train": columns, "notes": b""}, "be accepted")
    dotted, commented = (
        member("./cifar-100-python/./test"),
        member("a" * 300, pax={"comment": "words " * 999}),
    )
    for other in (member("README", b"words"), dotted, commented):
        yield in_archive("odd but sound", tar(sound, other), "be accepted")


def escapes(outside: pathlib.Path) -> Iterator[Case]:
    """Yields members and files that lead out of the data folder, links and devices among them."""
    sound, kinds = (
        contents(),
        [b"%d" % i for i in range(7)],
    )  # file, hard link, symbolic link, two devices, folder, pipe
    for name in (
        "../../evil",
        f"{outside}/evil",
        "cifar-100-python/../../evil",
        "..",
        "./../outside/kept",
        "../" * 60 + "evil",
    ):
        for kind in kinds:
            extra = member(name, type=kind, linkname="../../evil" if kind in (b"1", b"2") else "")
            yield in_archive("members that escape", tar(sound, extra), "be refused")
    yield in_archive(
        "members that escape",
        tar(sound, member("a", b"evil", pax={"path": f"../../{'é' * 200}"})),
        "be refused",
    )
    for name, kind, to in itertools.product(
        ("train", "meta"), kinds[1:], (f"{outside}/kept", "../../evil")
    ):
        special = member(
            f"{CIFAR100.folder}/{name}", type=kind, linkname=to, devmajor=1, devminor=5
        )
        rest = {n: content for n, content in sound.items() if n != name}
        yield in_archive("links and devices as members", tar(rest, special), "be refused")
    links = [
        lambda path, to=to: path.symlink_to(to)
        for to in ("train", "none", "/dev/zero", outside / "kept")
    ]
    for name, make in itertools.product(("train", "meta"), (os.mkfifo, os.mkdir, *links)):
        yield in_folder("links and devices as files", sound | {name: make}, "be refused")


def giant_sizes() -> Iterator[Case]:
    """Yields small files that claim to be large."""
    sound, number = contents(), struct.pack
    lengths = [
        b"T" + number("<i", 2**31 - 1),
        b"T" + number("<i", -1),
        b"U\xff",
        b"X" + number("<I", 2**32 - 1),
    ]
    lengths += [
        code + number("<Q", n)
        for code in (b"\x8e", b"\x8d", b"\x95", b"\x96")
        for n in (2**31, 2**62, 2**64 - 1)
    ]
    lengths += [
        b"r" + number("<I", 2**31),
        b"\x8b" + number("<i", 2**31 - 1),
        b"I" + b"9" * 5000 + b"\n",
        b"L9L\n",
    ]
    # tuples in tuples, lists in lists, marks, a name of two lines, and lists that take 72 bytes of
    # memory each
    lengths += [
        b")" + b"\x85" * 100_000,
        b"]" + b"]a" * 5000,
        b"(" * 2000,
        b"\x8c\x03a\nb\x8c\x01c\x93",
        b"]" * 3_000_000,
        # a thousand copies of one string
        b"X"
        + number("<I", 2**20)
        + b"a" * 2**20
        + b"q\x00("
        + b"c_codecs\nencode\nh\x00h\x00\x86R" * 1000
        + b"l",
    ]
    for code in lengths:
        yield in_folder(
            "giant pickles", sound | {"train": b"\x80\x04}" + code + b"Ns."}, "be refused"
        )
    kind, name, rest = (
        "members that lie about their size",
        f"{CIFAR100.folder}/train",
        {n: sound[n] for n in ("test", "meta")},
    )
    for size in (1, 513, 2**20, 2**31, 8**11 - 1, 2**40, 2**62, -1, -512, -(2**40)):
        yield in_archive(kind, tar(rest, member(name, sound["train"], size)), "be refused")
    for pax in (
        {"size": str(2**50)},
        {"size": "-512"},
        {"GNU.sparse.size": str(2**29), "GNU.sparse.map": "0,0"},
    ):
        yield in_archive(kind, tar(rest, member(name, sound["train"], pax=pax)), "be refused")
    for others in (
        [member("././@LongLink", b"x", type=b"L")] * 1500,
        [member(f"{CIFAR100.folder}/a")] * 2000,
    ):
        yield in_archive("members without end", tar({}, *others), "be refused")


def bombs() -> Iterator[Case]:
    """Yields archives of a few kilobytes that unpack to gigabytes, to a file that is too large, and
    to another bomb.
    """
    zeros = {level: gzip.compress(bytes(2**26), level) for level in (1, 6, 9)}
    start = gzip.compress(member(f"{CIFAR100.folder}/train", size=300 * 2**20))
    for packed in (
        *(z * 64 for z in zeros.values()),
        start + zeros[9] * 7,
        gzip.compress(gzip.compress(zeros[9] * 64)),
    ):
        yield Case("gigabytes of zeros", CIFAR100, {CIFAR100.archive: packed}, "be refused", LARGE)


def is_sound(data: datasets.Dataset, cifar) -> bool:
    for images, labels in (
        (data.train_images, data.train_labels),
        (data.test_images, data.test_labels),
    ):
        if (
            images.dtype != np.uint8
            or labels.dtype != np.int32
            or images.shape != (*labels.shape, 32, 32, 3)
        ):
            return False
        if not len(labels) or labels.min() < 0 or labels.max() >= cifar.classes:
            return False
    lines = (
        "".join(f"{name}\n" for name in data.class_names)
        .encode(errors="replace")
        .decode()
        .splitlines()
    )
    return lines == list(data.class_names) and len(lines) == cifar.classes


def peak() -> int:
    """Returns the most memory of this process in bytes; getrusage's begins with that of the process
    that started it.
    """
    return 1024 * int(
        re.search(r"VmHWM:\s+(\d+)", pathlib.Path("/proc/self/status").read_text())[1]
    )


def fuzz(root: pathlib.Path) -> None:
    """Loads each case from a folder below ``root``, and prints as JSON what came of each and what
    was wrong with that.
    """
    outside, data_dir = root / "outside", root / "a" / "b" / "data"
    outside.mkdir()
    (outside / "kept").write_text("mine")
    # the sound ones first, so that memory is counted from what a sound file takes; the largest last
    makers = (
        odd_but_sound(),
        damaged(np.random.default_rng(0)),
        swapped(),
        wrong_types(),
        escapes(outside),
        giant_sizes(),
    )
    outcomes, start = [], None
    for case in itertools.chain(*makers, bombs()):
        for name, content in case.files.items():
            path = data_dir / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content) if isinstance(content, bytes) else content(path)
        before, message = listing(root), ""
        try:
            data = datasets.load(case.cifar.tfds_name, data_dir)
            outcome = (
                "accepted" if is_sound(data, case.cifar) else "accepted though it is not sound"
            )
        except UserError as error:
            message = str(error)
            outcome = (
                "refused"
                if message.strip() and len(message.splitlines()) == 1
                else "refused, but not in one line"
            )
        except Exception as error:  # whatever it is, it is wrong
            outcome, message = f"answered by {type(error).__name__}", str(error)
        start = start or peak()
        grown = peak() - start
        start += max(0, grown - case.memory)  # an excess counts once
        fine = {
            "be either": ("accepted", "refused"),
            "be refused": ("refused",),
            "be accepted": ("accepted",),
        }[case.must]
        wrong = [f"must {case.must}, was {outcome}"] * (outcome not in fine)
        wrong += ["files changed"] * (listing(root) != before)
        wrong += [f"memory grew by {grown >> 20} MiB"] * (grown > case.memory)
        outcomes.append((case.kind, outcome, "; ".join(wrong), message[:300]))
        for path in sorted(data_dir.rglob("*"), reverse=True):
            path.rmdir() if path.is_dir() and not path.is_symlink() else path.unlink()
    print(json.dumps(outcomes))


def test_fuzzed_data_files(tmp_path):
    """Over 200 damaged, odd and malicious data files: each is loaded or refused in a line, in a
    process watched for memory.
    """
    (tmp_path / "cwd").mkdir()
    code = "import pathlib; from tests.test_hostile import fuzz; "
    code += f"fuzz(pathlib.Path({str(tmp_path)!r}))"
    environment = os.environ | OFFLINE | {"TMPDIR": str(tmp_path / "cwd")}
    command = [sys.executable, "-c", code]
    result = subprocess.run(
        command, cwd=tmp_path / "cwd", env=environment, capture_output=True, text=True, timeout=300
    )
    assert result.returncode == 0, result.stderr
    outcomes = json.loads(result.stdout)
    for (kind, outcome), count in sorted(
        collections.Counter((kind, outcome) for kind, outcome, *_ in outcomes).items()
    ):
        print(f"{count:4} {kind}: {outcome}")
    print(f"{len(outcomes):4} in all")
    assert len(outcomes) >= 200
    assert {"accepted", "refused"} <= {outcome for _, outcome, *_ in outcomes}
    problems = [f"{kind}: {wrong}: {message!r}" for kind, _, wrong, message in outcomes if wrong]
    assert not problems, "\n".join(problems)
    assert not any(
        "does not answer" in message for *_, message in outcomes
    )  # none asked for a download


# Command lines

# "GIVEN" stands for a folder that the test makes, "HERE" for one that is to stay empty
OF_EVERY_METHOD = r"""
--batch_size=1e3 | --batch_size= | --batch_size=一 | --seed=0x10 | --seed=4294967296 | --seed=½
--seed | --gpu_no=first
--log_every=-5 | --eval_every=often | --base_lr=1e400 | --base_lr=-inf | --base_lr=
--base_lr=0,1 | --base_lr=½ | --dataset=
--dataset=CIFAR100 | --dataset=../../etc/passwd | --backbone=cnn6,cnn9 | --jit=True | --nojit
--noiterations | --widths=²,1,1,1
--widths=64;64;64;64 | --widths=64,64,64,64,64 | --widths=64,,64,64 | --widths=1e2,1,1,1
--widths=65537,1,1,1 | train now
--iterations=100000000000000000000 --dataset=digits | seed=1 | -- --seed=1 | - | --=1
--датасет=digits | --seed=1 --seed=-2
--widths=8,8,8,8 --widths=8 | --base_lr=0.1 --base_lr=nan | --log_dir=~no_such_user/log
--data_dir=GIVEN/file | --data_dir=GIVEN
--flagfile=GIVEN/none | --flagfile=GIVEN | --flagfile=GIVEN/binary | --verbosity=loud
--stderrthreshold=loud
--logger_levels=a:loud"""
LONG = "9" * 5000
ODD_OF_EVERY_METHOD = [
    [""],
    ["--seed=1\n2"],
    ["--backbone=cnn6\n"],
    ["--two\x85lines=1"],
    [f"--seed={LONG}"],
]
ODD_OF_EVERY_METHOD += [
    [f"--widths={LONG},1,1,1"],
    [f"--{'a' * 5000}"],
    [f"--log_dir=HERE/{LONG}"],
    ["--dataset=" + 20 * LONG],
]
ODD_OF_EVERY_METHOD += [[os.fsdecode(word)] for word in (b"--\xff\xfe=1", b"--widths=\xff")]
ODD_OF_EVERY_METHOD += [
    [os.fsdecode(b"--log_dir=HERE/\xff"), "--dataset=digits", "--widths=1,1,1,1", "--iterations=1"]
]
OF_ONE_METHOD = """
opt_gs --block_size=1 | sopt_gs --block_size=-1 | opt_cp --block_size=8.5 | mhe --block_size=8
baseline --rotation_lr=0.1 | opt_gs --reset_bn | opt_hr --iterations_per_episode=5
opt_ls --rotated_fraction=0.5
opt_cp --reorthogonalize_every=3 | opt_cp --backbone=resnet32 --widths=32,64,128,128
opt_or --noreset_bn
opt_ogd --rotation_lr=nan | opt_ogd --rotation_lr=-1 | opt_ogd --reorthogonalize_every=-1
opt_ogd --reorthogonalize_every=0.5
opt_ogd --reorthogonalize_every=100000000000000000000 --dataset=digits --widths=1,1,1,1 --iterations=1
sopt_gs --rotated_fraction=0 | sopt_gs --rotated_fraction=1.01 | sopt_gs --rotated_fraction=nan
sopt_gs --reset_bn=perhaps
sopt_gs --iterations_per_episode=0 | sopt_gs --rotation_lr=0.1"""  # noqa: E501
OF_PREDICT = """
--model | --no_such_flag GIVEN/file | --model= GIVEN/file | --model=/ GIVEN/file
--model=GIVEN GIVEN/file
--model=GIVEN/file GIVEN | --model=GIVEN/none GIVEN/file"""
ODD_OF_PREDICT = [[], [f"--model={LONG}", "GIVEN/file"]]
ODD_OF_PREDICT += [
    ["--model=GIVEN/file", picture] for picture in ("", LONG, "two\nlines", "\udcff")
]


def words_of(text: str) -> list[list[str]]:
    return [line.split() for line in re.split(r"\n| \| ", text.strip())]


# what every method shares is tried with each in turn
OF_METHODS = list(
    zip(itertools.cycle(METHODS), [*words_of(OF_EVERY_METHOD), *ODD_OF_EVERY_METHOD], strict=False)
)
OF_METHODS += [(method, words) for method, *words in words_of(OF_ONE_METHOD)]
LINES = [(f"{method}/train.py", words) for method, words in OF_METHODS]
LINES += [("predict.py", words) for words in [*words_of(OF_PREDICT), *ODD_OF_PREDICT]]


def complaint(script: str, words: list[str], given: pathlib.Path, here: pathlib.Path) -> str:
    """Runs a script with words that it must refuse, and returns what is wrong with its answer."""
    here.mkdir()
    before = ["--data_dir=HERE/data", "--log_dir=HERE/log"] if script.endswith("train.py") else []
    line = [word.replace("GIVEN", str(given)).replace("HERE", str(here)) for word in before + words]
    command = [sys.executable, str(ROOT / script), *line]
    result = subprocess.run(
        command, cwd=here, env=os.environ | OFFLINE, capture_output=True, text=True, timeout=120
    )
    # TensorFlow's C++ code and argparse's usage come before our line
    answer = re.sub(r"(?m)^(WARNING: All log messages|[IWE]0000 ).*\n", "", result.stderr)
    lines = re.sub(r"\Ausage: .*\n( +.*\n)*", "", answer).splitlines()
    wrong = [f"exit code {result.returncode}"] * (result.returncode != 2)
    wrong += ["a traceback"] * ("Traceback" in result.stdout + result.stderr)
    wrong += [f"{len(lines)} lines"] * (len(lines) != 1)
    wrong += [f"left {sorted(path.name for path in here.iterdir())}"] * bool(listing(here))
    return (
        f"{script} {' '.join(words)[:60]!r}: {'; '.join(wrong)}: {str(lines[-1:])[:160]}"
        if wrong
        else ""
    )


def test_bad_command_lines(tmp_path):
    """Over 50 wrong command lines: each exits with 2 and one line, and leaves no file."""
    given = tmp_path / "given"
    given.mkdir()
    for path in (given / "file", given / "classes.txt"):
        path.write_text("mine")
    (given / "binary").write_bytes(bytes(range(256)))
    before = listing(given)
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        found = list(
            pool.map(lambda i: complaint(*LINES[i], given, tmp_path / f"{i:03}"), range(len(LINES)))
        )
    for script, count in collections.Counter(script for script, _ in LINES).items():
        print(f"{count:4} {script}")
    print(f"{len(LINES):4} in all")
    assert len(LINES) >= 50
    assert listing(given) == before
    assert not any(found), "\n".join(filter(None, found))
