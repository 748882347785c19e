"""Puts drains on the queue. When the broker does not take them, everything waits a moment and then one is tried."""

import time
from collections.abc import Callable

import dramatiq
import structlog

from relay.errors import NotConnected
from relay.metrics import SchedulerMetrics
from relay.models import Drain
from relay.queues import enqueue_drain, enqueue_maintenance

log = structlog.get_logger(__name__)

PAUSE_SECONDS = 1.0


class Dispatch:
    """The scheduler's side of the broker."""

    trouble: str | None = None
    """Why the broker does not take drains; None if it does, as far as is known."""
    paused_until = 0.0
    """`time.monotonic()` seconds: emit nothing before."""

    def __init__(self, broker: dramatiq.Broker, metrics: SchedulerMetrics) -> None:
        self._broker = broker
        self._metrics = metrics

    def emit(self, drain: Drain) -> bool:
        """Whether the queue has taken the drain. If not, it may have it even so, and is paused."""
        return self._put(lambda: enqueue_drain(self._broker, drain))

    def maintain(self, max_age_seconds: float) -> bool:
        """Whether the queue has taken the maintenance. If not, the next turn will do."""
        return self._put(lambda: enqueue_maintenance(self._broker, max_age_seconds))

    def _put(self, enqueue: Callable[[], None]) -> bool:
        try:
            enqueue()
        except NotConnected as error:
            log.error("broker does not take drains", reason=str(error), retry_in_seconds=PAUSE_SECONDS)
            self._metrics.broker_errors.labels(error.code).inc()
            self.trouble = str(error)
            self.paused_until = time.monotonic() + PAUSE_SECONDS
            return False
        if self.trouble:
            log.info("broker takes drains again")
            self.trouble = None
        return True
