"""The progress bar of a run, and of a comparison's runs."""

import sys

from tqdm import tqdm


def progress_bar(title: str, total: int, done: int) -> tqdm:
    """Returns a bar of ``total`` iterations: it moves in a terminal, and is short in a log file."""
    interval = 0.2 if sys.stderr.isatty() else 30  # seconds between two lines
    # without miniters tqdm starts a thread that draws more often
    options = {"mininterval": interval, "miniters": 1, "dynamic_ncols": True}
    return tqdm(desc=title, total=total, initial=done, unit="it", **options)
