"""What is due in a run, and when: a pure function of the run's settings."""

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
        """How many iterations of the run are done after the chunk."""
        return self.start + self.count

    @property
    def last(self) -> int:
        """The last iteration."""
        return self.end - 1


@dataclasses.dataclass(frozen=True)
class Schedule:
    """What is due after which iteration.

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
        while start < self.iterations:
            count = 1
            while not self._is_event(start + count - 1, done) and count < self.per_call:
                count += 1
            yield self._chunk(start, count)
            start += count

    def _is_event(self, iteration: int, first: int) -> bool:
        due = self._is_logged(iteration) or self._is_tested(iteration) or self._is_saved(iteration)
        return due or iteration == first

    def _chunk(self, start: int, count: int) -> Chunk:
        last, length = start + count - 1, self._length()
        episode, inside = divmod(last, length)
        heading = f"episode_{episode}====" if self.episode_length else ""
        whole_episode = self.episode_length and self._ends(last)
        test = f"episode_{episode}" if whole_episode else f"{heading}iter_{inside}"
        return Chunk(
            start,
            count,
            episode=start // length if start % length == 0 else None,
            log=f"{heading}iter_{inside}" if self._is_logged(last) else None,
            test=test if self._is_tested(last) else None,
            save=self._is_saved(last),
        )

    def _length(self) -> int:
        return self.episode_length or self.iterations

    def _ends(self, iteration: int) -> bool:
        """Returns whether an episode or the run ends with this iteration."""
        return (iteration + 1) % self._length() == 0 or iteration == self.iterations - 1

    def _is_logged(self, iteration: int) -> bool:
        inside = iteration % self._length()
        return inside > 0 and inside % self.log_every == 0

    def _is_tested(self, iteration: int) -> bool:
        inside = iteration % self._length()
        return (inside > 0 and inside % self.eval_every == 0) or self._ends(iteration)

    def _is_saved(self, iteration: int) -> bool:
        return (iteration + 1) % self.checkpoint_every == 0 or iteration == self.iterations - 1
