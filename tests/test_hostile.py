"""Hostile and odd command lines: each is refused in one line, and nothing is written."""

import collections
import concurrent.futures
import itertools
import os
import pathlib
import re
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parents[1]
METHODS = sorted(path.parent.name for path in ROOT.glob("*/train.py"))
OFFLINE = {
    "https_proxy": "http://127.0.0.1:9",
    "CUDA_VISIBLE_DEVICES": "-1",
    "PYTHONPATH": str(ROOT),
}


def listing(root: pathlib.Path) -> dict[str, tuple]:
    """Returns names, modes, sizes and times of all that is below ``root``; links are not
    followed.
    """
    found = {str(path): path.lstat() for path in root.rglob("*")}
    return {name: (stat.st_mode, stat.st_size, stat.st_mtime_ns) for name, stat in found.items()}


def peak() -> int:
    """Returns the most memory of this process in bytes; getrusage's begins with that of the process
    that started it.
    """
    return 1024 * int(
        re.search(r"VmHWM:\s+(\d+)", pathlib.Path("/proc/self/status").read_text())[1]
    )


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
