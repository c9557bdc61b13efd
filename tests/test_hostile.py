"""Hostile command lines and texts: refused in one line, shown without escapes, nothing written."""

import functools
import itertools
import os
import pathlib
import re
import sys

import pytest

import predict
from common.training import methods, texts
from common.training.command_line import run_program
from tests.conftest import ROOT


def listing(root: pathlib.Path) -> dict[str, tuple]:
    """Returns modes, sizes and times of all that is below ``root``; links are not followed."""
    found = {str(path): path.lstat() for path in root.rglob("*")}
    return {name: (stat.st_mode, stat.st_size, stat.st_mtime_ns) for name, stat in found.items()}


def peak(anew: bool = False) -> int:
    """Returns the most memory of this process in bytes; with ``anew`` it counts from now on."""
    if anew and os.access("/proc/self/clear_refs", os.W_OK):  # not every kernel has it
        pathlib.Path("/proc/self/clear_refs").write_text("5")
    status = pathlib.Path("/proc/self/status").read_text()
    return 1024 * int(re.search(r"VmHWM:\s+(\d+)", status)[1])


# "GIVEN" stands for a folder that the test makes, "HERE" for one that is to stay empty
OF_EVERY_METHOD = """
--batch_size=1e3 | --batch_size= | --batch_size=一 | --seed=0x10 | --seed=4294967296 | --seed
--base_lr=1e400 | --base_lr=0,1 | --base_lr=½ | --dataset=../../etc/passwd | --jit=True | --nojit
--noiterations | --widths=²,1,1,1 | --widths=64;64;64;64 | --widths=64,64,64,64,64
--widths=65537,1,1,1 | --iterations=100000000000000000000 --dataset=digits | seed=1 | -- --seed=1
- | --=1 | --датасет=digits | --seed=1 --seed=-2 | --data_dir=GIVEN/file | --data_dir=GIVEN
--flagfile=GIVEN/none | --flagfile=GIVEN | --log_dir=
--batch_size=0 | --batch_size=-3 | --batch_size=many | --warmup_iterations=-1
--warmup_iterations=1.5 | --weight_decay=-1 | --base_lr=-0.1 | --base_lr=nan | --base_lr=inf
--widths=64,64,64 | --widths=16,32,64,64 --backbone=resnet20 | --widths=32,16,64 --backbone=resnet32
--widths=64,64,64,0 | --widths=64,64,64,-1 | --widths=a,b,c,d | --widths= | --iterations=0
--base_lr=fast | --iterations=1.5 | --dataset=imagenet | --image_size=64 | --backbone=vgg
--jit=maybe | --precision=float16 | --seed=-1 | --log_every=0 | --eval_every=0 | --gpu_no=-1
--no_such_flag | --baselr=0.1 | stray | --data_dir=~no_such_user/data
--precision=mixed_float16 --distribute=multi_worker"""
LONG = "9" * 5000
ODD_OF_EVERY_METHOD = ["", "--seed=1\n2", "--two\x85lines=1", f"--seed={LONG}", f"--{'a' * 5000}"]
ODD_OF_EVERY_METHOD += [f"--log_dir=HERE/{LONG}", "--dataset=" + 20 * LONG]
ODD_OF_EVERY_METHOD += map(os.fsdecode, (b"--\xff\xfe=1", b"--widths=\xff", b"--log_dir=HERE/\xff"))
OF_ONE_METHOD = """
opt_gs --flagfile=GIVEN/binary | opt_gs --rotation_stddev=0 | opt_gs --rotation_stddev=nan
opt_gs --block_size=1 | sopt_gs --block_size=-1 | opt_cp --block_size=8.5 | mhe --block_size=8
baseline --rotation_lr=0.1 | opt_gs --reset_bn | opt_hr --iterations_per_episode=5
opt_ls --rotated_fraction=0.5 | opt_cp --widths=32,64,128,128 --backbone=resnet32
opt_ogd --rotation_lr=nan | opt_ogd --rotation_lr=-1 | opt_ogd --reorthogonalize_every=0.5
opt_ogd --reorthogonalize_every=100000000000000000000 --dataset=digits | sopt_gs --reset_bn=perhaps
sopt_gs --rotated_fraction=0 | sopt_gs --rotated_fraction=1.01 | sopt_gs --rotated_fraction=nan
sopt_gs --iterations_per_episode=0"""
OF_PREDICT = """
--model | --no_such_flag GIVEN/file | --model= GIVEN/file | --model=GIVEN GIVEN/file
--model=GIVEN/file GIVEN | --model=GIVEN/file GIVEN/file"""
ODD_OF_PREDICT = [[], [f"--model={LONG}", "GIVEN/file"]]
ODD_OF_PREDICT += [["--model=GIVEN/file", name] for name in ("", LONG, "two\nlines", "\udcff")]


