"""Text of files that others may have written is read with limits and shown without escapes."""

import os

import pytest

from common.training import texts


def test_shown_text_is_one_printable_line():
    assert texts.shown("Löwdin's ± 中文 <b>") == "Löwdin's ± 中文 <b>"
    # an escape sequence, an end of line, a change of direction, half a character
    assert texts.shown("a\x1b[2Jb\nc\u202ed\ud800") == r"a\x1b[2Jb\nc\u202ed\ud800"
    assert texts.shown("a" * 501) == "a" * 496 + " ..."
    assert len(texts.shown("\x1b" * 400)) == 500
    assert texts.shown(None) == "None"


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
