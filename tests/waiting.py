"""Waiting for something to become true: the only way in which a test waits."""

import time
from collections.abc import Callable
from typing import TypeVar

import pytest

T = TypeVar("T")


def wait_until(predicate: Callable[[], T], timeout_seconds: float = 30, what: str = "") -> T:
    """Asks again and again, and returns the first answer that is true.

    Fails the test when there is none in `timeout_seconds`, saying `what` was waited for and the last answer.
    An error in the predicate is the test's error: it is not waited out.
    """
    deadline = time.monotonic() + timeout_seconds
    pause_seconds = 0.002
    while not (answer := predicate()):
        if time.monotonic() > deadline:
            name = what or getattr(predicate, "__name__", repr(predicate))
            pytest.fail(f"waited {timeout_seconds:g} s in vain until {name}; the last answer was {answer!r}")
        time.sleep(pause_seconds)
        pause_seconds = min(pause_seconds * 1.5, 0.05)
    return answer
