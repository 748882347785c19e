"""The statements of an engine, on one asynchronous session: ends and claims of jobs go in one round trip."""

import contextlib
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import psycopg
from psycopg.types.numeric import Int2, Int8BinaryLoader
from psycopg.types.string import TextBinaryLoader

from relay.database.connection import connection_options, database_errors, values
from relay.database.notifications import AsyncListener
from relay.drains.fence import end_parameters
from relay.jobs.handlers import AnyJob
from relay.jobs.models import Claimed, Ended
from relay.jobs.schedules import declare_schedules_async
from relay.models import Drain
from relay.settings import Settings
from relay.sql import query
from workers.jobs.queues import EndOfDrain, Look, Queue
from workers.jobs.run import SUCCEEDED

NAME = "tide-relay jobs"


class Done(NamedTuple):
    """A run that has ended, as it is written."""

    claimed: Claimed
    queue: Queue
    ms: int
    ended: Ended


class Visit(NamedTuple):
    """A claim, and with a drain whose bell is armed a look before it."""

    queue: Queue
    want: int
    looks: bool


class Seen(NamedTuple):
    jobs: list[Claimed]
    look: Look | None


@dataclass(slots=True)
class Trip:
    """What came back."""

    seen: list[Seen]
    """For each visit."""
    refused: int = 0
    """Of what was finished: those that were not this worker's any more."""


class Store:
    """One task at a time. Methods raise NotConnected when the session is lost, ConfigError, MigrationError."""

    def __init__(self, settings: Settings, rang: Callable[[str], None]) -> None:
        """`rang` is called with the name of an outbox whose bell rang; empty: any."""
        self._settings = settings
        self._rang = rang
        self._connection: psycopg.AsyncConnection[tuple[Any, ...]] | None = None
        self._claims: psycopg.AsyncCursor[tuple[Any, ...]] | None = None
        self._listener: AsyncListener | None = None

    @property
    def is_open(self) -> bool:
        return self._connection is not None and not self._connection.closed

    async def open(self) -> None:
        await self.close()
        with database_errors():
            connection = await psycopg.AsyncConnection.connect(
                self._settings.postgres_url, **connection_options(self._settings, NAME)
            )
            self._connection = connection
            connection.adapters.register_loader("timestamptz", Int8BinaryLoader)
            connection.adapters.register_loader('"char"', TextBinaryLoader)
            self._claims = connection.cursor(binary=True)
            if await _is_pooled(connection):
                # A pooler may give each transaction another session, which does not know what was prepared here.
                connection.prepare_threshold = None
                await connection.execute(*values(shared=True))
            else:
                await connection.execute(*values())
                connection.prepare_threshold = 1
                await connection.execute(
                    query("session"),
                    {"statement_timeout": f"{round(self._settings.statement_timeout_seconds * 1000)}ms"},
                )
                self._listener = AsyncListener(connection, lambda _, name: self._rang(name) if name else None)
                await connection.execute(query("engine_hear"))
                self._rang("")  # what rang before was not heard

    @property
    def hears_bells(self) -> bool:
        """Not behind a pooler, nor while the session is lost."""
        return self.is_open and self._listener is not None

    @contextlib.contextmanager
    def idle(self, wake: Callable[[], None]) -> Iterator[None]:
        """While no statement runs, bells are heard. If the session is lost: calls `wake`, and raises NotConnected."""
        if self._listener is None or not self.is_open:
            yield
            return
        with database_errors(), self._listener.hearing(wake):
            yield

    async def declare(self, handlers: Iterable[AnyJob]) -> list[str]:
        """Sets the schedules of these handlers; those that this changed. Also raises JobError."""
        async with self._session() as connection:
            return await declare_schedules_async(connection, handlers)

    async def close(self) -> None:
        if self._connection is not None:
            connection, self._connection, self._claims, self._listener = self._connection, None, None, None
            with contextlib.suppress(psycopg.Error):
                await connection.close()

    async def trip(
        self,
        worker: int,
        done: Sequence[Done],
        ends: Sequence[EndOfDrain],
        bells: Sequence[Queue],
        visits: Sequence[Visit],
    ) -> Trip:
        """Finishes, ends drains, sets bells, claims. If it raises, any part of it may have happened: finish again."""
        if len(visits) == 1 and not (done or ends or bells or visits[0].looks):
            trip = await self._claim(worker, visits[0])
        else:
            trip = await self._whole(worker, done, ends, bells, visits)
        await self._add_results(trip.seen)
        return trip

    async def _whole(
        self,
        worker: int,
        done: Sequence[Done],
        ends: Sequence[EndOfDrain],
        bells: Sequence[Queue],
        visits: Sequence[Visit],
    ) -> Trip:
        async with self._session() as connection, connection.pipeline() as pipeline:
            finished = await connection.execute(*_finish(worker, done)) if done else None
            for end in ends:
                if end.disarm:
                    await connection.execute(query("bell_disarm"), {"group_id": end.group_id, **_fence(end.drain)})
                await connection.execute(query("drain_end"), end_parameters(end.drain, end.result))
            for queue in bells:
                assert queue.drain is not None
                await connection.execute(
                    query(f"bell_{queue.bell}"), {"group_id": queue.group_id, **_fence(queue.drain)}
                )
            if ends or bells:
                await pipeline.sync()  # committed: a look must come after the bell is armed
            durable = finished is not None and not (ends or bells)  # then claims are of its transaction
            looks, claims = [], []
            for visit in visits:
                parameters = _claiming(worker, visit, durable=durable)
                looks.append(await connection.execute(query("engine_look"), parameters) if visit.looks else None)
                claims.append(await connection.execute(query("engine_claim"), parameters, binary=True))
            # All is sent before any answer is read: a process that is frozen meanwhile keeps no turn of a queue.
            await pipeline.sync()
            trip = Trip([])
            for visit, look, claim in zip(visits, looks, claims, strict=True):
                row = await look.fetchone() if look else None
                trip.seen.append(Seen(_jobs(visit, await claim.fetchall()), Look(*row) if row else None))
            if finished and (row := await finished.fetchone()):
                trip.refused = row[0]
        return trip

    async def _claim(self, worker: int, visit: Visit) -> Trip:
        """A job that has just come should not wait for the pipeline of a trip to be set up, nor for a cursor."""
        if not self.is_open:
            await self.open()
        assert self._claims is not None
        with database_errors():
            await self._claims.execute(query("engine_claim"), _claiming(worker, visit, durable=False))
            return Trip([Seen(_jobs(visit, await self._claims.fetchall()), None)])

    async def _add_results(self, seen: Sequence[Seen]) -> None:
        """What the jobs returned that handlers' jobs have waited for. Most have not, and nothing is asked."""
        waited = [
            job
            for each in seen
            for job in each.jobs
            if job.options is not None and '"after":' in job.options and job.kind == "p"
        ]
        if not waited:
            return
        leases = _array([str(job.lease_id) for job in waited])
        async with self._session() as connection:
            cursor = await connection.execute(
                query("engine_results"), {"leases": leases, "ids": _array([str(job.id) for job in waited])}
            )
            results = {(lease, number): text for lease, number, text in await cursor.fetchall()}
        for each in seen:
            each.jobs[:] = [job._replace(results=results.get((job.lease_id, job.id))) for job in each.jobs]

    async def renew(self, drain: Drain) -> int | None:
        """The revision of its pipeline; None: it was abandoned."""
        revision: int | None = await self.value("engine_renew", lease_seconds=drain.lease_ms / 1000, **_fence(drain))
        return revision

    async def value(self, statement: str, /, **parameters: Any) -> Any:
        """The first value of the first row of a statement; None if there is none."""
        async with self._session() as connection:
            cursor = await connection.execute(query(statement), parameters)
            row = await cursor.fetchone() if cursor.description else None
            return row[0] if row else None

    @contextlib.asynccontextmanager
    async def _session(self) -> AsyncIterator[psycopg.AsyncConnection[tuple[Any, ...]]]:
        if not self.is_open:
            await self.open()
        assert self._connection is not None
        with database_errors():
            yield self._connection


