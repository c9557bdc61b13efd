"""Measures how long the parts of a run take."""

import contextlib
import time
from collections.abc import Iterator


class Clock:
    """Measures how long the parts of a run take.

    Args:
        earlier: seconds that the run took before it was interrupted.
    """

    def __init__(self, earlier: float = 0.0):
        self.earlier, self.began = earlier, time.perf_counter()
        self.parts = dict.fromkeys(("first step", "training", "tests", "saving"), 0.0)

    def seconds(self) -> float:
        """Returns how long the run has taken so far, without the time between two starts."""
        return round(self.earlier + time.perf_counter() - self.began, 3)

    @contextlib.contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Adds the block's time to that of the part ``name``."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self.parts[name] += time.perf_counter() - start

    def summary(self, steps: int) -> str:
        """Returns a line with the time of each part; ``steps``: their number after the first."""
        now = time.perf_counter() - self.began
        pace = f" ({1e3 * self.parts['training'] / steps:.1f} ms per step)" if steps > 0 else ""
        first, training, tests, saving = self.parts.values()
        text = f"{self.earlier + now:.1f} s: {first:.1f} s to the end of the first step, "
        text += f"{training:.1f} s of training{pace}, {tests:.1f} s of tests, "
        text += f"{saving:.1f} s of saving, {now - sum(self.parts.values()):.1f} s of anything else"
        return text + (f", {self.earlier:.1f} s before this start" if self.earlier else "")
