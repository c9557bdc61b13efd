"""How long a run has taken, and what for."""

import contextlib
import time
from collections.abc import Iterator


class Clock:
    """Tells how long a run has taken, and what for.

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
        """Counts the block's time as that of ``name``."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self.parts[name] += time.perf_counter() - start

    def summary(self, steps: int) -> str:
        """Returns one line with the time of each part; they add up to the total.

        Args:
            steps: how many training steps were made after the first one.
        """
        now = time.perf_counter() - self.began
        pace = f" ({1e3 * self.parts['training'] / steps:.1f} ms per step)" if steps > 0 else ""
        named = [
            f"{self.parts['first step']:.1f} s to the end of the first step",
            f"{self.parts['training']:.1f} s of training{pace}",
            f"{self.parts['tests']:.1f} s of tests",
            f"{self.parts['saving']:.1f} s of saving",
            f"{now - sum(self.parts.values()):.1f} s of anything else",
        ]
        if self.earlier:
            named.append(f"{self.earlier:.1f} s before this start")
        return f"{self.earlier + now:.1f} s: " + ", ".join(named)
