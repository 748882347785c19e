"""Deadlines on the monotonic clock, in seconds: every call to a server ends at one."""

import time

_MOMENT_SECONDS = 0.01


def in_ms(timeout_ms: float) -> float:
    """The deadline that lies so many milliseconds ahead."""
    return time.monotonic() + timeout_ms / 1000


def left(deadline: float) -> float:
    """Seconds until then, for a client. Never 0, which means "do not wait" to some and "wait without end" to others."""
    return max(_MOMENT_SECONDS, deadline - time.monotonic())


def is_over(deadline: float) -> bool:
    return time.monotonic() >= deadline
