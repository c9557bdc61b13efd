"""Decides when a run logs, tests and saves, from its settings alone."""

from collections.abc import Iterator
from typing import NamedTuple

from .settings import Settings


class Chunk(NamedTuple):
    """Training steps that the device makes in one call, and what is due after the last of them.

    ``start`` is the first iteration, counted from 0, and ``end`` the number of those that are done
    afterwards. ``episode`` is the number of the episode that begins with ``start``, if one does.
    ``log`` and ``test`` are the headings of the training line and the test line that are due, and
    ``save`` says whether a checkpoint is due.
    """

    start: int
    end: int
    episode: int | None
    log: str | None
    test: str | None
    save: bool


def chunks(
    settings: Settings, done: int = 0, episode_length: int | None = None, per_call: int = 1
) -> Iterator[Chunk]:
    """Yields the chunks of a run after those iterations that are ``done``.

    As in the original, iterations count from 0, and each episode starts at 0 again. Iteration 0 is
    neither logged nor tested. There is a test at the end of each episode and of the run.

    A chunk has at most ``per_call`` iterations. The first one is a single iteration, so that its
    time, which includes the compilation, can be measured separately.
    """
    iterations = settings.iterations
    start, length = done, episode_length or iterations
    for last in range(done, iterations):
        episode, inside = divmod(last, length)
        name = f"episode_{episode}" if episode_length else ""
        heading = f"{name}====iter_{inside}" if name else f"iter_{inside}"
        log = heading if inside and inside % settings.log_every == 0 else None
        test = heading if inside and inside % settings.eval_every == 0 else None
        if inside == length - 1 or last == iterations - 1:
            test = name or heading
        save = (last + 1) % settings.checkpoint_every == 0 or last == iterations - 1
        if log or test or save or last == done or last + 1 - start == per_call:
            begins = start // length if start % length == 0 else None
            yield Chunk(start, last + 1, begins, log, test, save)
            start = last + 1
