"""The drain of a stream table, or of a group: one refresh."""

import psycopg
import structlog

from relay.database.connection import pooled
from relay.drains.fallbacks import fallback
from relay.drains.fence import FencedSession
from relay.drains.lease import DrainResult, failed
from relay.drains.refresh import Overtaken, Refreshed, RefreshFailed, hand_over, kept, record_failure, refresh
from relay.errors import NotConnected
from relay.pipelines.streams import parse_stream, stream_table_of
from relay.process.metrics.workers import worker_metrics
from relay.reasons import reason_of
from workers.resources import Resources

log = structlog.get_logger(__name__)

RENEW_SECONDS = 2.0
"""How long the renewal of a lease waits for a session."""


def drain(resources: Resources, session: FencedSession) -> DrainResult:
    """Refreshes once. Raises Fenced, NotConnected, ConfigError; a query that PostgreSQL refused is in the value."""
    config = parse_stream(session.start.config)
    if config.part_of:
        return DrainResult("idle")  # another pipeline refreshes it now
    session.lease.seconds = config.visibility_timeout_ms / 1000
    # sqlglot is large: only a worker that refreshes stream tables reads it.
    from relay.drains.stream_plans import prepare, prepare_change

    pipelines = config.members or (session.lease.drain.pipeline,)
    pipeline = pipelines[0]
    try:
        with kept(session, lambda: pooled(resources.pool, RENEW_SECONDS)):
            for pipeline in pipelines:
                prepare(session.of_stream(pipeline))
            done = refresh(session, config.members)
            for pipeline, one in done.items():
                if one.missing:
                    prepare_change(session.of_stream(pipeline), one.missing)
            if config.immediate:
                hand_over(session)
    except Overtaken:
        return DrainResult("again")
    except RefreshFailed as error:
        return _refused(session, error.pipeline, error.__cause__ or error)
    except psycopg.Error as error:
        if session.connection.closed:
            raise NotConnected(f"PostgreSQL: {reason_of(error)}") from error
        return _refused(session, pipeline, error)
    changed = {pipeline: one for pipeline, one in done.items() if one.action != "NO_DATA"}
    for pipeline, one in changed.items():
        _measure(stream_table_of(pipeline), one)
        log.debug(
            "stream table refreshed",
            stream=pipeline,
            action=one.action,
            inserted=one.rows_inserted,
            updated=one.rows_updated,
            deleted=one.rows_deleted,
        )
    return DrainResult("idle", progressed=bool(changed))


def _measure(stream_table: str, done: Refreshed) -> None:
    metrics = worker_metrics()
    metrics.stream_refresh_seconds.labels(stream_table, done.strategy).observe(done.seconds)
    rows = {"inserted": done.rows_inserted, "updated": done.rows_updated, "deleted": done.rows_deleted}
    for change, number in rows.items():
        metrics.stream_rows.labels(stream_table, change).inc(number or 0)
    if done.action == "FULL" and (why := fallback(done.reason or "")):
        metrics.stream_fallbacks.labels(stream_table, why).inc()


def _refused(session: FencedSession, pipeline: str, error: BaseException) -> DrainResult:
    """PostgreSQL refused the query: it is retried, and suspended after three times in a row."""
    reason = reason_of(error)
    suspended = record_failure(session.of_stream(pipeline), reason)
    log.error("refresh failed", stream=pipeline, reason=reason, suspended=suspended)
    if pipeline != session.lease.drain.pipeline:
        reason = f"{pipeline.removeprefix('streams.')}: {reason}"
    return failed(session.start.failures, "refresh", reason, needs_operator=suspended)
