"""A table and its images in a Markdown file: written between two marks, again each time."""

import pathlib

from common.errors import UserError
from common.training.texts import read_text


def marks(name: str) -> tuple[str, str]:
    """Returns the lines between which the table called ``name`` goes."""
    return f"<!-- {name}: begin -->", f"<!-- {name}: end -->"


def check_marks(name: str, markdown: pathlib.Path | None) -> None:
    """Raises UserError if a page is given that cannot be read, or lacks the marks of ``name``."""
    if markdown is None:
        return
    try:
        text = read_text(markdown)
    except ValueError as error:
        raise UserError(f"--readme: {error}") from error
    if not all(text.count(mark) == 1 for mark in marks(name)):
        lines = " and ".join(marks(name))
        raise UserError(f"--readme={markdown} must have the lines {lines}, each once")


def put(markdown: pathlib.Path, name: str, lines: list[str]) -> None:
    """Replaces the text between the marks by ``lines``."""
    begin, end = marks(name)
    before, rest = markdown.read_text("utf-8").split(begin)
    after = rest.split(end)[1]
    markdown.write_text("\n".join([before + begin, *lines, end + after]), "utf-8")
    print(f"written: {markdown.absolute()}")


def keep(markdown: pathlib.Path, image: pathlib.Path, name: str, alt: str) -> str:
    """Copies an image to docs/, at or next to ``markdown``, and returns the line that shows it."""
    folder = markdown.absolute().parent
    place = name if folder.name == "docs" else f"docs/{name}"
    (folder / place).parent.mkdir(exist_ok=True)
    (folder / place).write_bytes(image.read_bytes())  # it may be there already
    return f"![{alt}]({place})"
