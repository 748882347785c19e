"""The outbox of a database that is not ours, for the source suite."""

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from decimal import Decimal
from typing import Any

from relay.backends.postgresql.source import OutboxSource
from tests.backends.source_harness import AWKWARD_BODIES, MissingSource, Sent, SourceHarness
from tests.services.postgres import Database
from tests.services.proxy import Proxy

OUTBOX = "orders"


class OutboxSourceHarness(SourceHarness):
    kind = OutboxSource
    # An outbox holds JSON as jsonb keeps it: no empty text, and no NUL in a string.
    bodies = tuple(body for body in AWKWARD_BODIES if body and b"\\u0000" not in body)

    def __init__(self, database: Database, proxy: Proxy) -> None:
        self.database = database
        self.proxy = proxy
        with database.connect() as connection:
            connection.execute("select tide.outbox_create(%s, max_payload_bytes => 10000000)", [OUTBOX])

    def config(self) -> dict[str, Any]:
        return {"postgres_url": self.proxy.through(self.database.url), "outbox": OUTBOX}

    def send(self, messages: Sequence[Sent]) -> None:
        with self.database.connect() as connection, connection.transaction():
            for sent in messages:
                publish(connection, sent.body.decode(), sent.headers, sent.key)

    def alike(self, sent: bytes, received: bytes) -> bool:
        """As JSON values, every digit of a number included: jsonb keeps no white space."""
        return _value(sent) == _value(received)

    @contextmanager
    def stall(self) -> Iterator[None]:
        self.proxy.stall()
        try:
            yield
        finally:
            self.proxy.heal()

    def stop(self) -> None:
        self.database.server.kill()

    def start(self) -> None:
        self.database.server.start()

    def wrong_credentials(self) -> dict[str, Any]:
        process = self.database.server.process
        return {"postgres_url": process.url_of(self.database.name, "tide_owner", "not-the-password")}

    def missing_source(self) -> MissingSource:
        return MissingSource("nowhere", {"outbox": "nowhere"}, ("tide.outbox_create('nowhere')",))


def publish(connection: Any, payload: str, headers: dict[str, Any] | None = None, key: str | None = None) -> int:
    [(message_id,)] = connection.execute(
        "select tide.outbox_publish(%s, %s::jsonb, %s::jsonb, %s)",
        [OUTBOX, payload, json.dumps(headers or {}), key],
    ).fetchall()
    return int(message_id)


def _value(text: bytes) -> Any:
    return json.loads(text, parse_float=Decimal)
