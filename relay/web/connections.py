"""The connections of the public address: so many, each with a deadline for whatever it waits for.

No client has a right to a connection. When all are taken, those that wait for their clients are dropped, the oldest of
the greediest peer first; what has been received whole and waits for us is kept.
"""

import asyncio
import contextlib
import resource
import time
from typing import Any

import h11
import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol, RequestResponseCycle

from relay.web.webhooks.limits import DROPPED_AT_ONCE, peer_of, worst_first

CONNECTIONS_LIMIT = 4096
ACCEPTED_AT_ONCE = 100
KEPT_FILES = 256
"""Descriptors for everything else: sessions, the metrics address, what is accepted before others are dropped."""
HEAD_SECONDS = 10.0
"""How long a sender may take for the head of a request."""
ANSWER_SECONDS = 10.0
"""How long a sender may take to read what the system cannot keep for it."""
_PIECE_BYTES = 16 * 1024
_CHUNKING_BYTES = 64 * 1024
"""What the framing of a body may cost; beyond that, no more than the body itself."""


def connections_limit() -> int:
    """How many connections the limit of open files allows, which is raised as far as the system lets us."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = CONNECTIONS_LIMIT + KEPT_FILES
    if soft != resource.RLIM_INFINITY and soft < wanted:
        soft = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return CONNECTIONS_LIMIT if soft == resource.RLIM_INFINITY else max(16, min(CONNECTIONS_LIMIT, soft - KEPT_FILES))


class Connections:
    """Those of one server. Called in the event loop only."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._open: set[Connection] = set()

    def admit(self, connection: "Connection") -> None:
        if len(self._open) >= self._limit:
            idle = worst_first([one for one in self._open if one.waits_for_client], time.monotonic())
            for one in idle[: max(1, int(self._limit * DROPPED_AT_ONCE))]:
                self.forget(one)
                one.transport.abort()
        if len(self._open) < self._limit:
            self._open.add(connection)
        else:
            connection.transport.abort()

    def forget(self, connection: "Connection") -> None:
        self._open.discard(connection)


class Connection(H11Protocol):
    """uvicorn's, with an end to every wait for the client: uvicorn would wait indefinitely for heads and readers."""

    hook = ""
    size = 1

    def __init__(self, connections: Connections, config: uvicorn.Config, **given: Any) -> None:
        super().__init__(config, **given)
        self._connections = connections
        self._head_limit: asyncio.TimerHandle | None = None
        self._read_limit: asyncio.TimerHandle | None = None
        self._framed: RequestResponseCycle | None = None
        self._received_bytes = self._body_bytes = 0
        self.since = time.monotonic()
        self.peer = ""

    @property
    def waits_for_client(self) -> bool:
        cycle: RequestResponseCycle | None = self.cycle
        return cycle is None or cycle.more_body or cycle.response_complete or self._read_limit is not None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        transport.set_write_buffer_limits(0)  # so that `pause_writing` tells of whatever is not read
        self.peer = peer_of(self.client[0] if self.client else "")
        self._expect_head()
        self._connections.admit(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self._connections.forget(self)
        self._stop_expecting()
        self._stop_waiting_for_reader()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        for start in range(0, len(data), _PIECE_BYTES):
            if self.transport.is_closing():
                return
            self._piece_received(data[start : start + _PIECE_BYTES])

    def _piece_received(self, piece: bytes) -> None:
        before: RequestResponseCycle | None = self.cycle
        unread = len(before.body) if before else 0
        super().data_received(piece)
        now: RequestResponseCycle | None = self.cycle
        if now is not before:
            self._stop_expecting()
            self.since = time.monotonic()
            unread = 0
        elif self._head_limit is None and (now is None or now.response_complete):
            self._expect_head()
        if now is not None and now.more_body:
            self._bound_framing(now, len(piece), len(now.body) - unread)

    def _bound_framing(self, cycle: RequestResponseCycle, received: int, body: int) -> None:
        """Ends bodies in tiny chunks: each costs as much work as a large one."""
        if cycle is not self._framed:
            self._framed, self._received_bytes, self._body_bytes = cycle, 0, 0
        self._received_bytes += received
        self._body_bytes += body
        if not cycle.response_started and self._received_bytes > _CHUNKING_BYTES + 2 * self._body_bytes:
            self.transport.abort()

    def send_400_response(self, msg: str) -> None:
        """What came is no HTTP. uvicorn's fails where an answer has begun, and lets one be begun after it.

        To HEAD there is no body, and uvicorn sends one: h11 refuses that, after the head.
        """
        has_begun = self.conn.our_state not in (h11.IDLE, h11.SEND_RESPONSE)
        if self.cycle is not None:
            self.cycle.disconnected = True
            self.cycle.message_event.set()
        if has_begun:
            self.transport.close()
        else:
            with contextlib.suppress(h11.LocalProtocolError):
                super().send_400_response(msg)
            self.transport.close()

    def on_response_complete(self) -> None:
        self.since = time.monotonic()
        super().on_response_complete()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._read_limit = self.loop.call_later(ANSWER_SECONDS, self.transport.abort)

    def resume_writing(self) -> None:
        super().resume_writing()
        self._stop_waiting_for_reader()

    def _stop_waiting_for_reader(self) -> None:
        if self._read_limit is not None:
            self._read_limit.cancel()
            self._read_limit = None

    def _expect_head(self) -> None:
        self.since = time.monotonic()
        self._head_limit = self.loop.call_later(HEAD_SECONDS, self.transport.abort)

    def _stop_expecting(self) -> None:
        if self._head_limit is not None:
            self._head_limit.cancel()
            self._head_limit = None
