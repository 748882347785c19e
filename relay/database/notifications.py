"""Notifications, as hostile input: every role that can connect may send any text on any channel, at any rate.

So a notification only says "look": what it names must be a name, and everything else is read from a table. Nothing of
it is kept here, and nothing that it holds raises. psycopg and libpq would keep each one that arrives while a statement
runs, which for 60,000 of 8 KB are 488 MB, and decode them by the encoding of the database, which may refuse the bytes.
"""

import asyncio
import logging
import re
import select
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import psycopg
from psycopg.abc import PQGen
from psycopg.pq.abc import PGconn
from psycopg.pq.misc import PGnotify

from relay.log_limit import LogLimit

R = TypeVar("R")

Hear = Callable[[str, str | None], None]
"""Is given the channel, and the name of an outbox, an inbox or a pipeline that the notification consists of. It may be
empty, and is None if the text can be no name. Called amid statements: it only remembers, in bounded memory."""

# How long a caller that has other things to do is held up by a flood.
READ_SECONDS = 0.05
PACE_SECONDS = 0.01
"""How soon a notification is followed when the one before led to nothing."""

# The outbox of a queue of jobs is called jobs/<queue>, the lane of a pipeline <pipeline>/<number>.
_NAME = re.compile(rb"(?:(?:jobs/)?[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}(?:/[0-9]{1,2})?)?")

_log = logging.getLogger(__name__)


class _Hearing:
    """What listeners share, whichever way their session waits."""

    def __init__(self, pgconn: PGconn, hear: Hear) -> None:
        self._pgconn = pgconn
        self._hear = hear
        self._heard = 0
        self._refused = LogLimit()

    def _between(self, gen: PQGen[R]) -> Generator[Any, Any, R]:
        """The same steps. After each, libpq is rid of what came along with the answer."""
        try:
            wanted = next(gen)
            while True:
                ready = yield wanted
                wanted = gen.send(ready)
                self._take()
        except StopIteration as end:
            value: R = end.value
            return value

    def _take(self) -> None:
        while notify := self._pgconn.notifies():
            self._hand_over(notify)

    def _hand_over(self, notify: PGnotify) -> None:
        self._heard += 1
        channel = notify.relname.decode(errors="replace")
        name = notify.extra.decode() if _NAME.fullmatch(notify.extra) else None
        if name is None and (times := self._refused.count()):
            _log.warning(
                "%d notifications on %s hold no name, and were ignored; the last came from the session with pid %d: "
                "see its role in pg_stat_activity",
                times,
                channel,
                notify.be_pid,
            )
        self._hear(channel, name)


class Listener(_Hearing):
    """Hands over every notification of a session as soon as it is read. One thread at a time, like the session."""

    def __init__(self, connection: psycopg.Connection[Any], hear: Hear) -> None:
        super().__init__(connection.pgconn, hear)
        self._connection, self._handler_before = connection, self._pgconn.notify_handler
        self._pgconn.notify_handler = self._hand_over
        own_wait = connection.wait

        def wait(gen: PQGen[R], *args: Any, **options: Any) -> R:
            return own_wait(self._between(gen), *args, **options)

        # Of this one session: it may be the caller's, so that it cannot be of a class of ours.
        connection.wait = wait  # type: ignore[method-assign]

    def close(self) -> None:
        """Leaves the session as it was."""
        del self._connection.wait
        self._pgconn.notify_handler = self._handler_before

    def read(self) -> None:
        """Hands over what has arrived, without waiting. Raises psycopg.OperationalError if the session is lost."""
        until = time.monotonic() + READ_SECONDS
        while True:
            before = self._heard
            self._pgconn.consume_input()
            self._take()
            if self._heard == before or time.monotonic() > until:
                return

    def wait(self, seconds: float, *others: Any) -> bool:
        """Until something was handed over, one of `others` can be read (then True), or the time is over."""
        before = self._heard
        self.read()
        if self._heard != before:
            seconds = 0.0
        ready = select.select([self._pgconn.socket, *others], [], [], max(0.0, seconds))[0]
        if self._pgconn.socket in ready:
            self.read()
        return any(other in ready for other in others)


class AsyncListener(_Hearing):
    """The same of a session on an event loop, for as long as the session lasts."""

    def __init__(self, connection: psycopg.AsyncConnection[Any], hear: Hear) -> None:
        super().__init__(connection.pgconn, hear)
        self._pgconn.notify_handler = self._hand_over
        self._loop = asyncio.get_running_loop()
        self._lost: psycopg.OperationalError | None = None
        own_wait = connection.wait

        async def wait(gen: PQGen[R], *args: Any, **options: Any) -> R:
            return await own_wait(self._between(gen), *args, **options)

        connection.wait = wait  # type: ignore[method-assign]

    @contextmanager
    def hearing(self, wake: Callable[[], None]) -> Iterator[None]:
        """While no statement runs. Calls `wake` if the session is lost, and then raises psycopg.OperationalError."""
        self._take()  # what came with the last answer is in the memory of libpq, where no one would see it
        socket = self._pgconn.socket
        self._loop.add_reader(socket, self._read, wake)
        try:
            yield
        finally:
            self._loop.remove_reader(socket)
        if self._lost is not None:
            raise self._lost

    def _read(self, wake: Callable[[], None]) -> None:
        """Once: the loop has others to serve, and comes back while there is more."""
        try:
            self._pgconn.consume_input()
        except psycopg.OperationalError as error:
            self._lost = error
            wake()
        self._take()
