"""Decides when a run logs, tests and saves, from its settings alone."""

from collections.abc import Iterator
from typing import NamedTuple

from .settings import Settings


class Chunk(NamedTuple):
    """Training steps that the device makes in one call, and the events after the last of them."""

    start: int  # iterations done before, and after
    end: int
    episode: int | None  # that begins with ``start``
    log: str | None  # the headings of lines to write
    test: str | None
    save: bool  # whether a checkpoint is due


def chunks(
    settings: Settings, done: int = 0, episode_length: int | None = None, per_call: int = 1
) -> Iterator[Chunk]:
    """Yields a run's chunks, of at most ``per_call`` iterations, after those that are ``done``.

    As in the original, iterations count from 0, in each episode again, iteration 0 is neither
    logged nor tested, and each episode and the run end with a test. A short episode or run logs its
    last iteration. The first chunk is a single iteration, so that its time, which includes
    the compilation, is measured separately.
    """
    iterations = settings.iterations
    start, length = done, episode_length or iterations
    log_every = min(settings.log_every, max(1, min(length, iterations) - 1))
    for last in range(done, iterations):
        episode, inside = divmod(last, length)
        name = f"episode_{episode}" if episode_length else ""
        heading = f"{name}====iter_{inside}" if name else f"iter_{inside}"
        log = heading if inside and inside % log_every == 0 else None
        test = heading if inside and inside % settings.eval_every == 0 else None
        if inside == length - 1 or last == iterations - 1:
            test = name or heading
        save = (last + 1) % settings.checkpoint_every == 0 or last == iterations - 1
        if log or test or save or last == done or last + 1 - start == per_call:
            begins = start // length if start % length == 0 else None
            yield Chunk(start, last + 1, begins, log, test, save)
            start = last + 1
