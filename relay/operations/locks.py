"""Advisory locks that ours are mistaken for, or wait for: any role that may connect can take one.

The lock of a pipeline says who owns it, and that of an open publisher says what is not complete yet. A session that
holds one and is neither a scheduler nor a publisher is named, so that an operator can end it.
"""

import hashlib
from collections.abc import Sequence
from typing import Any

from relay.database.connection import Connection
from relay.operations.base import rows

Row = dict[str, Any]


def lock_key(name: str) -> int:
    """The advisory lock of a pipeline: the first 8 bytes of SHA-256 over its name, as a signed integer.

    A name has one direction, so that the key needs none.
    """
    digest = hashlib.sha256(f"tide-relay pipeline\0{name}".encode()).digest()
    return int.from_bytes(digest[:8], "big", signed=True)


def strangers(connection: Connection, names: Sequence[str]) -> dict[str, Row]:
    """Those of these pipelines whose lock is held by what is no scheduler, with one holder. Raises NotConnected."""
    found = rows(connection, "status_strangers", names=list(names), keys=[lock_key(name) for name in names])
    return {row["pipeline"]: row for row in found}


def holder_text(holder: Row) -> str:
    """A row with pid, role, application_name and gid, for people."""
    if holder["gid"] is not None:
        return f"prepared transaction {holder['gid']!r}"
    name = holder["application_name"] or "none"
    return f"session pid {holder['pid']} of user {holder['role'] or 'unknown'}, application_name {name}"


def ending(holder: Row) -> str:
    """What ends it."""
    if holder["gid"] is not None:
        return f"rollback prepared '{holder['gid']}';"
    return f"select pg_terminate_backend({holder['pid']});"
