"""The life of a drain: begin, drain in its direction, end. Whatever happens in between, the owner is told."""

import time

import structlog

from relay.database.connection import database_errors
from relay.drains import lease as ownership
from relay.drains.lease import DrainResult, Lease
from relay.errors import ConfigError, Fenced, MigrationError, NotConnected, RelayError
from relay.models import Drain
from relay.process.metrics import PipelineLabels, worker_metrics
from workers import forward, reverse
from workers.resources import Resources

log = structlog.get_logger(__name__)

DIRECTIONS = {"forward": forward.drain, "reverse": reverse.drain}


class WrongSchema(Exception):
    """The schema is one that this version cannot work with: the process must touch nothing more, and end."""


def run(resources: Resources, drain: Drain) -> None:
    """Drains a pipeline once, if the drain is neither stale nor a duplicate. Raises WrongSchema, or bugs."""
    with structlog.contextvars.bound_contextvars(pipeline=drain.pipeline, epoch=drain.epoch, drain=drain.number):
        try:
            _run(resources, drain)
        except Fenced as error:
            log.warning("drain fenced", reason=str(error))
        except RelayError as error:
            # Before begin or after every try to end it: the scheduler finds the lease run out, and emits anew.
            log.error("drain given up", reason=str(error))


def _run(resources: Resources, drain: Drain) -> None:
    asked_at = time.monotonic()
    with database_errors(), resources.pool.connection() as connection:
        try:
            resources.schema.look(connection)
        except MigrationError as error:
            raise WrongSchema(str(error)) from error
        begun = ownership.begin(connection, drain)
        if begun is None:
            worker_metrics().stale_drains.labels(drain.pipeline).inc()
            return
        backend = begun.config.get("sink_type") or begun.config.get("source_type")
        labels = PipelineLabels(drain.pipeline, begun.direction, str(backend))
        lease = Lease(drain, drain.lease_ms / 1000, asked_at)
        try:
            ended = DIRECTIONS[begun.direction](resources, connection, lease, begun)
            ownership.end(connection, drain, ended)
            _count(labels, ended)
            return
        except Fenced:
            worker_metrics().drains.labels(*labels, "fenced").inc()
            raise
        except NotConnected as error:
            # PostgreSQL: a sink's trouble is in the value of `drain`.
            log.warning("database lost during a drain", reason=str(error))
            # Cut off in the middle of something, it would fail once more on its way back to the pool.
            connection.close()
            ended = ownership.failed(begun.failures, f"database_{error.code}", str(error))
        except (ConfigError, MigrationError) as error:
            log.error("drain failed", reason=str(error))
            ended = ownership.failed(begun.failures, "config", str(error))
    _end_later(resources, lease, ended)
    _count(labels, ended)


def _count(labels: PipelineLabels, ended: DrainResult) -> None:
    worker_metrics().drains.labels(*labels, ended.outcome).inc()
    if ended.error_code:
        worker_metrics().failures.labels(*labels, ended.error_code).inc()


def _end_later(resources: Resources, lease: Lease, ended: DrainResult) -> None:
    """Ends a drain whose connection was lost, so that its pipeline need not wait for the lease to run out."""
    pause_seconds = 0.05
    while True:
        try:
            with database_errors(), resources.pool.connection() as connection:
                ownership.end(connection, lease.drain, ended)
                return
        except NotConnected:
            if resources.stop.wait(pause_seconds) or not lease.covers(0):
                raise
            pause_seconds = min(1.0, pause_seconds * 2)
