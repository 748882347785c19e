"""The services of a run: PostgreSQL 18 with durable commits, and each backend as it is first asked for; and the
relay's processes on them."""

import contextlib
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import Any, Self
from urllib.parse import urlsplit

import psycopg
from psycopg import sql
from psycopg.types.json import Jsonb

from benchmarks.backends import kafka, webhook
from relay.database.migrate import migrate
from relay.local.servers import EmbeddedPostgres, EmbeddedRedis
from tests.services.moto import MotoServer
from tests.services.nats import NatsServer
from tests.services.rabbitmq import RabbitmqServer

# What a server has by default, but for the cache, which no one leaves at its default.
POSTGRES_SETTINGS: dict[str, str | int] = {"shared_buffers": "256MB", "max_wal_size": "1GB", "min_wal_size": "80MB"}
STOP_SECONDS = 40.0
NO_VARIABLES: Mapping[str, str] = MappingProxyType({})

Connection = psycopg.Connection[Any]


def wait_until(
    ready: Callable[[], bool], what: str, limit_seconds: float = 120.0, every_seconds: float = 0.005
) -> None:
    """Raises TimeoutError that says what was waited for."""
    deadline = time.monotonic() + limit_seconds
    while not ready():
        if time.monotonic() > deadline:
            raise TimeoutError(f"not within {limit_seconds:.0f} s: {what}")
        time.sleep(every_seconds)


class Database:
    """A migrated database of its own, and a session in autocommit on it."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.session: Connection = psycopg.connect(url, autocommit=True)

    def connect(self) -> Connection:
        return psycopg.connect(self.url, autocommit=True)

    def run(self, statement: str, *parameters: object) -> Any:
        """The first value of the first row, None if there is none."""
        cursor = self.session.execute(statement.encode(), parameters or None)
        row = cursor.fetchone() if cursor.description else None
        return row[0] if row else None

    def set_pipeline(self, name: str, outbox: str, **config: object) -> None:
        self.run("select tide.relay_set_outbox(%s, %s, %s::jsonb)", name, outbox, Jsonb(config))

    def stop_pipeline(self, name: str) -> None:
        """Disables it, and waits until nothing of it is under way. One that does not exist is stopped already."""
        if self.run("select true from tide.pipeline where name = %s", name):
            self.run("select tide.relay_disable(%s)", name)
            wait_until(
                lambda: self.run("select bool_and(lease_until is null) from tide.drain where pipeline = %s", name),
                "the last drains ended",
            )

    def behind(self, pipeline: str) -> int:
        """Ids between the offset of the pipeline's group and the end of its outbox."""
        return int(
            self.run(
                "select tide.outbox_last_id(g.outbox_id) - g.offset_id"
                "  from tide.pipeline p join tide.consumer_group g using (group_id) where p.name = %s",
                pipeline,
            )
        )

    def wait_until_drained(self, pipeline: str, every_seconds: float = 0.005) -> None:
        """Raises RuntimeError with the pipeline's error if it has one: a benchmark has no use for another try."""

        def is_drained() -> bool:
            if error := self.run("select error from tide.drain where pipeline = %s", pipeline):
                raise RuntimeError(f"pipeline {pipeline}: {error}")
            return self.behind(pipeline) <= 0

        wait_until(is_drained, f"pipeline {pipeline} drained", every_seconds=every_seconds)


@dataclass(frozen=True)
class Relay:
    """One scheduler and one `dramatiq relay.workers`, running."""

    scheduler: subprocess.Popen[bytes]
    workers: subprocess.Popen[bytes]

    @property
    def pids(self) -> list[int]:
        return [self.scheduler.pid, self.workers.pid]


class Stack:
    """A context manager: all of it is gone afterwards, and so is its folder."""

    def __init__(self) -> None:
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        self.folder = Path(self._stack.enter_context(tempfile.TemporaryDirectory(prefix="tide-bench-")))
        self.folder.chmod(0o755)
        postgres = EmbeddedPostgres(self.folder / "postgres", 18, POSTGRES_SETTINGS)
        self.postgres = self._stack.enter_context(postgres)
        return self

    def __exit__(self, *exception: Any) -> None:
        self._stack.__exit__(*exception)

    @cached_property
    def redis(self) -> EmbeddedRedis:
        return self._stack.enter_context(EmbeddedRedis(self.folder / "redis"))

    @cached_property
    def nats(self) -> NatsServer:
        return self._stack.enter_context(NatsServer(self.folder / "nats", max_payload_bytes=2 * 1024 * 1024))

    @cached_property
    def kafka(self) -> str:
        """The address of its broker."""
        return self._stack.enter_context(kafka.cluster())

    @cached_property
    def rabbitmq(self) -> RabbitmqServer:
        return self._stack.enter_context(RabbitmqServer(self.folder / "rabbitmq"))

    @cached_property
    def moto(self) -> MotoServer:
        return self._stack.enter_context(MotoServer(self.folder / "moto"))

    @cached_property
    def receiver(self) -> str:
        """The URL of a receiver of webhooks."""
        return self._stack.enter_context(webhook.receiver())

    @contextlib.contextmanager
    def database(self, name: str, server_url: str | None = None) -> Iterator[Database]:
        """On the server of all, or on another one."""
        server_url = server_url or self.postgres.url
        with psycopg.connect(server_url, autocommit=True) as admin:
            admin.execute(sql.SQL("create database {}").format(sql.Identifier(name)))
            url = urlsplit(server_url)._replace(path=f"/{name}").geturl()
            migrate(url)
            database = Database(url)
            try:
                yield database
            finally:
                database.session.close()
                admin.execute(sql.SQL("drop database {} with (force)").format(sql.Identifier(name)))

    @contextlib.contextmanager
    def relay(
        self, database: Database, *, processes: int = 1, threads: int = 8, variables: Mapping[str, str] = NO_VARIABLES
    ) -> Iterator[Relay]:
        """`variables` are settings, such as RELAY_JOB_MODULES."""
        self.redis.flush()
        with self.another_relay(database, processes=processes, threads=threads, variables=variables) as relay:
            yield relay

    @contextlib.contextmanager
    def another_relay(
        self, database: Database, *, processes: int = 1, threads: int = 8, variables: Mapping[str, str] = NO_VARIABLES
    ) -> Iterator[Relay]:
        """The same, while others run on the broker."""
        environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith(("RELAY_", "PGTRICKLE_"))},
            "RELAY_POSTGRES_URL": database.url,
            "RELAY_BROKER_URL": self.redis.url,
            "RELAY_METRICS_ADDR": "127.0.0.1:0",
            "RELAY_WORKER_METRICS_ADDR": "127.0.0.1:0",
            "RELAY_SINK_FOLDERS": str(self.folder),
            "RELAY_LOG_LEVEL": "warning",
            **variables,
        }
        programs = Path(sys.executable).parent
        with ExitStack() as stack:
            log = stack.enter_context((self.folder / "relay.log").open("ab"))

            def start(*command: str) -> subprocess.Popen[bytes]:
                process = subprocess.Popen(
                    [str(programs / command[0]), *command[1:]], env=environment, cwd=self.folder, stdout=log, stderr=log
                )
                stack.callback(stop, process)
                return process

            workers = start("dramatiq", "relay.workers", "--processes", str(processes), "--threads", str(threads))
            yield Relay(start("relay-scheduler"), workers)


def stop(process: "subprocess.Popen[bytes] | subprocess.Popen[str]") -> None:
    """Asks it to end, and ends it if it does not."""
    process.terminate()
    try:
        process.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
