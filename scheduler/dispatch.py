"""Puts drains on the queue. When the broker does not take them, all wait a moment, and then one is tried."""

import time
from collections.abc import Callable

import dramatiq
import structlog

from relay.broker.factory import leave_sign, ping, serve
from relay.broker.queues import enqueue_drain, enqueue_maintenance
from relay.errors import NotConnected
from relay.log_limit import LogLimit
from relay.models import Drain
from relay.process.metrics.scheduler import SchedulerMetrics

log = structlog.get_logger(__name__)

PAUSE_SECONDS = 1.0


class Dispatch:
    """The scheduler's side of the broker."""

    trouble: str | None = "the broker has not been asked yet"
    """Why the broker does not take drains; None if it does, as far as is known."""
    paused_until = 0.0
    """`time.monotonic()` seconds: emit nothing before."""

    def __init__(self, broker: dramatiq.Broker, metrics: SchedulerMetrics) -> None:
        self._broker = broker
        self._metrics = metrics
        self._scheduler_id = ""
        self._told: dict[str, LogLimit] = {}
        """By code of the errors since it last answered."""

    @property
    def failure(self) -> str | None:
        """Why the broker does not take drains, as it said; None until it was asked."""
        return self.trouble if self._told else None

    def join(self, scheduler_id: str) -> None:
        """From now on the broker shows that this scheduler uses it."""
        self._scheduler_id = scheduler_id

    def serve(self, identity: str) -> None:
        """From now on, drains are of the database that has this identity. Before the first is emitted."""
        serve(self._broker, lambda: identity)

    def emit(self, drain: Drain, direction: str) -> bool:
        """Whether the queue has taken the drain. If not, it may have it nevertheless; then it is paused."""
        return self._put(lambda: enqueue_drain(self._broker, drain, direction))

    def maintain(self, max_age_seconds: float) -> bool:
        """Whether the queue has taken the maintenance. If not, the next turn will do."""
        return self._put(lambda: enqueue_maintenance(self._broker, max_age_seconds))

    def check_broker(self) -> None:
        """Asks the broker whether it is there, so that its loss is known before a drain is due."""
        if time.monotonic() < self.paused_until:
            return
        try:
            ping(self._broker)
            if self._scheduler_id:
                leave_sign(self._broker, self._scheduler_id)
        except NotConnected as error:
            self._failed(error)
        else:
            self._answered()

    def _put(self, enqueue: Callable[[], None]) -> bool:
        try:
            enqueue()
        except NotConnected as error:
            self._metrics.broker_errors.labels(error.code).inc()
            self._failed(error)
            return False
        self._answered()
        return True

    def _failed(self, error: NotConnected) -> None:
        """Each reason is logged at once, then once a minute, however often it is met before the broker answers."""
        if times := self._told.setdefault(error.code, LogLimit()).count():
            log.error("broker does not take drains", code=error.code, reason=str(error), times=times)
        self._metrics.broker_up.set(0)
        self.paused_until = time.monotonic() + PAUSE_SECONDS
        self.trouble = str(error)

    def _answered(self) -> None:
        if self._told:
            log.info("broker takes drains again")
        self._metrics.broker_up.set(1)
        self.trouble = None
        self._told.clear()