async def _is_pooled(connection: psycopg.AsyncConnection[Any]) -> bool:
    """As `relay.database.pooler.is_between`."""
    cursor = await connection.execute("select pg_catalog.pg_backend_pid()", prepare=False)
    row = await cursor.fetchone()
    return row is None or row[0] != connection.info.backend_pid


def _claiming(worker: int, visit: Visit, *, durable: bool) -> dict[str, int]:
    return {"queue": visit.queue.outbox_id, "worker": worker, "want": visit.want, "durable": durable}


def _jobs(visit: Visit, rows: Sequence[tuple[Any, ...]]) -> list[Claimed]:
    return [Claimed._make((visit.queue.name, visit.queue.outbox_id, *row, None)) for row in rows]


def _fence(drain: Drain) -> dict[str, object]:
    return {"pipeline": drain.pipeline, "epoch": drain.epoch, "number": drain.number}


def bare(done: Done) -> Done:
    """Without what PostgreSQL may have refused to store: a text must not make a job run again."""
    ended = replace(done.ended, error="what this run said could not be stored", preview=None, result=None)
    return done._replace(ended=ended)


def _array(values: list[str]) -> str:
    return "{" + ",".join(values) + "}"


def _finish(worker: int, done: Sequence[Done]) -> tuple[Any, dict[str, Any]]:
    """Arrays of plain values go as text: PostgreSQL reads them faster than Python packs them."""
    jobs, ends = [each.claimed for each in done], [each.ended for each in done]
    parameters: dict[str, Any] = {
        "worker": worker,
        "leases": _array([str(job.lease_id) for job in jobs]),
        "ids": _array([str(job.id) for job in jobs]),
        "attempts": _array([str(job.attempt) for job in jobs]),
        "ms": _array([str(each.ms) for each in done]),
        "outcomes": _array([ended.outcome for ended in ends]),
    }
    if all(ended is SUCCEEDED for ended in ends):
        return query("engine_finish"), parameters
    return query("engine_finish_all"), parameters | {
        "codes": [ended.code for ended in ends],
        "errors": [ended.error for ended in ends],
        "statuses": [None if ended.response_status is None else Int2(ended.response_status) for ended in ends],
        "previews": [ended.preview for ended in ends],
        "results": [ended.result for ended in ends],
        "retry_seconds": [ended.retry_seconds for ended in ends],
    }
