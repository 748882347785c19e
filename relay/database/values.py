"""Values of PostgreSQL that Python does not have: one of them must not cost an answer of many rows.

psycopg raises while it reads the answer, so a single message with such a value would stop all that are read with it.
"""

import json
from datetime import UTC, datetime
from typing import Any

import psycopg
from psycopg.adapt import AdaptersMap, Buffer
from psycopg.types.datetime import TimestamptzBinaryLoader, TimestamptzLoader
from psycopg.types.json import set_json_loads

from relay.database import arrays

UNREADABLE = "unreadable"
"""The only member of what stands for a JSON value that Python cannot parse: it says why."""

LATEST = datetime.max.replace(tzinfo=UTC)
"""Stands for every moment that Python does not have: infinity, or a year above 9999 or before Christ."""


def _parsed(data: str | bytes) -> Any:
    """Too deep, or with a number of 5000 digits."""
    try:
        return json.loads(data)
    except (RecursionError, ValueError) as error:
        return {UNREADABLE: f"Python cannot parse it: {error}"}


class MomentLoader(TimestamptzLoader):
    def load(self, data: Buffer) -> datetime:
        try:
            return super().load(data)
        except psycopg.DataError:
            return LATEST


class MomentBinaryLoader(TimestamptzBinaryLoader):
    def load(self, data: Buffer) -> datetime:
        try:
            return super().load(data)
        except psycopg.DataError:
            return LATEST


ADAPTERS = AdaptersMap(psycopg.adapters)
"""The context of a connection."""
set_json_loads(_parsed, ADAPTERS)
ADAPTERS.register_loader("timestamptz", MomentLoader)
ADAPTERS.register_loader("timestamptz", MomentBinaryLoader)
# Also those of connections that others have opened: no one else has values of these types.
for adapters in (ADAPTERS, psycopg.adapters):
    arrays.register(adapters)
