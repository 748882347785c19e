"""uvicorn on an address of its own, in any thread, until it is told to end."""

import contextlib
import functools
import socket
import threading
from collections.abc import Iterator
from typing import Any

import uvicorn
from starlette.types import ASGIApp

from relay.process.stop import Stop
from relay.web.connections import ACCEPTED_AT_ONCE, Connection, Connections

BACKLOG = 2048
KEEPALIVE_SECONDS = 65


@contextlib.contextmanager
def listen(address: tuple[str, int]) -> Iterator[socket.socket]:
    """Bound before anything else starts, so that an address in use is a clear error."""
    family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
    with socket.create_server(address, family=family, backlog=BACKLOG) as listening:
        # asyncio does it only for sockets that it made itself. Every answer would wait 40 ms for an acknowledgement.
        listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        yield listening


def serve(app: ASGIApp, listening: socket.socket, stop: Stop, connections: int, grace_seconds: float) -> None:
    """Answers until `stop` is set, and then the requests in hand for so long. Blocks its thread."""
    protocol: Any = functools.partial(Connection, Connections(connections))
    server = _Server(
        uvicorn.Config(
            app, http=protocol, ws="none", lifespan="off", access_log=False, log_config=None,
            server_header=False, proxy_headers=False, backlog=ACCEPTED_AT_ONCE,
            timeout_keep_alive=KEEPALIVE_SECONDS, timeout_graceful_shutdown=max(1, round(grace_seconds)),
        )
    )  # fmt: skip
    waiter = threading.Thread(target=_end, args=(server, stop), name="stop", daemon=True)
    waiter.start()
    server.run(sockets=[listening])
    stop.set()
    waiter.join()


def _end(server: uvicorn.Server, stop: Stop) -> None:
    stop.wait()
    server.should_exit = True


class _Server(uvicorn.Server):
    """Signals are `relay.process.stop`'s."""

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        for listening in sockets or []:
            listening.listen(BACKLOG)  # asyncio has set it to what is accepted at once

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield
