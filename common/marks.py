"""Marks on weights: the purpose of a weight does not depend on its name."""

import keras

ROTATION = "rotation"  # rotates a layer's neurons
NEURONS = "fix"  # the neurons as they were drawn


def mark(weight: keras.Variable, purpose: str) -> keras.Variable:
    """Returns ``weight``, marked as `ROTATION` or `NEURONS`.

    To train a rotation of a layer that is no OPT layer with `OGD`, mark it first.

    Raises:
        ValueError: for any other purpose.
    """
    if purpose not in (ROTATION, NEURONS):
        raise ValueError(f"a weight is marked as {ROTATION!r} or {NEURONS!r}, not {purpose!r}")
    weight.opt_purpose = purpose
    return weight


def purpose_of(weight: keras.Variable) -> str | None:
    """Returns the mark of ``weight``, or None."""
    return getattr(weight, "opt_purpose", None)
