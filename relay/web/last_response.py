"""An answer that comes before the end of the body, and ends the connection."""

import asyncio
import contextlib

from starlette.responses import JSONResponse
from starlette.types import Receive, Scope, Send

LINGER_SECONDS = 5.0
LINGER_BYTES = 4 * 1024 * 1024
"""How much of a body is still taken off the connection after an answer that came before its end."""


class LastResponse(JSONResponse):
    """Comes before the end of the body, and closes the connection.

    A connection that is closed with something unread is reset, and a reset can take the answer from a sender who is
    still sending. So the answer goes out, what comes after it is thrown away, and then it is closed: RFC 9112, 9.6.
    """

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002
        headers = [*self.raw_headers, (b"connection", b"close")]
        await send({"type": "http.response.start", "status": self.status_code, "headers": headers})
        await send({"type": "http.response.body", "body": self.body, "more_body": True})
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(LINGER_SECONDS):
                await _throw_away(receive)
        await send({"type": "http.response.body", "body": b"", "more_body": False})


async def _throw_away(receive: Receive) -> None:
    """The rest of a request, up to `LINGER_BYTES` of it."""
    size = 0
    while size < LINGER_BYTES:
        message = await receive()
        size += len(message.get("body", b""))
        if not message.get("more_body"):
            return
