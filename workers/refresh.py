"""The drain of a stream table: one refresh."""

import psycopg
import structlog

from relay.database.connection import custom_plans, pooled
from relay.drains.fence import FencedSession
from relay.drains.lease import DrainResult, failed
from relay.drains.refresh import Overtaken, kept, record_failure, refresh
from relay.errors import NotConnected
from relay.pipelines.streams import parse_stream
from relay.reasons import reason_of
from workers.resources import Resources

log = structlog.get_logger(__name__)

RENEW_SECONDS = 2.0
"""How long the renewal of a lease waits for a session."""


def drain(resources: Resources, session: FencedSession) -> DrainResult:
    """Refreshes once. Raises Fenced, NotConnected, ConfigError; a query that PostgreSQL refused is in the value."""
    config = parse_stream(session.start.config)
    session.lease.seconds = config.visibility_timeout_ms / 1000
    # sqlglot is large: only a worker that refreshes stream tables reads it.
    from relay.drains.stream_plans import prepare, prepare_change

    try:
        with custom_plans(session.connection), kept(session, lambda: pooled(resources.pool, RENEW_SECONDS)):
            prepare(session)
            done = refresh(session)
            if done.missing:
                prepare_change(session, done.missing)
    except Overtaken:
        return DrainResult("again")
    except psycopg.OperationalError as error:
        if session.connection.closed:
            raise NotConnected(f"PostgreSQL: {reason_of(error)}") from error
        return _refused(session, error)
    except psycopg.Error as error:
        return _refused(session, error)
    if done.action != "NO_DATA":
        log.debug(
            "stream table refreshed",
            action=done.action,
            inserted=done.rows_inserted,
            updated=done.rows_updated,
            deleted=done.rows_deleted,
        )
    return DrainResult("idle", progressed=done.action != "NO_DATA")


def _refused(session: FencedSession, error: psycopg.Error) -> DrainResult:
    """PostgreSQL refused the query: it is retried, and suspended after three times in a row."""
    reason = reason_of(error)
    suspended = record_failure(session, reason)
    log.error("refresh failed", reason=reason, suspended=suspended)
    return failed(session.start.failures, "refresh", reason, needs_operator=suspended)
