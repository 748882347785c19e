"""PostgreSQL as another database with an inbox, for the suite."""

import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from psycopg import sql

from relay.backends.postgresql.sink import InboxSink
from tests.backends.harness import Harness, Missing, Seen
from tests.services.halt import halted
from tests.services.postgres import Database


class InboxHarness(Harness):
    kind = InboxSink

    def __init__(self, database: Database) -> None:
        self.database = database
        self.inbox = f"orders-{uuid.uuid4().hex[:8]}"
        with database.connect() as connection:
            connection.execute("select tide.inbox_create(%s)", [self.inbox])

    def config(self) -> dict[str, Any]:
        return {"inbox": self.inbox, "postgres_url": self.database.url}

    def rows(self) -> list[dict[str, Any]]:
        with self.database.connect() as connection:
            table = sql.Identifier("tide", self.inbox)
            cursor = connection.execute(
                sql.SQL("select *, payload::text as text from {} order by inbox_seq").format(table)
            )
            assert cursor.description is not None
            names = [column.name for column in cursor.description]
            return [dict(zip(names, row, strict=True)) for row in cursor]

    def read_all(self) -> list[Seen]:
        return [Seen(row["text"].encode(), row["aggregate_id"], row["headers"]) for row in self.rows()]

    @contextmanager
    def stall(self) -> Iterator[None]:
        """The server with all its sessions."""
        postmaster = self.database.server.process.pid
        assert postmaster is not None
        # The postmaster first: it starts no session then that would be missing from its children.
        with halted(postmaster), halted(*_children(postmaster)):
            yield

    def stop(self) -> None:
        self.database.server.kill()

    def start(self) -> None:
        self.database.server.start()

    def wrong_credentials(self) -> dict[str, Any]:
        process = self.database.server.process
        return {"postgres_url": process.url_of(self.database.name, "tide_owner", "not-the-password")}

    def missing_destination(self) -> Missing:
        name = f"missing-{self.inbox}"
        return Missing(name, {"inbox": name}, {"create_inbox": True}, "")


def _children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
