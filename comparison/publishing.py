"""A table and its images in a Markdown file: written between two marks, again each time."""

import pathlib


def marks(name: str) -> tuple[str, str]:
    """Returns the lines between which the table called ``name`` goes."""
    return f"<!-- {name}: begin -->", f"<!-- {name}: end -->"


def put(markdown: pathlib.Path, name: str, lines: list[str]) -> None:
    """Replaces the text between the marks by ``lines``."""
    begin, end = marks(name)
    before, rest = markdown.read_text("utf-8").split(begin)
    after = rest.split(end)[1]
    markdown.write_text("\n".join([before + begin, *lines, end + after]), "utf-8")
    print(f"written: {markdown.absolute()}")


def keep(markdown: pathlib.Path, image: pathlib.Path, name: str, alt: str) -> str:
    """Copies an image into docs/ as ``name``, and returns the line by which ``markdown`` shows it.

    docs/ is the file's own folder if that has this name, else a folder next to the file.
    """
    folder = markdown.absolute().parent
    inside = folder.name == "docs"
    kept = (folder if inside else folder / "docs") / name
    kept.parent.mkdir(exist_ok=True)
    kept.write_bytes(image.read_bytes())  # it may be there already
    print(f"written: {kept}")
    return f"![{alt}]({'' if inside else 'docs/'}{name})"
