"""What a consumer calls in PostgreSQL, on a connection that may be the application's."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from psycopg import errors as pg
from psycopg.adapt import Buffer
from psycopg.rows import tuple_row
from psycopg.types.string import TextBinaryLoader

from relay.database.connection import database_errors
from relay.database.values import MomentBinaryLoader
from relay.errors import ConfigError
from relay.inbox.message import Connection, InboxMessage
from relay.inbox.transactions import Holder
from relay.masking import mask
from relay.sql import query


def call(connection: Connection, holder: Holder, statement: str, **parameters: object) -> list[tuple[Any, ...]]:
    """The rows of a statement for the holder, jsonb in them as text. Raises NotConnected, ConfigError."""
    names = {"inbox": holder.inbox, "worker": holder.worker}
    # The connection may have any DateStyle: in binary a moment is a number.
    with _text_errors(holder), database_errors(), connection.cursor(row_factory=tuple_row, binary=True) as cursor:
        # As text: one value that Python cannot parse would cost the whole answer.
        cursor.adapters.register_loader("jsonb", _JsonText)
        cursor.adapters.register_loader("timestamptz", MomentBinaryLoader)
        return cursor.execute(query(statement), {**names, **parameters}).fetchall()


def parsed(message: InboxMessage) -> InboxMessage:
    """A claimed message, whose JSON is text, with the values in its place. Raises RecursionError, ValueError."""
    payload, headers = _loaded(message.payload), _loaded(message.headers)
    payload_text, headers_text = str(message.payload or "null"), str(message.headers or "{}")
    return replace(message, payload=payload, headers=headers, payload_text=payload_text, headers_text=headers_text)


@contextmanager
def _text_errors(holder: Holder) -> Iterator[None]:
    """Of a connection of the application, whose encoding is not ours to change."""
    try:
        yield
    except (pg.UntranslatableCharacter, UnicodeError) as error:
        raise ConfigError(
            f"inbox {holder.inbox}: a message has a character that client_encoding of this connection "
            f"lacks: connect with client_encoding='UTF8' ({mask(' '.join(str(error).split()))})"
        ) from error


class _JsonText(TextBinaryLoader):
    """Of jsonb, which begins with the number of its format."""

    def load(self, data: Buffer) -> str | bytes:
        return super().load(bytes(data)[1:])


def _loaded(text: Any) -> Any:
    return None if text is None else json.loads(text)
