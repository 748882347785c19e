"""A cache of results for texts that come again and again, such as the names of headers.

`functools.lru_cache` bounds how many it keeps, not how long they are: 4,096 keys of a megabyte are 4 GB. A text that is
longer than names are is worked out each time.
"""

from collections.abc import Callable
from functools import lru_cache, wraps
from typing import TypeVar

LONGEST = 512

T = TypeVar("T", str, bytes)
R = TypeVar("R")


def cached_if_short(function: Callable[[T], R], *, size: int = 4096) -> Callable[[T], R]:
    """The function, with a cache of that many results. It must depend on nothing but its argument."""
    cached = lru_cache(size)(function)

    @wraps(function)
    def call(text: T) -> R:
        return cached(text) if len(text) <= LONGEST else function(text)

    return call
