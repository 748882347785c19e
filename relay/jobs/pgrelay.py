"""The client of PgRelay, with its names: for code that was written for it.

    from relay.jobs.pgrelay import PgRelayClient

    client = PgRelayClient.from_env()
    async with session.begin():
        session.add(order)
        await client.enqueue_http(session=session, name="order.webhook", url="https://example.com/hooks")

`session` is whatever `relay.jobs` takes: of SQLAlchemy, psycopg or asyncpg. For one that blocks, `SyncPgRelayClient`
has the same calls without `await`. Nothing commits, rolls back or closes it, also when a call fails.
"""

import asyncio
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Self, Unpack
from uuid import UUID

import psycopg
import structlog
from typing_extensions import TypedDict

from relay.database.callers import Arguments, call, call_async
from relay.database.connection import VALUES
from relay.errors import BadValue
from relay.hosts import ascii_conninfo
from relay.jobs.errors import BadArguments, job_errors
from relay.jobs.options import checked, columns
from relay.jobs.sending import Kind, NewJob, enqueue_call
from relay.masking import mask
from relay.outbox.json_values import json_text
from relay.reasons import reason_of

__all__ = ["EnqueueResult", "PgRelayClient", "SyncPgRelayClient"]

CONNECT_SECONDS = 5
DATABASE_URLS = ("PGRELAY_DATABASE_URL", "RELAY_POSTGRES_URL")

log = structlog.get_logger(__name__)


class PgRelayOptions(TypedDict, total=False):
    """What both kinds of jobs take."""

    metadata: Mapping[str, Any] | None
    priority: int
    max_attempts: int
    timeout_seconds: int
    available_at: datetime | None
    idempotency_key: str | None
    dedupe_key: str | None
    trace_id: str | None


@dataclass(frozen=True, slots=True)
class EnqueueResult:
    job_id: UUID
    created: bool
    """False: the idempotency key was in use, and this is the first job with it."""
    queue_name: str
    status: str
    idempotency_key: str | None


class _Client:
    """With a URL, a queue that is missing is made on a connection of its own, never in the caller's transaction."""

    def __init__(self, database_url: str | None = None) -> None:
        self._url = ascii_conninfo((database_url or "").replace("postgresql+asyncpg://", "postgresql://", 1))
        self._known: set[str] = set()

    @classmethod
    def from_env(cls) -> Self:
        """Reads PGRELAY_DATABASE_URL, or else RELAY_POSTGRES_URL; without either, queues must exist."""
        return cls(next((os.environ[name].rstrip("\r\n") for name in DATABASE_URLS if os.environ.get(name)), None))

    def _make_queue(self, queue: str) -> None:
        if queue in self._known or not self._url:
            return
        try:
            options: dict[str, Any] = {"autocommit": True, "connect_timeout": CONNECT_SECONDS, **VALUES}
            with psycopg.connect(self._url, **options) as connection:
                connection.execute("set statement_timeout = '10s'")
                connection.execute("select tide.job_queue_create_if_not_exists(%s)", [queue])
        except psycopg.Error as error:
            # The enqueue itself says what is wrong, if anything is: the queue may well exist.
            log.warning("could not make sure that the queue exists", queue=queue, reason=mask(reason_of(error)))
        self._known.add(queue)


class PgRelayClient(_Client):
    """Enqueues in the transaction of an asynchronous session."""

    async def enqueue_handler(
        self,
        *,
        session: Any,
        name: str,
        payload: Mapping[str, Any],
        queue_name: str = "default",
        **options: Unpack[PgRelayOptions],
    ) -> EnqueueResult:
        return await self._enqueue(session, _job(queue_name, "python", name, payload, options))

    async def enqueue_http(
        self, *, session: Any, name: str, url: str, method: str = "POST",
        json_body: Mapping[str, Any] | Sequence[Any] | None = None, body_base64: str | None = None,
        http_headers: Mapping[str, str] | None = None, queue_name: str = "default", **options: Unpack[PgRelayOptions],
    ) -> EnqueueResult:  # fmt: skip
        request = _request(url, method, json_body, body_base64)
        return await self._enqueue(session, _job(queue_name, "http", name, request, options, http_headers))

    async def _enqueue(self, session: Any, job: NewJob) -> EnqueueResult:
        await asyncio.to_thread(self._make_queue, job.queue)
        with job_errors():
            [row] = await call_async(session, "job_enqueued", _arguments(job))
        return _result(job, row)


class SyncPgRelayClient(_Client):
    """The same for a session that blocks."""

    def enqueue_handler(
        self,
        *,
        session: Any,
        name: str,
        payload: Mapping[str, Any],
        queue_name: str = "default",
        **options: Unpack[PgRelayOptions],
    ) -> EnqueueResult:
        return self._enqueue(session, _job(queue_name, "python", name, payload, options))

    def enqueue_http(
        self, *, session: Any, name: str, url: str, method: str = "POST",
        json_body: Mapping[str, Any] | Sequence[Any] | None = None, body_base64: str | None = None,
        http_headers: Mapping[str, str] | None = None, queue_name: str = "default", **options: Unpack[PgRelayOptions],
    ) -> EnqueueResult:  # fmt: skip
        request = _request(url, method, json_body, body_base64)
        return self._enqueue(session, _job(queue_name, "http", name, request, options, http_headers))

    def _enqueue(self, session: Any, job: NewJob) -> EnqueueResult:
        self._make_queue(job.queue)
        with job_errors():
            [row] = call(session, "job_enqueued", _arguments(job))
        return _result(job, row)


_OURS = {"timeout_seconds": "timeout", "available_at": "at"}


def _job(
    queue: str,
    kind: Kind,
    name: str,
    payload: Mapping[str, Any],
    options: Mapping[str, Any],
    headers: Mapping[str, str] | None = None,
) -> NewJob:
    what = f"job {name!r} of queue {queue!r}"
    if unknown := sorted(options.keys() - PgRelayOptions.__annotations__.keys()):
        raise TypeError(
            f"{what}: unknown option {', '.join(unknown)}; known: {', '.join(PgRelayOptions.__annotations__)}"
        )
    ours = {_OURS.get(option, option): value for option, value in options.items()}
    try:
        text = json_text(dict(payload), "payload")
    except BadValue as error:
        raise BadArguments(f"{what}: {error}") from None
    return NewJob(queue, kind, name, text, columns(checked(ours | {"headers": headers}, what), what))


def _request(url: str, method: str, json_body: object, body_base64: str | None) -> dict[str, Any]:
    if json_body is not None and body_base64 is not None:
        raise BadArguments("an HTTP job has one body: give json_body or body_base64, not both")
    bodies = {"json": json_body, "base64": body_base64}
    return {"url": url, "method": method} | {key: body for key, body in bodies.items() if body is not None}


def _arguments(job: NewJob) -> Arguments:
    return {"queue": ("text", job.queue), "id": ("bigint", enqueue_call(job))}


def _result(job: NewJob, row: tuple[Any, ...]) -> EnqueueResult:
    uuid, created, status = row
    key: str | None = job.value("idempotency_key")
    return EnqueueResult(UUID(str(uuid)), bool(created), job.queue, str(status), key)
