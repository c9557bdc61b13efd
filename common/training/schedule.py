"""Decides when a run logs, tests and saves, from its settings alone."""

import dataclasses
from collections.abc import Iterator


@dataclasses.dataclass(frozen=True)
class Chunk:
    """Training steps that the device makes in one call, and what is due after the last of them.

    Attributes:
        start: the first iteration, counted from 0.
        count: number of iterations.
        episode: the number of the episode that begins with ``start``, if one does.
        log: the heading of the last iteration's training line, if the line is due.
        test: the heading of the test line, if a test is due.
        save: whether a checkpoint is due.
    """

    start: int
    count: int
    episode: int | None = None
    log: str | None = None
    test: str | None = None
    save: bool = False

    @property
    def end(self) -> int:
        """Returns the number of the run's iterations that are done after the chunk."""
        return self.start + self.count

    @property
    def last(self) -> int:
        return self.end - 1


@dataclasses.dataclass(frozen=True)
class Schedule:
    """Divides a run into chunks.

    As in the original, iterations count from 0, and each episode starts at 0 again. Iteration 0 is
    neither logged nor tested. There is a test at the end of each episode and of the run.

    Attributes:
        iterations: length of the run.
        log_every, eval_every, checkpoint_every: iterations between two training lines, tests,
            checkpoints.
        episode_length: number of iterations per episode, for methods that have episodes.
        per_call: the most iterations that the device makes in one call.
    """

    iterations: int
    log_every: int = 100
    eval_every: int = 500
    checkpoint_every: int = 1000
    episode_length: int | None = None
    per_call: int = 1

    def chunks(self, done: int = 0) -> Iterator[Chunk]:
        """Yields the run's chunks after ``done`` iterations.

        The first one is a single iteration, so that its time, which includes the compilation, can
        be measured separately.
        """
        start = done
        for last in range(done, self.iterations):
            chunk = self._chunk(start, last)
            due = chunk.log or chunk.test or chunk.save
            if due or last == done or chunk.count == self.per_call:
                yield chunk
                start = chunk.end

    def _chunk(self, start: int, last: int) -> Chunk:
        length = self.episode_length or self.iterations
        episode, inside = divmod(last, length)
        ends = last == self.iterations - 1 or inside == length - 1
        name = f"episode_{episode}" if self.episode_length else ""
        heading = f"{name}====iter_{inside}" if name else f"iter_{inside}"
        test = heading if inside and inside % self.eval_every == 0 else None
        return Chunk(
            start,
            last + 1 - start,
            episode=start // length if start % length == 0 else None,
            log=heading if inside and inside % self.log_every == 0 else None,
            test=name or heading if ends else test,
            save=self.saves_after(last + 1),
        )

    def saves_after(self, done: int) -> bool:
        """Returns whether a checkpoint is due after ``done`` iterations."""
        return done == self.iterations or (done > 0 and done % self.checkpoint_every == 0)
