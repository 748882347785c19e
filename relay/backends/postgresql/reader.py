"""A consumer group of another database's outbox: the protocol of `relay/drains/outbox.py` without a drain's fence.

The same two rules hold: the horizon is read before the messages, in a statement of its own; and a group that found
nothing commits its armed bell before it looks again. No fence is needed: what an abandoned worker writes there
is an offset, which only grows and only over what is stored, and the bell, whose loss costs one wait.
"""

import socket
import time
from typing import NamedTuple

from psycopg import errors as pg
from psycopg.rows import args_row

from relay.backends.postgresql.session import Session, errors
from relay.database.notifications import PACE_SECONDS, Listener
from relay.errors import ConfigError
from relay.models import MAX_BATCH_BYTES, Message
from relay.sql import query


class Group(NamedTuple):
    """Where a consumer group stands."""

    outbox_id: int
    outbox_made: str
    """When the outbox was made, which tells it from another of the same name."""
    last_id: int
    """The highest id taken."""
    group_id: int
    offset_id: int


class Backlog(NamedTuple):
    """What there is after an id."""

    messages: list[Message]
    horizon: int
    open_publishers: int


def join_group(session: Session, outbox: str, group: str, where: str) -> Group:
    """Finds the group, or makes it. Raises ConfigError, NotConnected."""
    parameters: dict[str, object] = {"outbox": outbox, "consumer_group": group}
    with errors(where):
        for _ in range(2):
            row = session.execute(query("source_outbox"), parameters).fetchone()
            if row is None:
                raise ConfigError(
                    f"{where}: it does not exist: run select tide.outbox_create('{outbox}'); in its database"
                )
            outbox_id, made, last_id, group_id, offset_id, pipeline, is_polled = row
            if pipeline is not None:
                raise ConfigError(
                    f"{where}: its consumer group {group!r} belongs to the pipeline {pipeline!r} of that database; "
                    "name another in consumer_group"
                )
            if is_polled:
                raise ConfigError(
                    f"{where}: its consumer group {group!r} is polled by SQL consumers of that database; "
                    "name another in consumer_group"
                )
            if group_id is not None:
                return Group(outbox_id, made, last_id, group_id, offset_id)
            try:
                session.execute(query("outbox_create_group"), parameters | {"outbox_id": outbox_id})
            except pg.InsufficientPrivilege as error:
                raise ConfigError(
                    f"{where}: it has no consumer group {group!r} yet, and the user {session.info.user!r} may not make "
                    "it: let the schema's owner run grant insert on tide.consumer_group, tide.bell to that user"
                ) from error
    raise ConfigError(f"{where}: its consumer group {group!r} cannot be made")


class OutboxReader:
    """A session that listens to the bell, and its group. Methods raise what psycopg raises; one thread at a time."""

    def __init__(self, session: Session, outbox: str, group: Group) -> None:
        self._session = session
        self._outbox = outbox
        self._parameters = {"outbox_id": group.outbox_id, "group_id": group.group_id}
        self._armed = False
        self._found = False
        self._rung = False
        """Whether a message is said to have come since the last look."""
        self._soonest = 0.0
        """When a bell is answered: at once, unless the one before led to nothing. Anyone can ring."""
        self._listener = Listener(session, self._hear)
        self._ours, self._theirs = socket.socketpair()

    @property
    def is_armed(self) -> bool:
        return self._armed

    def peek(self, after: int, max_messages: int) -> Backlog:
        """The next messages after an id, up to the horizon. The second batch in a row silences the bell."""
        session, rung, self._rung = self._session, self._rung, False
        session.begin_call()
        silences = self._armed and self._found
        with session.pipeline():
            if silences:
                session.execute(query("source_bell"), {**self._parameters, "armed": False})
            session.execute(query("begin"))
            horizon = session.execute(query("outbox_horizon"), self._parameters)
            rows = session.cursor(row_factory=args_row(Message)).execute(
                query("outbox_read"),
                {
                    **self._parameters,
                    "after": after,
                    "horizon": None,
                    "max_messages": max_messages,
                    "max_bytes": MAX_BATCH_BYTES,
                },
                binary=True,
            )
            session.execute("commit")
        [(known, open_publishers, *_)] = horizon.fetchall()
        found = rows.fetchall()
        if silences:
            self._armed = False
        self._found = bool(found)
        self._soonest = time.monotonic() + PACE_SECONDS if rung and not found else 0.0
        return Backlog(found, known, open_publishers)

    def arm(self) -> None:
        """Asks publishers to ring: from now on, so look once more before waiting."""
        self._session.begin_call()
        self._session.execute(query("source_bell"), {**self._parameters, "armed": True})
        self._armed = True

    def silence(self) -> None:
        """Nothing waits here any more."""
        if self._armed:
            self._session.begin_call()
            self._session.execute(query("source_bell"), {**self._parameters, "armed": False})
            self._armed = False

    def is_rung(self) -> bool:
        """Whether anything there rings the bell: publishers do while a scheduler runs in that database."""
        self._session.begin_call()
        [(rung,)] = self._session.execute(query("source_rung")).fetchall()
        return bool(rung)

    def settle(self, offset_id: int) -> None:
        self._session.begin_call()
        self._session.execute(query("source_offset"), {**self._parameters, "offset_id": offset_id})

    def wait(self, seconds: float) -> None:
        """Until the outbox's bell rings, the time is over, or `wake` was called."""
        until = time.monotonic() + seconds
        while (left := (min(until, self._soonest) if self._rung else until) - time.monotonic()) > 0:
            if self._listener.wait(left, self._ours):
                return

    def wake(self) -> None:
        """Ends the wait of another thread, now and later."""
        self._theirs.send(b"x")

    def close(self) -> None:
        self._session.close()
        self._ours.close()
        self._theirs.close()

    def _hear(self, _channel: str, name: str | None) -> None:
        if name == self._outbox:
            self._rung = True
