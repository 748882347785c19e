"""A flow of `exactly_once.py`: what it sends, on which pipelines, and what has arrived, by ids.

`PIPELINES` pipelines for each, so that one kill finds more of them in the middle of something.
"""

import threading
from abc import ABC, abstractmethod
from collections.abc import Container, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import psycopg
from psycopg.types.json import Jsonb

from relay.local.servers import EmbeddedRedis
from tests.faults.exactly_once_tally import Ordered, Tally
from tests.fleets.pipelines import Connection, Pipelines
from tests.services.kafka import KafkaServer
from tests.services.moto import MotoServer
from tests.services.nats import NatsServer
from tests.services.postgres import Database

LEASE_MS = 1_500
BATCH = 20
OUTBOXES = ("orders", "events")
PIPELINES = len(OUTBOXES)
_PAUSE_SECONDS = 0.03


@dataclass
class Services:
    """What the flows run on. Those that a flow needs are there."""

    database: Database
    remote: Database | None = None
    """In another server."""
    kafka: KafkaServer | None = None
    redis: EmbeddedRedis | None = None
    """Not the one of the queue; it keeps what it acknowledged when it is killed."""
    nats: NatsServer | None = None
    moto: MotoServer | None = None


class Flow(ABC):
    name: ClassVar[str]
    service: ClassVar[str | None] = None
    """Which of the services, beside PostgreSQL, is killed and started again."""
    ordered_when_fenced: ClassVar[bool] = True
    """Whether order holds also over a drain that outlived its lease."""

    def __init__(self, services: Services, pipelines: Pipelines) -> None:
        self.services, self.pipelines = services, pipelines
        self.names = [f"{self.name.replace('-', '_')}_{outbox}" for outbox in OUTBOXES]
        """Of its pipelines, and of what belongs to each: a topic, a stream, an inbox."""

    @abstractmethod
    def make(self) -> None: ...

    def start(self) -> None:  # noqa: B027
        """Begins to send, if it sends by itself, and to take away what arrives."""

    def stop(self) -> None:  # noqa: B027
        """Sends no more."""

    def close(self) -> None:  # noqa: B027
        """Ends what it started, whatever failed."""

    @abstractmethod
    def is_done(self) -> bool:
        """Whether all that was sent has arrived, once it sends no more."""

    @abstractmethod
    def ordered(self) -> Iterator[Ordered]: ...

    def tally(self, fenced: Container[str]) -> Tally:
        """`fenced`: the pipelines of which a drain outlived its lease."""
        tally = Tally()
        for one in self.ordered():
            tally.add(one, self.ordered_when_fenced or one.name.partition("/")[0] not in fenced)
        for name in self.names:
            dead = "select message_id::text, reason from tide.dead_letter where pipeline = %s"
            for message_id, reason in self.pipelines.run(dead, name):
                tally.dead += 1
                tally.examples.append(f"{name}: dead letter {message_id}: {reason}")
        return tally


class Forward(Flow):
    """Outbox to sink. All flows read the same outboxes, each by groups of its own."""

    def make(self) -> None:
        for name, outbox in zip(self.names, OUTBOXES, strict=True):
            self.pipelines.make(name, outbox, **self.keys(name))

    def keys(self, name: str) -> dict[str, Any]:
        """The whole configuration of a pipeline."""
        keys = {"visibility_timeout_ms": LEASE_MS, "slice_ms": 1000, "batch_size": BATCH, "poll_interval_ms": 200}
        return keys | self.config(name)

    @abstractmethod
    def config(self, name: str) -> dict[str, Any]: ...

    @abstractmethod
    def arrived(self, name: str) -> list[str]:
        """Dedup ids."""

    def is_done(self) -> bool:
        return all(map(self.pipelines.settled, self.names))

    def ordered(self) -> Iterator[Ordered]:
        for name, outbox in zip(self.names, OUTBOXES, strict=True):
            yield Ordered(name, [f"{outbox}:{id_}" for id_ in self.pipelines.committed(outbox)], self.arrived(name))


