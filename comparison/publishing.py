"""A table and its images in a Markdown file: put between two marks, written anew each time."""

import pathlib


def marks(name: str) -> tuple[str, str]:
    """Returns the lines between which the table called ``name`` stands."""
    return f"<!-- {name}: begin -->", f"<!-- {name}: end -->"


def put(markdown: pathlib.Path, name: str, lines: list[str]) -> None:
    """Replaces what stands between the marks by ``lines``."""
    begin, end = marks(name)
    before, rest = markdown.read_text("utf-8").split(begin)
    after = rest.split(end)[1]
    markdown.write_text("\n".join([before + begin, *lines, end + after]), "utf-8")
    print(f"written: {markdown.absolute()}")


def keep(markdown: pathlib.Path, image: pathlib.Path, name: str, alt: str) -> str:
    """Copies an image to where ``markdown`` can show it, and returns the line that does so.

    Images lie in docs/: in the file's own folder if that is docs/, else in docs/ beside the file.

    Args:
        markdown: the file that will show the image.
        image: where it is now.
        name: of the copy, such as ``steps.png``.
        alt: the text in its place.
    """
    folder = markdown.absolute().parent
    inside = folder.name == "docs"
    kept = (folder if inside else folder / "docs") / name
    kept.parent.mkdir(exist_ok=True)
    kept.write_bytes(image.read_bytes())  # it may be there already
    print(f"written: {kept}")
    return f"![{alt}]({'' if inside else 'docs/'}{name})"
