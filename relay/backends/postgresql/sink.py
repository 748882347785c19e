"""The inbox sink: messages become rows of an inbox, in this database or in another. Once: the event id is unique.

In this database they are written in the very transaction that settles them (`join`): offset and rows are never apart.
In another one each batch is a transaction of its own, and what is sent again after a crash changes nothing.
"""

import re
import threading
from collections.abc import Sequence
from typing import ClassVar

from psycopg import errors as pg

from relay.backends.postgresql.config import InboxSinkConfig
from relay.backends.postgresql.session import Session, connect, errors
from relay.backends.sink import Features, TransactionalSink
from relay.database.connection import Connection
from relay.errors import ConfigError, NotConnected, RelayError
from relay.inbox.rows import RowErrors, write, write_each
from relay.models import Failure, InboxRow, Record
from relay.sql import query
from relay.wire.templates import encode_json

# W3C Trace Context: version, trace id, parent id, flags.
_TRACEPARENT = re.compile(r"[0-9a-f]{2}-([0-9a-f]{32})-[0-9a-f]{16}-[0-9a-f]{2}(?:-.*)?")


class InboxSink(TransactionalSink[InboxSinkConfig]):
    features: ClassVar[Features] = Features(
        deduplicates=True,
        keeps_headers=True,
        keeps_key=True,
        needs_destination=True,
        needs_credentials=True,
        default_subject="",
    )
    config_model = InboxSinkConfig
    needs_operator = frozenset({"refused"})

    def __init__(self, config: InboxSinkConfig, pipeline: str) -> None:
        self._config = config
        self.transactional = self._config.postgres_url is None
        self._where = f"pipeline {pipeline!r}: inbox {self._config.inbox!r}"
        self._session: Session | None = None
        self._joined: Connection | None = None
        self._checked = False
        # Lets close() come from another thread: it waits for the batch that is being written.
        self._busy = threading.Lock()

    @property
    def inbox(self) -> str | None:
        return self._config.inbox if self.transactional else None

    def open(self) -> None:
        """In this database nothing is looked at before `join`, which brings the connection."""
        self.close()
        if self._config.postgres_url is None:
            return
        with self._busy:
            session = connect(self._config.postgres_url, self._where, self._config.timeout_ms, "tide-relay inbox sink")
            try:
                session.begin_call()
                self._check(session)
            except BaseException:
                session.close()
                raise
            self._session = session

    def use_transaction(self, connection: Connection) -> None:
        with self._busy:
            if not self._checked:
                self._check(connection)
                self._checked = True
            self._joined = connection

    def publish(self, records: Sequence[Record]) -> list[Failure]:
        with self._busy:
            connection = self._joined if self.transactional else self._session
            if connection is None:
                raise NotConnected(f"{self._where}: not open", code="closed")
            rows = [_row(record) for record in records]
            fit = [index for index, row in enumerate(rows) if isinstance(row, InboxRow)]
            try:
                with errors(self._where):
                    refused = self._write(connection, [row for row in rows if isinstance(row, InboxRow)])
            except RelayError as error:
                self._drop()
                code = error.code if isinstance(error, NotConnected) else "refused"
                raise NotConnected(str(error), code=code) from error
            except BaseException:
                self._drop()
                raise
            reasons = {index: row for index, row in enumerate(rows) if isinstance(row, str)}
            reasons |= {fit[position]: reason for position, reason in refused}
            return [Failure(index, True, "refused", reasons[index]) for index in sorted(reasons)]

    def close(self) -> None:
        with self._busy:
            self._drop()

    def _write(self, connection: Connection, rows: Sequence[InboxRow]) -> list[tuple[int, str]]:
        if not isinstance(connection, Session):
            return write_each(connection, self._config.inbox, rows)
        connection.begin_call()
        with RowErrors():
            # One statement is one transaction, in one round trip.
            write(connection, self._config.inbox, rows)
            return []
        with connection.transaction():
            return write_each(connection, self._config.inbox, rows)

    def _check(self, connection: Connection) -> None:
        """That the inbox is there and that we may write to it: writes nothing. Raises what `open` raises."""
        name = self._config.inbox
        with errors(self._where):
            try:
                _write_nothing(connection, name)
            except pg.UndefinedObject:
                if not self._config.create_inbox:
                    raise ConfigError(
                        f"it does not exist: run select tide.inbox_create('{name}'); in its database, "
                        "or set create_inbox to true"
                    ) from None
                _create(connection, name)
            except pg.InsufficientPrivilege as error:
                grant = f"let its owner run select tide.grant_inbox_writer('{connection.info.user}');"
                raise ConfigError(f"{error.diag.message_primary}: {error.diag.message_hint or grant}") from error

    def _drop(self) -> None:
        session, self._session = self._session, None
        self._joined = None
        self._checked = False
        if session is not None:
            session.close()


def _write_nothing(connection: Connection, name: str) -> None:
    columns = "event_ids event_types sources aggregate_ids event_sequences payloads headers trace_ids"
    connection.execute(query("inbox_write"), {"inbox": name, **{column: [] for column in columns.split()}})


def _create(connection: Connection, name: str) -> None:
    try:
        connection.execute(query("inbox_create"), {"inbox": name})
    except (pg.DuplicateObject, pg.UniqueViolation):
        pass  # another worker has just made it
    except pg.InsufficientPrivilege as error:
        raise ConfigError(
            f"it does not exist, and the user {connection.info.user!r} may not make it: let its owner run "
            f"select tide.inbox_create('{name}');"
        ) from error


def _row(record: Record) -> InboxRow | str:
    """The row of a record, or why it cannot be one. Whether the body is JSON is for PostgreSQL to say."""
    try:
        payload = record.body.decode()
    except UnicodeDecodeError as error:
        return f"the body is not UTF-8: {error.reason} at byte {error.start}"
    trace = _TRACEPARENT.fullmatch(record.headers.get("traceparent", ""))
    return InboxRow(
        event_id=record.dedup_id,
        event_type=record.headers.get("type"),
        source=record.dedup_id.rpartition(":")[0],
        aggregate_id=record.key,
        event_sequence=record.id,
        payload=payload,
        headers=encode_json(record.headers),
        trace_id=trace[1] if trace else None,
    )
