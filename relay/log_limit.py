"""Log lines that others can cause: at most one a minute, with how often it happened since the last."""

import threading
import time
from collections import OrderedDict
from collections.abc import Hashable

INTERVAL_SECONDS = 60.0


class LogLimit:
    """Says when a line is due. Thread-safe enough: a count may be one short."""

    def __init__(self, interval_seconds: float = INTERVAL_SECONDS) -> None:
        self._interval_seconds = interval_seconds
        self._due_at = 0.0
        self._count = 0

    def count(self, times: int = 1) -> int:
        """Counts; returns how often since the last line if one is due now, else 0. The first line is due at once."""
        self._count += times
        now = time.monotonic()
        if now < self._due_at:
            return 0
        counted, self._count, self._due_at = self._count, 0, now + self._interval_seconds
        return counted


class LogLimits:
    """One for each of the things that happen again and again, such as the failure of a pipeline: of the latest ones."""

    def __init__(self, most: int = 1_000) -> None:
        self._most = most
        self._limits: OrderedDict[Hashable, LogLimit] = OrderedDict()
        self._lock = threading.Lock()

    def count(self, what: Hashable) -> int:
        """See `LogLimit.count`."""
        with self._lock:
            limit = self._limits.pop(what, None) or LogLimit()
            self._limits[what] = limit
            if len(self._limits) > self._most:
                self._limits.popitem(last=False)
            return limit.count()
