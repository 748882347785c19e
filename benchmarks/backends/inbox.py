"""Inboxes: in the database of the outbox, in one transaction with the offset; or in another, before it."""

import json

import psycopg
from psycopg import sql

from benchmarks import bare
from benchmarks.backends.base import Destination
from benchmarks.bare import Batches, Connection, InboxRow, Row, headers


class InboxDestination(Destination):
    def __init__(self, session: Connection, remote_url: str | None) -> None:
        """`session` in the database of the inboxes; `remote_url` of it, where it is another one than the outbox's."""
        self._session = session
        self._remote_url = remote_url

    def config(self, place: str, backlog: int) -> dict[str, object]:  # noqa: ARG002
        remote = {} if self._remote_url is None else {"postgres_url": self._remote_url}
        return {"sink_type": "inbox", "inbox": place, **remote}

    def deliver(self, batches: Batches, place: str, backlog: int) -> None:  # noqa: ARG002
        if self._remote_url is None:
            for rows in batches:
                bare.write(batches.session, place, map(_row, rows))
            return
        with psycopg.connect(self._remote_url) as remote:
            for rows in batches:
                bare.write(remote, place, map(_row, rows))
                remote.commit()

    def count(self, place: str) -> int:
        query = sql.SQL("select count(*) from {}").format(sql.Identifier("tide", place))
        [(found,)] = self._session.execute(query).fetchall()
        return int(found)

    def make(self, place: str) -> None:
        self._session.execute("select tide.inbox_create(%s)", (place,))

    def remove(self, place: str) -> None:
        """Emptied, not dropped: the pipeline still names it."""
        self._session.execute(sql.SQL("truncate {}").format(sql.Identifier("tide", place)))


def _row(row: Row) -> InboxRow:
    found = headers(row)
    return found["relay-id"], "o", row[0], row[1], json.dumps(found)
