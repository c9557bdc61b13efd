"""Detects a collapsed network: its loss stays at that of guessing, or of saturated scores."""

import math
from collections.abc import Sequence

PATIENCE = 300  # iterations
TOLERANCE = 0.01  # of the loss
OFFSET = 1e-4  # as in losses.smoothed_cross_entropy
SMOOTHING = 0.01


def state(fit: float, acc: float, num_classes: int) -> str | None:
    """Returns the collapsed state that a batch's mean loss ``fit`` and accuracy ``acc`` show.

    "guessing": all scores are equal, and the loss is -log(1 / classes + 1e-4), a little below
    log(classes). "saturated": every image gets one class with probability 1. The loss is then
    -log(1e-4) for a wrong image and nearly 0 for a right one. Otherwise None.
    """
    low, high = -math.log(1 / num_classes + OFFSET), math.log(num_classes)
    if low - TOLERANCE <= fit <= high + TOLERANCE:
        return "guessing"
    # the smoothed target gives each other class its share of the loss too
    share = SMOOTHING / num_classes
    wrong, right = -math.log(OFFSET) * (1 - share), -math.log(OFFSET) * (SMOOTHING - share)
    is_saturated = abs(fit - (1 - acc) * wrong - acc * right) <= TOLERANCE
    # a network that has learned the training images has this loss too
    return "saturated" if is_saturated and acc < 3 / 4 else None


def of_run(rows: Sequence[dict[str, float]], num_classes: int) -> str | None:
    """Returns the state that all ``rows`` with fit of the last `PATIENCE` iterations show."""
    logged = [row for row in rows if "fit" in row]
    last = [row for row in logged if row["iteration"] > logged[-1]["iteration"] - PATIENCE]
    states = {state(row["fit"], row["acc"], num_classes) for row in last}
    return states.pop() if len(states) == 1 else None
