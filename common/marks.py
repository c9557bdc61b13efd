"""What a weight is for, marked on the weight: names are the user's to choose."""

import keras

ROTATION = "rotation"  # turns a layer's neurons
NEURONS = "fix"  # the neurons as they were drawn


def mark(weight: keras.Variable, purpose: str) -> keras.Variable:
    """Returns ``weight``, marked as `ROTATION` or `NEURONS`.

    The layers mark their own weights. Whoever gives `OGD` a rotation of another layer marks it
    first.
    """
    if purpose not in (ROTATION, NEURONS):
        raise ValueError(f"a weight is marked as {ROTATION!r} or {NEURONS!r}, not {purpose!r}")
    weight.opt_purpose = purpose
    return weight


def purpose_of(weight: keras.Variable) -> str | None:
    """Returns what ``weight`` is marked as, or None."""
    return getattr(weight, "opt_purpose", None)