def words_of(text: str) -> list[list[str]]:
    return [line.split() for line in re.split(r"\n| \| ", text.strip())]


# what every method shares is tried with each in turn
NAMED = words_of(OF_EVERY_METHOD)  # whose flag stands in the message
LINES = list(zip(itertools.cycle(methods.known()), NAMED, strict=False))
LINES += [("opt_gs", [word]) for word in ODD_OF_EVERY_METHOD]
LINES += [(method, words) for method, *words in words_of(OF_ONE_METHOD)]
LINES += [("predict", words) for words in [*words_of(OF_PREDICT), *ODD_OF_PREDICT]]
PREDICT = functools.partial(run_program, predict.Prediction, predict.main, "predict.py")


def test_bad_command_lines(tmp_path, monkeypatch, capsys):
    """Over 50 wrong command lines: each exits with 2 and one line, and leaves no file."""
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")  # nothing listens there
    given, here = tmp_path / "given", tmp_path / "here"
    for folder in (given, here):
        folder.mkdir()
    for name in ("file", "classes.txt"):
        (given / name).write_text("mine")
    (given / "binary").write_bytes(bytes(range(256)))
    monkeypatch.chdir(here)
    before = listing(given)
    for program, words in LINES:
        if program == "predict":
            start, where = PREDICT, []
        else:
            start = functools.partial(methods.run, str(ROOT / program / "train.py"))
            where = ["--data_dir=HERE/data", "--log_dir=HERE/log"]
        line = [w.replace("GIVEN", str(given)).replace("HERE", str(here)) for w in where + words]
        monkeypatch.setattr(sys, "argv", [program, *line])
        with pytest.raises(SystemExit) as ended:
            start()
        tried = f"{program} {' '.join(words)[:60]!a}"
        assert ended.value.code == 2, tried
        (said,) = capsys.readouterr().err.splitlines()
        assert ("does not answer" in said) == (words == ["--data_dir=GIVEN"]), tried  # no data
        if words in NAMED or program == "opt_cp":
            assert words[0].split("=")[0].lstrip("-") in said
        assert not listing(here), tried
        assert listing(given) == before, tried


def test_shown_text_is_one_printable_line():
    assert texts.shown("Löwdin's ± 中文 <b>") == "Löwdin's ± 中文 <b>"
    # an escape sequence, an end of line, a change of direction, half a character
    assert texts.shown("a\x1b[2Jb\nc\u202ed\ud800") == r"a\x1b[2Jb\nc\u202ed\ud800"
    assert texts.shown("a" * 501) == "a" * 496 + " ..."
    assert len(texts.shown("\x1b" * 400)) == 500


def test_only_regular_files_of_utf8_are_read(tmp_path, monkeypatch):
    path = tmp_path / "classes.txt"
    for content, reason in (
        (None, "is not a file"),
        (b"caf\xe9", "is not UTF-8"),
        (b"a" * 17, "has more than 16 bytes"),
    ):
        monkeypatch.setattr(texts, "LIMIT", 16)
        if content:
            path.write_bytes(content)
        with pytest.raises(ValueError, match=rf"^classes\.txt {reason}$"):
            texts.read_text(path)
    path.write_bytes(b"\xef\xbb\xbf\xc2\xb1\r\n")  # as editors of Windows save it
    assert texts.read_text(path) == "±\r\n"
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ValueError, match=r"^pipe is not a file$"):
        texts.read_text(tmp_path / "pipe")
