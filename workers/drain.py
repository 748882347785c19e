"""The life of a drain: begin, drain in its direction, end. Whatever happens in between, the owner is notified."""

import time

import structlog

from relay.database.connection import Connection, database_errors, pooled
from relay.drains.fence import FencedSession, end
from relay.drains.lease import DrainResult, DrainStart, Lease, begin, failed
from relay.errors import ConfigError, Fenced, MigrationError, NotConnected, RelayError
from relay.log_limit import LogLimits
from relay.models import Drain
from relay.process.metrics import PipelineLabels
from relay.process.metrics.workers import worker_metrics
from relay.process.unforeseen import INTERNAL, described, log_bug
from workers import forward, refresh, reverse
from workers.jobs.drain import hand_over
from workers.resources import Resources

log = structlog.get_logger(__name__)

_failures = LogLimits()

DIRECTIONS = {"forward": forward.drain, "reverse": reverse.drain, "stream": refresh.drain}


class WrongSchema(Exception):
    """This version cannot work with the schema of the database: the process must touch nothing more, and end."""


def run(resources: Resources, drain: Drain) -> None:
    """Drains a pipeline once, if the drain is neither stale nor a duplicate. Raises WrongSchema."""
    with structlog.contextvars.bound_contextvars(pipeline=drain.pipeline, epoch=drain.epoch, drain=drain.number):
        try:
            _run(resources, drain)
        except Fenced as error:
            log.warning("drain fenced", reason=str(error))
        except RelayError as error:
            # Before begin or after every try to end it: the scheduler sees that the lease ran out, and emits the next.
            log.error("drain abandoned", reason=str(error))


def _run(resources: Resources, drain: Drain) -> None:
    asked_at = time.monotonic()
    with database_errors(), pooled(resources.pool) as connection:
        try:
            resources.schema.check(connection)
        except MigrationError as error:
            raise WrongSchema(str(error)) from error
        start = begin(connection, drain, resources.guesses.pop(drain.pipeline, None))
        if start is None:
            worker_metrics().count_stale(drain.pipeline)
            return
        backend = start.config.get("sink_type") or start.config.get("source_type") or start.direction
        labels = PipelineLabels(drain.pipeline, start.direction, str(backend))
        lease = Lease(drain, drain.lease_ms / 1000, asked_at)
        try:
            if start.direction == "jobs":
                later = hand_over(resources.jobs, drain, start)
                if later is None:
                    return  # the engine ends it
                result = later
            else:
                result = DIRECTIONS[start.direction](resources, FencedSession(connection, lease, start))
            end(connection, drain, result)
            _count(labels, result)
            return
        except Fenced:
            worker_metrics().drains.labels(*labels, "fenced").inc()
            raise
        except Exception as error:  # noqa: BLE001  no bug may cost the drain its end: its pipeline would wait for the lease
            result = _failed(drain.pipeline, start, connection, error)
    _end_later(resources, lease, result)
    _count(labels, result)


def _failed(pipeline: str, start: DrainStart, connection: Connection, error: Exception) -> DrainResult:
    """The result of a drain that raised. A sink's trouble is no error here, but in the value of `drain`."""
    if isinstance(error, ConfigError | MigrationError):
        # A pipeline is retried until someone acts: the log needs its reason, and that it lasts, but not each time.
        if times := _failures.count((pipeline, str(error))):
            log.error("drain failed; it is retried until someone acts", reason=str(error), times=times)
        return failed(start.failures, "config", str(error), needs_operator=True)
    # Cut off in the middle of something, it would fail once more on its way back to the pool.
    connection.close()
    if isinstance(error, NotConnected):
        log.warning("database lost during a drain", reason=str(error))
        return failed(start.failures, f"database_{error.code}", str(error))
    log_bug("bug in a drain", error)
    return failed(start.failures, INTERNAL, described(error))


def _count(labels: PipelineLabels, result: DrainResult) -> None:
    worker_metrics().drains.labels(*labels, result.outcome).inc()
    if result.error_code:
        worker_metrics().failures.labels(*labels, result.error_code).inc()


def _end_later(resources: Resources, lease: Lease, result: DrainResult) -> None:
    """Ends a drain whose connection was lost, so that its pipeline does not wait for the lease to run out."""
    pause_seconds = 0.05
    while True:
        try:
            with database_errors(), pooled(resources.pool) as connection:
                end(connection, lease.drain, result)
                return
        except NotConnected:
            if resources.stop.wait(pause_seconds) or not lease.covers(0):
                raise
            pause_seconds = min(1.0, pause_seconds * 2)
