"""Reads and shows text of files that others may have written."""

import os
import pathlib

LIMIT = 2**24  # bytes; a run's files are far smaller


def read_text(path: pathlib.Path) -> str:
    """Returns the text of a regular file in UTF-8.

    Raises:
        ValueError: if it is missing, a pipe, too large, not UTF-8, or cannot be read.
    """
    if not os.path.isfile(path):  # Path.is_file raises for a name that is too long
        raise ValueError(f"{path.name} is not a file")
    try:
        with path.open("rb") as file:
            content = file.read(LIMIT + 1)
        if len(content) > LIMIT:
            raise ValueError(f"{path.name} has more than {LIMIT:,} bytes")
        return content.decode("utf-8-sig")
    except OSError as error:
        raise ValueError(f"{path.name} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ValueError(f"{path.name} is not UTF-8") from error


def shown(text: object, most: int = 500) -> str:
    """Returns text in one line for a terminal or a table: printable, ``most`` characters at most.

    Others, such as ends of lines and what a terminal obeys, become escapes such as ``\\x1b``.
    """
    start = str(text)[: most + 1]
    line = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in start)
    return line if len(line) <= most else line[: most - 4] + " ..."
