"""Requests that say twice where their body ends: refused, since a proxy in between may see another end than we do.

What one of the two takes for the rest of a body is the next request to the other, and that request may be one that the
proxy would not have let through. h11 refuses two lengths that differ, and any coding but `chunked`; it takes a length
beside `Transfer-Encoding`, reads the chunks and keeps the connection, which RFC 9112, 6.1 forbids.
"""

from typing import Any

from starlette.types import ASGIApp, Receive, Scope, Send

from relay.web.last_response import LastResponse

MESSAGE = "Send Content-Length or Transfer-Encoding, not both."


class OneFraming:
    """ASGI middleware: 400 with this body for a request with both, and the end of its connection."""

    def __init__(self, app: ASGIApp, refusal: Any) -> None:
        self._app = app
        self._refusal = refusal

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        app = self._app
        if scope["type"] == "http" and {b"content-length", b"transfer-encoding"} <= dict(scope["headers"]).keys():
            app = LastResponse(self._refusal, 400)
        await app(scope, receive, send)
