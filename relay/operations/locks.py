"""Advisory locks that ours are mistaken for, or wait for: any role that may connect can take one.

The lock of a slot says who owns the pipelines in it, and that of an open publisher says what is not complete yet. A
session that holds one and is neither a scheduler nor a publisher is named, so that an operator can end it.
"""

import hashlib
from collections.abc import Mapping
from typing import Any, NamedTuple

from relay.database.connection import Connection
from relay.operations.base import rows

Row = dict[str, Any]


SLOTS = 256
"""Of each group of schedulers, and of the pipelines that name none. PostgreSQL has room for some thousands of locks."""


class Slot(NamedTuple):
    """The pipelines that are owned together, because they share a lock."""

    group: str
    """The group of schedulers that they name; empty if they name none, and any scheduler may own them."""
    number: int


def slot_of(pipeline: str, group: str) -> Slot:
    """Two groups that want the same pipeline contend for the same lock: what it names counts, not who asks."""
    return Slot(group, int.from_bytes(hashlib.sha256(pipeline.encode()).digest()[:8], "big") % SLOTS)


def lock_key(slot: Slot) -> int:
    """The advisory lock of a slot: the first 8 bytes of SHA-256 over group and number, as a signed integer."""
    digest = hashlib.sha256(f"tide-relay slot\0{slot.group}\0{slot.number}".encode()).digest()
    return int.from_bytes(digest[:8], "big", signed=True)


def strangers(connection: Connection, groups: Mapping[str, str]) -> dict[str, Row]:
    """Those of these pipelines whose lock is held by what is no scheduler, with one holder. Raises NotConnected.

    `groups`: of each pipeline, the group of schedulers that it names; empty if it names none.
    """
    keys = [lock_key(slot_of(name, group)) for name, group in groups.items()]
    found = rows(connection, "status_strangers", names=list(groups), keys=keys)
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
