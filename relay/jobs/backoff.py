"""How long a job that failed waits for its next attempt. Pure."""

import random
from collections.abc import Callable, Sequence

Backoff = float | Sequence[float] | Callable[[int], float]
"""Seconds after every attempt; after the first, the second ... (the last one repeats); or a function of the attempt."""

FIRST_SECONDS = 2.0
MOST_SECONDS = 900.0
JITTER = 0.2
"""A pause is this share longer or shorter, at random: jobs that failed together do not come back together."""


def pause_seconds(attempt: int, backoff: Backoff | None = None, *, draw: Callable[[], float] = random.random) -> float:
    """The pause after an attempt, which count from 1. `draw` gives numbers from 0 to 1."""
    return max(0.0, _base(attempt, backoff) * (1 + JITTER * (2 * draw() - 1)))


def _base(attempt: int, backoff: Backoff | None) -> float:
    if backoff is None:
        return min(FIRST_SECONDS * 2.0 ** min(attempt - 1, 20), MOST_SECONDS)
    if callable(backoff):
        return float(backoff(attempt))
    if isinstance(backoff, Sequence):
        return float(backoff[min(attempt, len(backoff)) - 1])
    return float(backoff)
