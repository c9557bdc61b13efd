"""Detects a collapsed network: its loss stays at that of guessing, or of saturated scores."""

import dataclasses
import math
from collections.abc import Iterable

PATIENCE = 300  # iterations
TOLERANCE = 0.01  # of the loss
OFFSET = 1e-4  # as in losses.smoothed_cross_entropy
SMOOTHING = 0.01


def state(fit: float, acc: float, num_classes: int) -> str | None:
    """Returns the collapsed state that a batch's loss shows: "guessing", "saturated" or None.

    Guessing: all scores are equal, and the loss is -log(1 / classes + 1e-4), a little below
    log(classes). Saturated: every image gets one class with probability 1. The loss is then
    -log(1e-4) for a wrong image and nearly 0 for a right one, so it depends on the accuracy.

    Args:
        fit: the batch's mean loss.
        acc: the fraction of the batch that is classified correctly.
        num_classes: number of classes.
    """
    low, high = -math.log(1 / num_classes + OFFSET), math.log(num_classes)
    if low - TOLERANCE <= fit <= high + TOLERANCE:
        return "guessing"
    # the smoothed target gives each other class its share of the loss too
    share = SMOOTHING / num_classes
    wrong, right = -math.log(OFFSET) * (1 - share), -math.log(OFFSET) * (SMOOTHING - share)
    return "saturated" if abs(fit - (1 - acc) * wrong - acc * right) <= TOLERANCE else None


@dataclasses.dataclass
class Watch:
    """Follows a run's losses and notices a collapse.

    Attributes:
        num_classes: number of classes.
        count: number of iterations that the run has been in ``current`` so far.
        current: its state.
        collapsed: None, or for the first collapse ``{"iteration", "state", "until"}``: the
            iteration at which it was noticed, the state, and the last iteration of the collapse,
            which is None while it continues.
    """

    num_classes: int
    count: int = 0
    current: str | None = None
    collapsed: dict | None = None

    def update(self, iteration: int, course: Iterable[tuple[float, float]]) -> dict | None:
        """Takes loss and accuracy of consecutive iterations, of which ``iteration`` is the first.

        Returns the collapse's iteration and state, if it has just been found, for the first time.
        """
        found: dict | None = None
        for i, (fit, acc) in enumerate(course, start=iteration):
            now = state(fit, acc, self.num_classes)
            if self.collapsed and self.collapsed["until"] is None and now is None:
                self.collapsed = self.collapsed | {"until": i - 1}
            self.count = self.count + 1 if now and now == self.current else int(now is not None)
            self.current = now
            if self.count == PATIENCE and self.collapsed:  # it has collapsed again
                self.collapsed = self.collapsed | {"until": None}
            elif self.count == PATIENCE:
                found = {"iteration": i, "state": now}
                self.collapsed = found | {"until": None}
        return found

    def memory(self) -> dict:
        """Returns what a checkpoint keeps; `Watch(num_classes, **memory)` continues from it."""
        return {"count": self.count, "current": self.current, "collapsed": self.collapsed}
