"""How long a job that failed waits for its next attempt. Pure."""

import json
import math
import random
from collections.abc import Callable, Sequence
from typing import Any

Backoff = float | Sequence[float] | Callable[[int], float]
"""Seconds after every attempt; after the first, the second ... (the last one repeats); or a function of the attempt."""

FIRST_SECONDS = 2.0
MOST_SECONDS = 900.0
JITTER = 0.2
"""A pause is this share longer or shorter, at random: jobs that failed together do not come back together."""
SHORTEST_SNOOZE_SECONDS = 1.0
"""A snooze counts as no attempt, so nothing else would end a handler that asks for none: it would run without pause."""
LONGEST_SECONDS = 10 * 366 * 86_400.0
"""What a handler or a job may ask for."""


def pause_seconds(attempt: int, backoff: Backoff | None = None, *, draw: Callable[[], float] = random.random) -> float:
    """The pause after an attempt, which count from 1. `draw` gives numbers from 0 to 1."""
    return bounded(_base(attempt, backoff) * (1 + JITTER * (2 * draw() - 1)))


def bounded(seconds: float) -> float:
    """A pause that PostgreSQL can add to a time. Raises ValueError for NaN."""
    if math.isnan(seconds):
        raise ValueError("a pause is a number of seconds, and not NaN")
    return min(max(0.0, seconds), LONGEST_SECONDS)


def of_options(options: str | None) -> Backoff | None:
    """The backoff that a job has in its own options, a JSON object; None if there is none that can be used."""
    found: Any = json.loads(options).get("backoff") if options else None
    several = found if isinstance(found, list) else [found]
    are_seconds = all(isinstance(each, int | float) and not isinstance(each, bool) for each in several)
    return found if several and are_seconds else None


def _base(attempt: int, backoff: Backoff | None) -> float:
    if backoff is None:
        return min(FIRST_SECONDS * 2.0 ** min(attempt - 1, 20), MOST_SECONDS)
    if callable(backoff):
        return float(backoff(attempt))
    if isinstance(backoff, Sequence):
        return float(backoff[min(attempt, len(backoff)) - 1])
    return float(backoff)