class Reverse(Flow):
    """Source to inbox, fed by a thread that sends a few messages at a time."""

    outages: ClassVar[tuple[type[Exception], ...]]

    def __init__(self, services: Services, pipelines: Pipelines) -> None:
        super().__init__(services, pipelines)
        self.confirmed: dict[str, list[str]] = {name: [] for name in self.names}
        """Event ids of what the service accepted permanently."""
        self._enough = threading.Event()
        self._thread = threading.Thread(target=self._feed, daemon=True)

    def make(self) -> None:
        for name in self.names:
            self.prepare(name)
            self.pipelines.run("select tide.inbox_create(%s)", name)
            keys = {"visibility_timeout_ms": LEASE_MS, "slice_ms": 2000, "batch_size": BATCH, "poll_interval_ms": 200}
            self.pipelines.run("select tide.relay_set_inbox(%s, %s, %s)", name, name, Jsonb(keys | self.config(name)))

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._enough.set()
        self._thread.join(60)
        assert not self._thread.is_alive(), f"the sender of {self.name} did not stop"

    def close(self) -> None:
        self._enough.set()

    @abstractmethod
    def prepare(self, name: str) -> None: ...

    @abstractmethod
    def config(self, name: str) -> dict[str, Any]: ...

    @abstractmethod
    def send(self, name: str, count: int) -> list[str]:
        """Event ids of the messages, once the service accepted them permanently. Raises one of `outages`."""

    @abstractmethod
    def stored(self, name: str) -> dict[str, list[str]]:
        """Event ids of all that the service holds, in order, by what those begin with among which order holds."""

    def arrived(self, name: str) -> list[str]:
        return [row[0] for row in self.pipelines.run(f"select event_id from tide.{name} order by inbox_seq")]

    def is_done(self) -> bool:
        return all(set(one.sent) <= set(one.arrived) for one in self.ordered())

    def ordered(self) -> Iterator[Ordered]:
        for name in self.names:
            arrived = self.arrived(name)
            stored = self.stored(name)
            lost = sorted(set(self.confirmed[name]).difference(*stored.values()))
            assert not lost, f"{self.service} itself has lost {lost[:5]}: this says nothing of the relay"
            for part, sent in stored.items():
                yield Ordered(part, sent, [id_ for id_ in arrived if id_.startswith(part)])

    def _feed(self) -> None:
        turn = 0
        while not self._enough.wait(_PAUSE_SECONDS):
            name = self.names[turn % PIPELINES]
            turn += 1
            try:
                self.confirmed[name] += self.send(name, 1 + turn % 15)
            except self.outages:
                self._enough.wait(0.1)


class Handler:
    """An application that handles rows of inboxes: takes them away, and writes down what it had, in order."""

    def __init__(self, pipelines: Pipelines, inboxes: Sequence[str]) -> None:
        self._pipelines, self._inboxes = pipelines, inboxes
        pipelines.run(
            "create table if not exists handled (n bigint generated always as identity, inbox text, event_id text)"
        )

    def start(self) -> None:
        """It goes on until this process ends."""
        threading.Thread(target=self._run, daemon=True).start()

    def handled(self, inbox: str) -> list[str]:
        with self._pipelines.connect() as connection:
            self._handle(connection, inbox)
        rows = self._pipelines.run("select event_id from handled where inbox = %s order by n", inbox)
        return [row[0] for row in rows]

    def _run(self) -> None:
        pause = threading.Event()
        while not pause.wait(0.1):
            try:
                with self._pipelines.connect() as connection:
                    while not pause.wait(0.1):
                        for inbox in self._inboxes:
                            self._handle(connection, inbox)
            except psycopg.OperationalError:
                continue

    def _handle(self, connection: Connection, inbox: str) -> None:
        connection.execute(
            f"""with gone as (delete from tide.{inbox} returning inbox_seq, event_id)
                insert into handled (inbox, event_id) select %s, event_id from gone order by inbox_seq""",
            [inbox],
        )
