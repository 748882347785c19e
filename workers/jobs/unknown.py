"""Jobs whose handler this process does not have."""

import time
from collections import Counter

import structlog

from relay.jobs.models import Claimed, Ended
from relay.log_limit import LogLimit

log = structlog.get_logger(__name__)

LONGEST_PAUSE_SECONDS = 60.0


class Unknown:
    """Jobs that this process has no handler for are handed back, and come again later and later: in a rolling update
    new jobs meet old workers, and must not die of it."""

    def __init__(self) -> None:
        self._pauses: dict[str, tuple[float, float]] = {}
        """By name: the pause, and until when it lasts."""
        self.counts: Counter[str] = Counter()
        """Jobs by queue, since they were last taken."""
        self._due = LogLimit()

    def handed_back(self, claimed: Claimed) -> Ended:
        now = time.monotonic()
        name = claimed.name if claimed.kind == "p" else f"kind {claimed.kind}"
        pause, until = self._pauses.get(name, (0.5, 0.0))
        if now >= until:
            pause = min(LONGEST_PAUSE_SECONDS, 2 * pause)
            if len(self._pauses) > 10_000:
                self._pauses.clear()
            self._pauses[name] = (pause, now + pause)
        self.counts[claimed.queue] += 1
        if times := self._due.count():
            log.warning(
                "jobs that this worker has no handler for were handed back: run one that has it with --jobs MODULE",
                queue=claimed.queue, name=name, jobs=times, retry_in_seconds=pause,
            )  # fmt: skip
        return Ended("b", "unknown_handler", retry_seconds=pause)
