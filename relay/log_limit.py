"""Log lines that others can cause: at most one a minute, with how often it happened since the last."""

import time

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
